"""`python -m evals` on a user's problems, on subsets, and on EvalPlus' tests."""

import json
from pathlib import Path

import pytest

from evals import __main__ as command_line
from evals import backends, benchmark
from phi1_jax import InputError
from phi1_jax.sandbox.sandbox import Sandbox
from tests.evals.conftest import Knowing, Trusting

STUB = 'def {0}(a):\n  """ {0} """\n'
PLUS = {"base_input": [[1], [2]], "plus_input": [[3.5]], "atol": 0}
TEST = {"test": "def check(candidate):\n  assert candidate(2) == 4\n"}
MADE = "--completions=made.json"


@pytest.fixture
def run(tmp_path, monkeypatch):
  """run(*flags) judges three completions of two problems; returns the summary."""
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
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: Trusting())

  def run(*flags):
    common = ["--problems=mine.jsonl", "--workdir=run"]
    assert command_line.main(["custom", *common, *flags]) == 0
    return json.loads((tmp_path / "run" / "summary.json").read_text())

  return run


def _edit(path, old, new):
  path.write_text(path.read_text().replace(old, new, 1))


def test_a_users_own_problems(run, tmp_path, capsys):
  """Beside published verdicts."""
  published = {"eval": {"mine/1": [{"base_status": "pass", "plus_status": "pass"}] * 2}}
  (tmp_path / "theirs.json").write_text(json.dumps(published))
  found = run(MADE, "--compare=theirs.json")
  assert found["settings"]["task_set"] == "custom-mine-2"
  scores = found["scores"]["truncated"]
  assert scores["pass@1"]["value"] == 0.75
  assert scores["plus pass@1"]["value"] == 0.5  # int() is wrong for 3.5
  assert found["settings"]["sampling"] is None  # nothing says how they were sampled
  compared = json.loads((tmp_path / "run" / "compare.json").read_text())
  assert (compared["samples"], compared["missing"]) == (2, 1)
  counts = compared["counts"]["truncated, plus"]
  assert (counts["both pass"], counts["only theirs"]) == (0, 2)
  assert "mine/1, sample 1, truncated, base" in capsys.readouterr().out
  _edit(tmp_path / "mine.jsonl", "\n", "\n\n")  # the problems are the same
  assert run("--stage=report")["scores"] == found["scores"]
  _edit(tmp_path / "mine.jsonl", "2 *", "3 *")
  with pytest.raises(InputError, match="other problems than those"):
    run("--stage=report")


@pytest.mark.parametrize("given", ["1", "mine/1", "ids.txt"])
def test_a_subset_is_named_in_the_score(run, tmp_path, given):
  (tmp_path / "ids.txt").write_text("mine/1\n\n")
  found = run(MADE, f"--subset={given}")
  assert found["settings"]["task_set"] == "custom-mine-2[1 of 2: mine/1]"
  assert found["problems"] == 1
  assert found["scores"]["truncated"]["pass@1"]["value"] == 0.5
  assert run("--stage=report", "--subset=1")["scores"] == found["scores"]
  with pytest.raises(InputError, match="begun with task_set"):
    run("--stage=report", "--subset=0")


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    ([MADE, "--subset=1,7"], "--subset: got '7', expected ids of custom-mine-2"),
    ([MADE, "--problems=nope.jsonl"], r"nope.jsonl: cannot be read"),
    (["--checkpoint=none"], "none"),
    (["--completions=none.jsonl"], "none"),
  ],
)
def test_refused_before_the_sandbox_starts(run, tmp_path, monkeypatch, flags, named):
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: pytest.fail("it was started"))
  with pytest.raises(InputError, match=named):
    run(*flags)
  assert not (tmp_path / "run").exists()


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
    [MADE],
    ["--checkpoint=x"],
    ["--checkpoint=x", "--stage=generate"],
  ],
)
def test_a_wrong_problem_of_a_user_is_refused_before_a_model_is_asked(
  run, tmp_path, flags, old, new, expected, monkeypatch
):
  backend = Knowing([])  # which fails when it is asked
  monkeypatch.setattr(backends, "CheckpointBackend", lambda *_: backend)
  _edit(tmp_path / "mine.jsonl", old, new)
  with pytest.raises(InputError, match=rf"mine\.jsonl: {expected}"):
    run(*flags)


FORM = {"task_id": "mine/f", "entry_point": "f"}
CLASS = (
  FORM
  | {"prompt": "class f:\n  def __init__(self, a):\n"}
  | {
    "canonical_solution": "    self.b = 2 * a\n",
    "test": "def check(f):\n  assert f(2).b == 4\n",
  }
)
NUMPY = (
  FORM
  | {"prompt": "f = lambda a: ", "canonical_solution": "2 * a\n"}
  | {"test": "import numpy\ndef check(f):\n  assert f(2) == 4\n"}
)
PASSED = (
  FORM
  | {"prompt": "def f(g):\n", "canonical_solution": "  return g(2)\n"}
  | {"test": "def check(f):\n  assert f(lambda a: 2 * a) == 4\n"}
)


def _real(monkeypatch, row):
  """Has one problem judged in a real sandbox."""
  monkeypatch.setattr(benchmark, "Sandbox", Sandbox)
  Path("mine.jsonl").write_text(json.dumps(row))
  solution = {"task_id": "mine/f", "completion": row["canonical_solution"]}
  Path("made.json").write_text(json.dumps([solution]))


def test_problems_judged_in_process_are_counted(run, monkeypatch, capsys):
  _real(monkeypatch, PASSED)
  with pytest.raises(InputError, match=r'unsupported .* "in_process": true'):
    run("--references")
  _real(monkeypatch, PASSED | {"in_process": True})
  found = run(MADE)
  assert found["in_process"] == 1
  said = "1 of 1 problems were judged in the code's process, where code can forge"
  assert said in capsys.readouterr().out


def test_an_entry_point_that_is_a_class(run, monkeypatch, capsys):
  _real(monkeypatch, CLASS)
  found = run(MADE)
  assert found["scores"]["truncated"]["pass@1"]["value"] == 1
  assert found["in_process"] == 0
  assert "in the code's process" not in capsys.readouterr().out


def test_an_entry_point_that_cannot_be_emptied_is_judged(run, monkeypatch):
  imported = {"prompt": "from operator import pos", "canonical_solution": " as f\n"}
  _real(monkeypatch, FORM | imported | {"test": "def check(f):\n  assert f(4) == 4\n"})
  assert run(MADE)["outcomes"]["truncated"] == {"passed": 1}


def test_a_missing_package_is_named(run, monkeypatch):
  _real(monkeypatch, NUMPY)
  with pytest.raises(InputError, match=r"'numpy'.* .--packages=numpy lets the code"):
    run("--references")
  assert run(MADE, "--packages=numpy")["outcomes"]["truncated"] == {"passed": 1}


def test_a_machine_that_judges_wrong_is_found_before_a_model_is_asked(evaluate):
  evaluate.made.judge = lambda: Trusting(hacks="passed")
  assert evaluate("run") == benchmark.FAILED
  assert evaluate.made.backend.asked == []
  assert evaluate("run", "--stage=generate") == 0  # judged elsewhere
  assert len(evaluate.made.backend.asked) == 5
