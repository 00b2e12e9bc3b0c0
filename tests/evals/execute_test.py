import dataclasses
import json
import subprocess
import sys

import pytest

from evals import execute, prompts, selftest, summary, workdir
from evals.config import EvaluationConfig
from phi1_jax import InputError, storage
from phi1_jax.problems import humaneval
from phi1_jax.sandbox.program import Verdict
from phi1_jax.sandbox.sandbox import Sandbox
from tests.evals.conftest import Knowing, Trusting

CONFIG = EvaluationConfig("humaneval-164", "as-is")


@pytest.fixture
def asked(five):
  return prompts.build_all(five, "humaneval-164", "as-is")


@pytest.fixture
def run(five, asked, generated, tmp_path):
  """Judges a run in which problems 0, 1 and 2 were solved."""
  solved = {problem.id for problem in five[:3]}
  generated(Knowing(five, knows=lambda problem: problem.id in solved), CONFIG)

  def run(judge=None):
    judge = judge or Trusting()
    ready = lambda: selftest.check(five, judge)  # noqa: E731
    return execute.execute(tmp_path, asked, judge, ready)

  run.read = lambda: summary.read(tmp_path, asked)
  return run


def test_judges_both_variants_and_resumes(run, tmp_path):
  judge = Trusting()
  # Equal programs run once: a model that writes nothing but the body is cut to what is
  # extracted.
  assert run(judge) == 5
  assert len(judge.ran) == len(set(judge.ran))
  path = tmp_path / workdir.VERDICTS
  lines = path.read_bytes().splitlines(keepends=True)
  assert len(lines) == 10
  outcomes = {json.loads(line)["outcome"] for line in lines}
  assert outcomes == {"passed", "wrong", "raised"}
  for variant in execute.VARIANTS:
    correct = summary.correct(run.read(), variant).values()
    assert [c for [c] in correct] == [True] * 3 + [False] * 2
  path.write_bytes(b"".join(lines[:4]) + lines[4][:9])
  run()
  assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)
  again = Trusting()
  assert run(again) == 0
  assert again.ran == []
  again.record = lambda: Trusting().record() | {"isolation": "bubblewrap"}
  assert run(again) > 0  # another judge judges again
  assert len(storage.read_lines(path)) == 20
  run.read()


def test_only_as_many_samples_count_as_were_last_asked_for(
  five, asked, generated, tmp_path
):
  """A run of two samples goes on as a run of one: its first samples are scored."""
  config = dataclasses.replace(CONFIG, samples=2, temperature=0.5)
  assert generated(Knowing(five), config) == 10
  assert len(execute.completions(tmp_path, asked)) == 10
  assert generated(Knowing(five), dataclasses.replace(config, samples=1)) == 0
  assert [row["sample"] for row in execute.completions(tmp_path, asked)] == [0] * 5
  execute.execute(tmp_path, asked, Trusting(), lambda: None)
  correct = summary.correct(summary.read(tmp_path, asked), "truncated")
  assert correct == {problem.id: [True] for problem in five}


@pytest.mark.parametrize(
  ("wrong", "named"),
  [
    ("reference", "HumanEval/0: reference failed"),
    ("empty", "HumanEval/0: empty body passed"),
    ("hack", "hack always equal passed"),
  ],
)
def test_scores_nothing_where_the_self_test_fails(run, tmp_path, wrong, named):
  class Unfit(Trusting):
    def run(self, asked):
      for verdict in super().run(asked):
        flip = verdict.key.startswith(wrong) or verdict.key.endswith(wrong)
        outcome = "wrong" if verdict.passed else "passed"
        yield Verdict(verdict.key, outcome) if flip else verdict

  with pytest.raises(selftest.UnfitError, match=named):
    run(Unfit())
  assert storage.read_lines(tmp_path / workdir.VERDICTS) == []


def test_incomplete_runs_are_refused(run, tmp_path):
  with pytest.raises(InputError, match=r"10 of 10 verdicts.*--stage=execute"):
    run.read()
  run()
  path = tmp_path / workdir.RUN
  whole = storage.read_json(path)
  for noted, expected in (({}, r"a number in run\.json"), ({"rows": 6}, "6;")):
    storage.write_json(path, whole | {"generate": noted})
    message = f"5 completions, expected {expected}.*--stage=generate"
    with pytest.raises(InputError, match=message):
      run.read()
  storage.write_json(path, whole)
  rows = (tmp_path / workdir.COMPLETIONS).read_bytes().splitlines(keepends=True)
  (tmp_path / workdir.COMPLETIONS).write_bytes(b"".join(rows[1:]))
  with pytest.raises(
    InputError, match=r"has 4 completions, expected 5; .*--stage=generate"
  ):
    run.read()


def test_verdicts_of_other_programs_do_not_count(run, monkeypatch):
  run()
  other = execute.extraction.Extraction("def other():\n  pass\n", ())
  monkeypatch.setattr(execute.extraction, "extract", lambda *_, **__: other)
  with pytest.raises(InputError, match=r"5 of 10 verdicts are missing"):
    run.read()


def test_another_sandbox_is_another_judge(monkeypatch, tmp_path):
  monkeypatch.setattr(execute.sandboxes, "__file__", str(tmp_path / "sandbox.py"))
  source = tmp_path / "inside" / "server.py"
  source.parent.mkdir()
  source.write_text("a = 1\n")
  before = execute.judge_identity(Trusting())
  assert execute.judge_identity(Trusting()) == before
  source.write_text("a = 2\n")
  assert execute.judge_identity(Trusting()) != before
  # Another Python than the judge's would parse other programs.
  monkeypatch.setattr(execute, "_PYTHON", "3.99.1")
  expected = r"Python 3\.99 would parse .* install Python 3\.99"
  with pytest.raises(InputError, match=expected):
    execute.judge_identity(Trusting())


def test_what_is_too_long_stops_nothing(run, tmp_path):
  path = tmp_path / workdir.COMPLETIONS
  rows = storage.read_lines(path)
  rows[1]["completion"] += "#" * (1 << 20)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  run()
  samples = run.read()
  [sample] = samples[rows[1]["task_id"]]
  outcomes = [sample["variants"][variant]["outcome"] for variant in execute.VARIANTS]
  assert outcomes == [execute.TOO_LONG, "passed"]
  assert sum(passed for [passed] in summary.correct(samples, "truncated").values()) == 2
  assert run() == 0


def test_what_is_nested_too_deeply_is_judged_as_it_is(five, asked, monkeypatch):
  def deep(*_, **__):
    raise RecursionError

  monkeypatch.setattr(execute.extraction, "extract", deep)
  row = {"completion": "  return 1\n"}
  truncated, sanitized = execute.variants(asked[five[0].id], row).values()
  assert sanitized.code == truncated.code
  assert "too deeply" in sanitized.dropped[0]


def test_references_empty_bodies_and_hacks_in_the_real_sandbox(five):
  problems = humaneval.load()
  assert len(problems) == 164
  with Sandbox(workers=2) as sandbox:
    assert selftest.failures(problems, sandbox) == []


def test_never_imports_jax():
  code = (
    "import sys\n"
    "import evals.__main__, evals.execute, evals.generate, evals.report\n"
    "from phi1_jax.cli import gin_config\n"
    "heavy = {'jax', 'flax', 'orbax', 'tensorflow', 'torch'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
