"""`python -m evals` on a user's problems, on subsets, and on EvalPlus' tests."""

import json

import pytest

from evals import __main__ as command_line
from evals import backends, benchmark
from phi1_jax import InputError

STUB = 'def {0}(a):\n  """ {0} """\n'
PLUS = {"base_input": [[1], [2]], "plus_input": [[3.5]], "atol": 0}
TEST = {"test": "def check(candidate):\n  assert candidate(2) == 4\n"}


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Two problems, the second with further tests, and three completions."""
  monkeypatch.chdir(tmp_path)
  rows = [
    {"task_id": f"mine/{n}", "prompt": STUB.format(name), "entry_point": name}
    | {"canonical_solution": "  return 2 * a\n"}
    | tests
    for n, (name, tests) in enumerate([("twice", TEST), ("double", PLUS)])
  ]
  (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
  made = [
    {"task_id": "mine/0", "completion": "  return a + a\n"},
    {"task_id": "mine/1", "solution": "def double(a):\n  return a + int(a)\n"},
    {"task_id": "mine/1", "completion": "  return 0\n"},
  ]
  (tmp_path / "made.json").write_text(json.dumps(made))
  return tmp_path


@pytest.fixture
def run(files, trusting, monkeypatch):
  """run(flags) judges with a stand-in, and returns the summary."""
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: trusting())

  def run(*flags, workdir="run"):
    common = ["--problems=mine.jsonl", f"--workdir={workdir}"]
    assert command_line.main(["custom", *common, *flags]) == 0
    return json.loads((files / workdir / "summary.json").read_text())

  return run


def test_a_users_own_problems(run, files):
  found = run("--completions=made.json")
  assert found["settings"]["task_set"] == "custom-mine-2"
  scores = found["scores"]["truncated"]
  assert scores["pass@1"]["value"] == 0.75
  assert scores["plus pass@1"]["value"] == 0.5  # int() is wrong for 3.5
  assert found["settings"]["sampling"] is None  # nothing says how they were sampled
  again = run("--stage=report")
  assert again["scores"] == found["scores"]
  (files / "mine.jsonl").write_text((files / "mine.jsonl").read_text() + "\n")
  run("--stage=report")
  (files / "mine.jsonl").write_text(
    (files / "mine.jsonl").read_text().replace("2 *", "3 *")
  )
  with pytest.raises(InputError, match="other problems than those"):
    run("--stage=report")


@pytest.mark.parametrize("source", ["--checkpoint=none", "--completions=none.jsonl"])
def test_a_source_that_is_missing_is_refused_before_the_sandbox(
  files, monkeypatch, source
):
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: pytest.fail("it was started"))
  with pytest.raises(InputError, match="none"):
    command_line.main(["custom", "--problems=mine.jsonl", "--workdir=run", source])
  assert not (files / "run").exists()


@pytest.mark.parametrize("given", ["1", "mine/1", "ids.txt"])
def test_a_subset_is_named_in_the_score(run, files, given):
  (files / "ids.txt").write_text("mine/1\n\n")
  found = run("--completions=made.json", f"--subset={given}")
  assert found["settings"]["task_set"] == "custom-mine-2[1 of 2: mine/1]"
  assert found["problems"] == 1
  assert found["scores"]["truncated"]["pass@1"]["value"] == 0.5


def test_an_unknown_id_is_refused(run):
  with pytest.raises(
    InputError, match="--subset: got '7', expected ids of custom-mine-2"
  ):
    run("--completions=made.json", "--subset=1,7")
  with pytest.raises(InputError, match="--subset: got '100', expected ids"):
    run("--completions=made.json", f"--subset={','.join(map(str, range(100, 999)))}")


def test_published_verdicts_beside_ours(run, files, capsys):
  published = {"eval": {"mine/1": [{"base_status": "pass", "plus_status": "pass"}] * 2}}
  (files / "theirs.json").write_text(json.dumps(published))
  run("--completions=made.json", "--compare=theirs.json")
  compared = json.loads((files / "run" / "compare.json").read_text())
  assert (compared["samples"], compared["missing"]) == (2, 1)
  counts = compared["counts"]["truncated, plus"]
  assert (counts["both pass"], counts["only theirs"]) == (0, 2)
  assert "mine/1, sample 1, truncated, base" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--problems=nope.jsonl"]])
def test_problems_are_needed(files, flags):
  with pytest.raises(InputError, match=r"--problems=FILE|nope.jsonl: cannot be read"):
    command_line.main(["custom", "--workdir=x", "--completions=made.json", *flags])


@pytest.mark.parametrize(
  ("old", "new", "expected"),
  [
    ("2 *", "3 *", "mine/0: reference failed: wrong"),
    ("assert candidate(2) == 4", "candidate(2)", "mine/0: empty body passed"),
  ],
)
@pytest.mark.parametrize(
  "flags",
  [
    ["--references"],
    ["--workdir=x", "--completions=made.json"],
    ["--workdir=x", "--checkpoint=x"],
    ["--workdir=x", "--checkpoint=x", "--stage=generate"],
  ],
)
def test_a_wrong_problem_of_a_user_is_refused_before_a_model_is_asked(
  run, files, flags, old, new, expected, monkeypatch, knowing
):
  class Unasked(knowing):
    def complete(self, wanted):
      pytest.fail("the model was asked")

  monkeypatch.setattr(backends, "CheckpointBackend", lambda *_: Unasked([]))
  text = (files / "mine.jsonl").read_text()
  (files / "mine.jsonl").write_text(text.replace(old, new, 1))
  with pytest.raises(InputError, match=rf"mine\.jsonl: {expected}"):
    command_line.main(["custom", "--problems=mine.jsonl", *flags])


def test_a_machine_that_judges_wrong_is_found_before_a_model_is_asked(
  only_five, knowing, trusting, monkeypatch, tmp_path
):
  backend = knowing(only_five)
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: trusting(hacks="passed"))
  monkeypatch.setattr(backends, "CheckpointBackend", lambda *_: backend)
  flags = ["humaneval", "--checkpoint=x", f"--workdir={tmp_path / 'run'}"]
  assert command_line.main(flags) == benchmark.FAILED
  assert backend.asked == []
  assert command_line.main([*flags, "--stage=generate"]) == 0  # judged elsewhere
  assert len(backend.asked) == 5
