"""HumanEval and HumanEval+ and MBPP+: rows become problems; which files are taken."""

import gzip
import json

import pytest

from phi1_jax import InputError
from phi1_jax.problems import evalplus, humaneval

ADD = "  return a + b\n"
ROW = {"task_id": "HumanEval/1", "prompt": 'def add(a, b):\n  """ Add. """\n'}
ROW |= {"entry_point": "add", "canonical_solution": ADD, "base_input": [[1, 2]]}
ROW |= {"plus_input": [[0.5, 1], [[1], [2]]], "atol": 0}
MBPP = ROW | {"task_id": "Mbpp/2", "base_input": [[[1], [2]]], "plus_input": {}}
MBPP["prompt"] = '"""\nWrite a function.\nassert add((1,), (2,)) == (1, 2)\n"""\n'
MBPP["canonical_solution"] = f"def add(a, b):\n{ADD}"


def test_all_are_there():
  problems = humaneval.load()
  assert [p.id for p in problems] == [f"HumanEval/{i}" for i in range(164)]
  assert all(p.prompt.endswith("\n") for p in problems)
  assert not any(p.prompt.endswith("\n\n") for p in problems)
  first = problems[0]
  assert first.entry_point == "has_close_elements"
  assert first.solution == first.prompt + first.reference
  assert first.tests[-1] == "check(has_close_elements)"
  assert first.cpu_seconds == 3.0
  # Helpers that tests use are the tests' own: else a completion that defines `poly`
  # anew would decide what is right.
  helped = {p.id: p.tests[0] for p in problems if len(p.tests) == 3}
  assert set(helped) == {"HumanEval/32", "HumanEval/38", "HumanEval/50"}
  assert helped["HumanEval/32"].startswith("import math")
  assert "def poly(" in helped["HumanEval/32"]
  assert "def find_zero(" not in helped["HumanEval/32"]
  # An empty solution keeps everything but the body.
  scope = {}
  exec(problems[32].empty_solution(), scope)
  assert scope["find_zero"]([1, 2]) is None
  assert scope["poly"]([1, 2], 3) == 7


CUT = gzip.compress(b"x" * 1000)[:-9]


@pytest.mark.parametrize(
  ("content", "named"),
  [
    (gzip.compress(b"{}\n"), "got sha256 .*, expected 1d49078b"),
    (CUT, "cannot be read"),
  ],
  ids=["another", "cut_short"],  # a gzip file holds the time
)
def test_refuses_another_file(tmp_path, monkeypatch, content, named):
  path = tmp_path / "HumanEval.jsonl.gz"
  path.write_bytes(content)
  monkeypatch.setattr(humaneval, "_data_file", lambda: path)
  with pytest.raises(InputError, match=f"{path}: {named}"):
    humaneval.load()


def inputs(test):
  """The inputs in a test's source."""
  found = {}
  scope = {"__differential__": lambda *_, **fields: found.update(fields), "add": None}
  exec(test, scope)
  return eval(found["inputs"])


def test_a_row_of_evalplus():
  problem = evalplus.problem(ROW)
  assert (problem.prompt, problem.examples) == (ROW["prompt"], ())
  assert problem.solution == ROW["prompt"] + ROW["canonical_solution"]
  assert inputs(problem.tests[0]) == ROW["base_input"]
  assert inputs(problem.plus[0]) == ROW["plus_input"]
  problem = evalplus.problem(MBPP)
  assert problem.prompt == "Write a function."
  assert problem.examples == ("assert add((1,), (2,)) == (1, 2)",)
  assert inputs(problem.tests[0]) == [[(1,), (2,)]]
  assert inputs(problem.plus[0]) == []


@pytest.mark.parametrize(
  ("task", "row", "made"),
  [
    (63, [[[1], [2]]], [[(1,), (2,)]]),
    (75, [[[1], [2]], 3], [[(1,), (2,)], 3]),
    (106, [[1], [2]], [[1], (2,)]),
    (115, [[[1], []]], [[{1}, {}]]),
    (124, ["1", "2j"], [1.0, 2j]),
    (250, [[1], 2], [(1,), 2]),
    (252, ["1+2j"], [1 + 2j]),
    (259, [[[1], [2]]], [((1,), (2,))]),
    (278, [[1, [2]]], [(1, (2,))]),
    (307, [[1], 2, 3], [(1,), 2, 3]),
    (580, [[1, [2]]], [(1, (2,))]),
    (722, [{"a": [1]}, 2], [{"a": (1,)}, 2]),
    (3, [[1]], [[1]]),
  ],
)
def test_arguments_become_what_json_cannot_hold(task, row, made):
  problem = evalplus.problem(MBPP | {"task_id": f"Mbpp/{task}", "base_input": [row]})
  assert inputs(problem.tests[0]) == [made]


def test_one_name_is_special_in_its_own_benchmark_alone():
  for task, oracle in (("HumanEval/32", "root"), ("Mbpp/32", "")):
    row = MBPP | {"task_id": task, "entry_point": "find_zero", "plus_input": []}
    assert f"oracle={oracle!r}" in evalplus.problem(row).tests[0]


def test_only_the_published_file_is_taken(tmp_path):
  path = tmp_path / "evalplus" / "MbppPlus-v0.2.0.jsonl.gz"
  path.parent.mkdir()
  path.write_bytes(gzip.compress(b"{}"))
  with pytest.raises(InputError, match=r"got md5 .*, expected ee43eca"):
    evalplus.load("mbpp-plus-378", tmp_path)
  path.write_bytes(CUT)
  with pytest.raises(InputError, match="cannot be read"):
    evalplus.load("mbpp-plus-378", tmp_path)


def test_a_users_file_may_mix_both_formats(tmp_path):
  plain = {"task_id": "b", "test": "def check(f):\n  assert f(1, 2) == 3\n"}
  rows = [ROW | {"task_id": "a"}, {**ROW, **plain, "base_input": 0, "plus_input": 0}]
  del rows[1]["base_input"]
  path = tmp_path / "mine.jsonl.gz"
  path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
  found = {p.id: bool(p.plus) for p in humaneval.read(path)}
  assert found == {"a": True, "b": False}
  path.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[0]))
  with pytest.raises(InputError, match=r"line 2: .*a second a"):
    humaneval.read(path)
