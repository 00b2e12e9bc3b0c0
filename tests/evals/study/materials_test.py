"""Data that a study makes itself: test problems, sets of exercises, held-out texts."""

import dataclasses
import json
from pathlib import Path

import pytest

from evals import task_sets
from evals.study import materials, variants
from evals.study.config import StudyConfig
from phi1_jax import InputError
from phi1_jax.curation import folder as folders
from phi1_jax.curation.document import Document, Drop, Keep
from phi1_jax.grammar import teacher
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
CONFIG = StudyConfig(
  "recipe.gin",
  {"1M": "a.gin"},
  400,
  100,
  exercises=100,
  sections=5,
  few=50,
  leaks=2,
  leak_copies=3,
  taus=(0.95, 0.8),
)
DROPPED = {
  "copy": {"reason": "AST", "pairs": [{"reason": "AST"}, {"reason": "text"}]},
  "exact": {"reason": "AST", "pairs": [{"reason": "AST", "exact": True}]},
  "alike": {"reason": "AST", "pairs": [{"reason": "AST", "exact": False}]},
}


def _document(text):
  return Document(text[:8], text, "grammar", "MIT", "exercise", "g")


def test_the_nearest_docstrings_body_is_copied_with_the_arguments_renamed():
  rows = variants.copied([_document(OTHER), _document(TEXT)], [PROBLEM])
  assert rows == [{"task_id": "T/0", "completion": "    return 2 * count\n"}]
  namespace = {}
  exec("\n".join([PROBLEM.prompt + rows[0]["completion"], *PROBLEM.tests]), namespace)


def test_the_file_of_test_problems_is_read_as_problems_that_judge(tmp_path: Path):
  path = tmp_path / "ruler.jsonl"
  path.write_text(json.dumps(materials.row(PROBLEM)) + "\n")
  (read,) = humaneval.read(path)
  assert (read.id, read.solution) == (PROBLEM.id, PROBLEM.solution)
  exec("\n".join([read.solution, *read.tests]), {})
  with pytest.raises(AssertionError):
    exec("\n".join([read.prompt + "    return 3\n", *read.tests]), {})


def _stage(place, decisions):
  place.mkdir(parents=True)
  folders.begin(place, "made", {})
  folders.finish(place, "made", folders.write(place, decisions).stats(), {})


def _made(text, index):
  return Document(f"{index:03}", text, "grammar", "MIT", "exercise", f"g{index}")


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory):
  """Eighty exercises, of which tau 0.95 drops three and tau 0.8 forty; their sets."""
  folder = tmp_path_factory.mktemp("study")
  curate = folder / "curate"
  found = teacher.exercises(0, 0, 80)
  every = [_made(exercise.text, index) for index, exercise in enumerate(found)]
  _stage(curate / "exercises", [Keep(document) for document in every])
  dropped = [
    Drop(document, told["reason"], {"pairs": told["pairs"]})
    for document, told in zip(every, DROPPED.values(), strict=False)
  ]
  kept = [Keep(document) for document in every]
  _stage(curate / "pruned" / "pruned-0.95", [*dropped, *kept[3:]])
  alike = {"pairs": DROPPED["alike"]["pairs"]}
  strict = [Drop(document, "AST", alike) for document in every[:40]]
  _stage(curate / "pruned" / "pruned-0.8", [*strict, *kept[40:]])
  materials.exercise_sets(CONFIG, folder)
  return folder


def _texts(folder, name):
  return [document.text for document in folders.kept(folder / "curate" / name)]


def test_the_main_set_loses_copies_and_keeps_what_is_only_alike(folder):
  kept = [document.id for document in folders.kept(folder / "curate" / "main")]
  assert kept == [f"{index:03}" for index in range(2, 80)]
  stats = folders.read_stats(folder / "curate" / "main")
  assert stats["dropped"] == {"AST": 2}


def test_pruned_sets_are_what_the_study_of_tau_left(folder):
  assert len(_texts(folder, "pruned_0.95")) == 77
  assert _texts(folder, "pruned_0.8") == _texts(folder, "main")[-40:]


def test_damaged_sets_keep_every_docstring_of_the_main_one(folder):
  main = [variants.parts(text) for text in _texts(folder, "main")]
  for name, least, most in (("shuffled", 65, 78), ("wrong", 10, 36)):
    damaged = [variants.parts(text) for text in _texts(folder, name)]
    assert [each.docstring for each in damaged] == [each.docstring for each in main]
    changed = sum(a.body != b.body for a, b in zip(main, damaged, strict=True))
    assert least <= changed <= most, name


def test_small_sets_are_parts_of_the_main_one(folder):
  main = _texts(folder, "main")
  assert _texts(folder, "few") == main[:50]
  assert _texts(folder, "thinned") == main[:40]  # as many as pruned_0.8


def test_planted_problems_stand_beside_the_main_set(folder):
  problems = materials.leaked_problems(CONFIG)
  assert len({problem.id for problem in problems}) == 2
  texts, main = _texts(folder, "leaked"), _texts(folder, "main")
  assert len(texts) == len(main) + 2 * 3
  assert [texts.count(problem.solution) for problem in problems] == [3, 3]
  assert not {problem.solution for problem in problems} & set(main)


def test_a_function_is_seen_whatever_its_words(tmp_path, monkeypatch):
  alike = Problem("T/1", "f", PROBLEM.prompt, PROBLEM.reference, PROBLEM.solution, ())
  program = 'def g(m):\n  """Three times m."""\n  return 3 * m\n'
  new = dataclasses.replace(alike, id="T/2", solution=program)
  two = 'def h(a, b):\n  """The sum."""\n  return a + b\n'
  not_comparable = dataclasses.replace(alike, id="T/3", solution=two)
  tiers = materials.TIERS
  given = dict.fromkeys(tiers, (alike, new, not_comparable))
  monkeypatch.setattr(task_sets, "load", lambda name: given.get(name, ()))
  _stage(tmp_path / "curate" / "main", [Keep(_made(TEXT, 0)), Keep(_made(OTHER, 1))])
  materials.seen(CONFIG, tmp_path)
  found = json.loads((tmp_path / materials.SEEN).read_text())
  expected = {"seen": ["T/1"], "new": ["T/2"], "not comparable": ["T/3"]}
  assert found == {name: expected for name in tiers}


def test_the_pool_leaves_modules_to_hold_out(tmp_path, monkeypatch):
  code = [_made(f"x = {i}\n", i) for i in range(400)]
  test_problems_are_of = dataclasses.replace(_made("y\n", 400), source="more-itertools")
  given = [Keep(document) for document in (*code[::-1], test_problems_are_of)]
  monkeypatch.setattr(materials.read, "read", lambda _: given)
  config = dataclasses.replace(CONFIG, raw_documents=340)
  materials.pool(config, tmp_path)
  assert _texts(tmp_path, "pool") == [document.text for document in code[:340]]
  assert len(_texts(tmp_path, "code_sample")) == 100
  stats = folders.read_stats(tmp_path / "curate" / "pool")
  assert stats["dropped"] == {"not drawn": 60, "test problems are made of it": 1}
  with pytest.raises(InputError, match="raw_documents: got 341, expected at most 340"):
    materials.pool(dataclasses.replace(config, raw_documents=341), tmp_path)


def test_no_arm_reads_a_held_out_text(folder):
  curate = folder / "curate"
  sections = [teacher.section(0, index).text for index in range(6)]  # 5 comes again
  made = [
    dataclasses.replace(_made(t, i), kind="textbook") for i, t in enumerate(sections)
  ]
  _stage(curate / "sections", [Keep(document) for document in made])
  modules = [
    dataclasses.replace(_made(f"x = {i}\n", i), kind="code") for i in range(70)
  ]
  rest = [Drop(module, "not drawn") for module in reversed(modules[5:])]
  ruled_out = Drop(_made("y = 0\n", 99), "test problems are made of it")
  _stage(curate / "pool", [*(Keep(m) for m in modules[:5]), *rest, ruled_out])
  materials.held_out(CONFIG, folder)
  rows = [json.loads(line) for line in (folder / materials.TEXTS).open()]
  texts = {
    kind: [row["text"] for row in rows if row["kind"] == kind]
    for kind in ("raw code", "textbook", "exercise")
  }
  assert texts["raw code"] == [f"x = {i}\n" for i in range(5, 65)]
  assert (len(texts["textbook"]), len(texts["exercise"])) == (60, 180)
  assert not set(texts["textbook"]) & set(sections)
  names = [
    [text.split("def ")[1].split("(")[0] for text in each]
    for each in (texts["exercise"], _texts(folder, "exercises"))
  ]
  assert not set(names[0]) & set(names[1])
