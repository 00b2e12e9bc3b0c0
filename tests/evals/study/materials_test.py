"""What a study makes itself: copies, the ruler's file, and the control that copies."""

import json
from pathlib import Path

import pytest

from evals.study import ruler
from evals.study.nearest import completions
from phi1_jax.curation.document import Document
from phi1_jax.problems import humaneval
from phi1_jax.problems.problem import Problem

TEXT = '''def double(n):
    """Return twice the number n."""
    return 2 * n
'''
OTHER = '''def shout(word):
    """Return the word in upper case."""
    return word.upper()
'''
PROBLEM = Problem(
  "T/0",
  "twice",
  'def twice(count):\n    """Return twice the number count."""\n',
  "    return count + count\n",
  'def twice(count):\n    """Return twice the number count."""\n'
  "    return count + count\n",
  ("assert twice(2) == 4\n", "assert twice(-1) == -2\n"),
)


def _document(text):
  return Document(text[:8], text, "grammar", "MIT", "exercise", "g")


def test_the_nearest_docstrings_body_is_copied_with_the_arguments_renamed():
  rows = completions([_document(OTHER), _document(TEXT)], [PROBLEM])
  assert rows == [{"task_id": "T/0", "completion": "    return 2 * count\n"}]
  namespace = {}
  exec("\n".join([PROBLEM.prompt + rows[0]["completion"], *PROBLEM.tests]), namespace)


def test_the_rulers_file_is_read_as_problems_that_judge(tmp_path: Path):
  path = tmp_path / "ruler.jsonl"
  path.write_text(json.dumps(ruler.row(PROBLEM)) + "\n")
  (read,) = humaneval.read(path)
  assert (read.id, read.solution) == (PROBLEM.id, PROBLEM.solution)
  exec("\n".join([read.solution, *read.tests]), {})
  with pytest.raises(AssertionError):
    exec("\n".join([read.prompt + "    return 3\n", *read.tests]), {})


@pytest.mark.parametrize("menu", ["numbers", "first", "all"])
def test_the_tiers_of_a_menu_go_from_near_to_far(menu):
  tiers = ruler.task_sets(menu)
  assert len(tiers) == 5
  assert tiers[0].endswith("unseen-triples-100")
  assert tiers[-1] == "exercises-handwritten-100"
  assert all((menu in name) == (menu != "all") for name in tiers[:-1])
