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


def test_helpers_stand_before_the_entry_point_of_the_prompt():
  """It may be defined twice, and the solution may assign its name again."""
  row = {"task_id": "a/0", "entry_point": "f"}
  row |= {"prompt": "f = None\n\ndef g(x):\n  return x\n\ndef f(x):\n"}
  row |= {"canonical_solution": "  return g(x)\n\nf = f\n"}
  row |= {"test": "def check(candidate):\n  assert candidate(1) == g(1)\n"}
  helpers, _, _ = humaneval.problem(row).tests
  assert "def g(x)" in helpers
  assert "def f(x)" not in helpers


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


CHECK = "import asyncio\ndef check(candidate):\n  assert "
TESTS = f"{CHECK}candidate(2) == 4\n"
ASYNC = f"{CHECK}asyncio.run(candidate(2)) == 4\n"
OF_CLASS = f"{CHECK}candidate(2).twice() == 4\n"
HELPED = f"{CHECK}candidate(2) == add(2, 2)\n"
ADDS = "import functools\n\ndef add(a, b):\n  return a + b\n\n"
CACHED = "@functools.cache\ndef f(a):\n"
DOUBLE = "  return 2 * a\n"
# Prompt, canonical_solution and test of an entry point `f`, in every form.
FORMS = {
  "def": ("def f(a):\n", DOUBLE, TESTS),
  "decorated": (f"import functools\n{CACHED}", DOUBLE, TESTS),
  "async": ("async def f(a):\n", DOUBLE, ASYNC),
  "in_an_if": ("if True:\n  def f(a):\n", f"  {DOUBLE}", TESTS),
  "in_a_try": ("try:\n  x\nexcept NameError:\n  def f(a):\n", f"  {DOUBLE}", TESTS),
  "lambda": ("f = lambda a: ", "2 * a\n", TESTS),
  "wrapped": ("def f(a):\n", f"{DOUBLE}f = __import__('functools').cache(f)\n", TESTS),
  "imported": (
    "# double\n",
    "from operator import pos as f\nf = lambda a: 2 * a\n",
    TESTS,
  ),
  "class": (
    "class f:\n  def __init__(self, a):\n",
    "    self.a = a\n  def twice(self):\n    return 2 * self.a\n",
    OF_CLASS,
  ),
  "helped": (f"{ADDS}def f(a):\n", DOUBLE, HELPED),
  "helped_decorated": (f"{ADDS}{CACHED}", DOUBLE, HELPED),
  "helped_lambda": (f"{ADDS}f = lambda a: ", "2 * a\n", HELPED),
}


def _row(form):
  prompt, solution, test = form
  row = {"task_id": "a", "prompt": prompt, "entry_point": "f", "test": test}
  return row | {"canonical_solution": solution}


def _passes(code, problem):
  scope = {}
  try:
    for source in (code, *problem.tests):
      exec(source, scope)
  except Exception:
    return False
  return True


@pytest.mark.parametrize("name", FORMS)
def test_an_entry_point_may_have_any_form(tmp_path, name):
  path = tmp_path / "mine.jsonl"
  path.write_text(json.dumps(_row(FORMS[name])))
  (problem,) = humaneval.read(path)
  assert _passes(problem.solution, problem)
  empty = problem.empty_solution()
  assert empty is not None
  assert "2 *" not in empty
  assert not _passes(empty, problem)
  helpers = problem.tests[:-2]
  assert helpers == ((ADDS.strip() + "\n",) if "helped" in name else ())


@pytest.mark.parametrize("solution", ["import neg as f", "f: object = len", "f, g = 1"])
def test_no_empty_solution_of_what_is_not_defined(solution):
  form = ("", f"{solution}\n", TESTS)
  assert humaneval.problem(_row(form)).empty_solution() is None


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_and_arrays_with_and_without_a_byte_order_mark(tmp_path, array, mark):
  rows = [ROW, _row(FORMS["def"]) | {"in_process": True}]
  text = json.dumps(rows, indent=1) if array else "\n".join(map(json.dumps, rows))
  path = tmp_path / "mine.json"
  path.write_text(mark + text, encoding="utf-8")
  found = humaneval.read(path)
  assert [(p.id, p.in_process) for p in found] == [("HumanEval/1", False), ("a", True)]


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"test": "def check(f:\n"}, r"line 1: .*\(test: .* line 1\)"),
    ({"prompt": "def f(a:\n"}, r"line 1: .*\(prompt with canonical_solution: "),
    ({"canonical_solution": "  return (\n"}, "prompt with canonical_solution: "),
    ({"test": "\0"}, r"\(test: "),
    ({"in_process": "yes"}, "in_process is 'yes', not true or false"),
    ({"in_process": 1}, "in_process is 1, not true or false"),
    (ROW | {"canonical_solution": "  return (\n"}, "prompt with canonical_solution"),
  ],
)
def test_a_wrong_row_is_refused_by_its_field(tmp_path, change, named):
  path = tmp_path / "mine.jsonl"
  path.write_text(json.dumps(_row(FORMS["def"]) | change))
  with pytest.raises(InputError, match=named):
    humaneval.read(path)


@pytest.mark.parametrize(
  ("content", "named"),
  [
    ('{"task_id": "\xe4"}'.encode("latin-1"), "expected JSON lines .* in UTF-8"),
    (b"[3]", "item 1: got '3' .int, not an object"),
    (b'[{"a": 1}', "line 1: .*Expecting ',' delimiter"),
    (b"[]", "holds no problem"),
  ],
)
def test_a_file_in_another_form_is_refused(tmp_path, content, named):
  path = tmp_path / "mine.jsonl"
  path.write_bytes(content)
  with pytest.raises(InputError, match=named):
    humaneval.read(path)
