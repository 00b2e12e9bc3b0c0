import dataclasses
import json
import subprocess
import sys

import pytest

from evals import execute, generate, programs, prompts, selftest, summary, workdir
from evals.config import EvaluationConfig
from phi1_jax import InputError, storage
from phi1_jax.sandbox.program import Verdict
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.text import settings_file

CONFIG = EvaluationConfig("humaneval-164", "as-is")
JUDGE = {"isolation": "none"}


@pytest.fixture
def folder(five, tmp_path, knowing):
  """A run in which problems 0, 1 and 2 were solved."""
  solved = {problem.id for problem in five[:3]}
  backend = knowing(five, knows=lambda problem, key: problem.id in solved)
  asked = prompts.build_all(five, "humaneval-164", "as-is")
  settings_file.begin(
    tmp_path / workdir.RUN, generate.settings(CONFIG, backend.identity())
  )
  generate.generate(tmp_path, five, asked, CONFIG, backend)
  return tmp_path


@pytest.fixture
def asked(five):
  return prompts.build_all(five, "humaneval-164", "as-is")


@pytest.fixture
def run(five, folder, asked):
  return lambda judge, identity=JUDGE: execute.execute(
    folder, five, asked, judge, identity
  )


def test_judges_both_variants(run, five, folder, asked, trusting):
  run(trusting())
  verdicts = storage.read_lines(folder / workdir.VERDICTS)
  assert len(verdicts) == 10
  results = summary.read(folder, five, asked)
  for variant in programs.VARIANTS:
    assert [c for [c] in results.correct(variant).values()] == [True] * 3 + [False] * 2
  assert {v["outcome"] for v in verdicts} == {"passed", "wrong", "raised"}


def test_goes_on_and_runs_nothing_twice(run, folder, trusting):
  run(trusting())
  path = folder / workdir.VERDICTS
  whole = path.read_bytes()
  lines = whole.splitlines(keepends=True)
  path.write_bytes(b"".join(lines[:4]) + lines[4][:9])
  run(trusting())
  assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)
  again = trusting()
  assert run(again) == 0
  assert again.ran == []


def test_another_judge_judges_again(run, five, folder, asked, trusting):
  run(trusting())
  assert run(trusting(), {"isolation": "bubblewrap"}) > 0
  assert len(storage.read_lines(folder / workdir.VERDICTS)) == 20
  summary.read(folder, five, asked)


def test_only_as_many_samples_count_as_were_last_asked_for(
  five, asked, tmp_path, knowing, trusting
):
  """A run of two samples goes on as a run of one: its first samples are scored."""
  config = dataclasses.replace(CONFIG, samples=2, temperature=0.5)
  backend = knowing(five)
  settings = generate.settings(config, backend.identity())
  settings_file.begin(tmp_path / workdir.RUN, settings)
  generate.generate(tmp_path, five, asked, config, backend)
  assert len(execute.completions(tmp_path, five)) == 10
  one = dataclasses.replace(config, samples=1)
  assert generate.generate(tmp_path, five, asked, one, backend) == 0
  assert [row["sample"] for row in execute.completions(tmp_path, five)] == [0] * 5
  execute.execute(tmp_path, five, asked, trusting(), JUDGE)
  assert summary.read(tmp_path, five, asked).correct("truncated") == {
    problem.id: [True] for problem in five
  }


def test_equal_programs_run_once(run, folder, trusting):
  """What was cut is what was extracted, where a model writes nothing but the body."""
  judge = trusting()
  assert run(judge) == 5
  assert len(judge.ran) == len(set(judge.ran))


@pytest.mark.parametrize("wrong", ["reference", "empty", "hack"])
def test_scores_nothing_where_the_self_test_fails(run, folder, trusting, wrong):
  class Unfit(trusting):
    def run(self, asked):
      for verdict in super().run(asked):
        flip = verdict.key.startswith(wrong) or verdict.key.endswith(wrong)
        outcome = "wrong" if verdict.passed else "passed"
        yield Verdict(verdict.key, outcome) if flip else verdict

  named = {
    "reference": "HumanEval/0: reference failed",
    "empty": "HumanEval/0: empty body passed",
    "hack": "hack always equal passed",
  }
  with pytest.raises(selftest.UnfitError, match=named[wrong]):
    run(Unfit())
  assert storage.read_lines(folder / workdir.VERDICTS) == []


def test_a_judge_that_loses_a_program_is_noticed(five, trusting):
  class Losing(trusting):
    def run(self, asked):
      yield from list(super().run(asked))[1:]

  found = selftest.complaints(selftest.references(five), Losing())
  assert [message for _, message in found] == ["HumanEval/0: reference: no verdict"]


def test_incomplete_runs_are_refused(run, five, folder, asked, trusting):
  with pytest.raises(InputError, match=r"10 of 10 verdicts.*--stage=execute"):
    summary.read(folder, five, asked)
  run(trusting())
  path = folder / workdir.COMPLETIONS
  path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
  with pytest.raises(InputError, match=r"1 of 5 problems.*--stage=generate"):
    summary.read(folder, five, asked)


def test_a_run_that_was_killed_is_incomplete(run, five, folder, asked, trusting):
  run(trusting())
  noted = storage.read_json(folder / workdir.RUN)
  del noted["generate"]
  storage.write_json(folder / workdir.RUN, noted)
  with pytest.raises(
    InputError, match=r"5 completions, expected a number in run\.json"
  ):
    summary.read(folder, five, asked)
  noted["generate"] = {"samples": None, "rows": 6}
  storage.write_json(folder / workdir.RUN, noted)
  with pytest.raises(InputError, match=r"5 completions, expected 6;.*--stage=generate"):
    summary.read(folder, five, asked)


def test_another_sandbox_is_another_judge(trusting, monkeypatch, tmp_path):
  judge = trusting()
  monkeypatch.setattr(execute.sandboxes, "__file__", str(tmp_path / "sandbox.py"))
  source = tmp_path / "inside" / "server.py"
  source.parent.mkdir()
  source.write_text("a = 1\n")
  before = execute.judge_identity(judge)
  assert execute.judge_identity(judge) == before
  source.write_text("a = 2\n")
  assert execute.judge_identity(judge) != before


def test_what_is_too_long_stops_nothing(run, five, folder, asked, trusting):
  path = folder / workdir.COMPLETIONS
  rows = storage.read_lines(path)
  rows[1]["completion"] += "#" * (1 << 20)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  run(trusting())
  results = summary.read(folder, five, asked)
  key = rows[1]["key"]
  assert results.verdicts[key, "truncated"]["outcome"] == execute.TOO_LONG
  assert results.verdicts[key, "sanitized"]["outcome"] == "passed"
  assert results.count("truncated", "outcome")["passed"] == 2
  assert run(trusting()) == 0


def test_what_is_nested_too_deeply_is_judged_as_it_is(five, asked, monkeypatch):
  def deep(*_, **__):
    raise RecursionError

  monkeypatch.setattr(programs.extraction, "extract", deep)
  row = {"completion": "  return 1\n"}
  truncated, sanitized = programs.variants(five[0], asked[five[0].id], row).values()
  assert sanitized.code == truncated.code
  assert "too deeply" in sanitized.dropped[0]


def test_hacks_are_contained_by_the_real_sandbox(five):
  with Sandbox(workers=2) as sandbox:
    cases = selftest.references(five) + selftest.empty_bodies(five)
    cases += selftest.hacks()
    assert selftest.complaints(cases, sandbox) == []


def test_never_imports_jax():
  code = (
    "import sys\n"
    "import evals.__main__, evals.execute, evals.generate, evals.report\n"
    "from phi1_jax.cli import gin_config\n"
    "heavy = {'jax', 'flax', 'orbax', 'tensorflow', 'torch'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_another_python_than_the_judges_parses_nothing(trusting, monkeypatch):
  assert execute.judge_identity(trusting())["parser"].startswith("3.")
  monkeypatch.setattr(execute, "_PYTHON", "3.99.1")
  with pytest.raises(
    InputError, match=r"Python 3\.99 would parse .* install Python 3\.99"
  ):
    execute.judge_identity(trusting())


def test_verdicts_of_other_programs_do_not_count(
  run, five, folder, asked, trusting, monkeypatch
):
  run(trusting())
  monkeypatch.setattr(
    programs.extraction,
    "extract",
    lambda *_, **__: programs.extraction.Extraction("def other():\n  pass\n", ()),
  )
  with pytest.raises(InputError, match=r"5 of 10 verdicts are missing"):
    summary.read(folder, five, asked)
