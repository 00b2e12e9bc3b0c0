"""Data that a study makes itself: test problems, sets of exercises, held-out texts."""

import dataclasses
import json

import pytest

from evals import task_sets
from evals.study import materials
from evals.study.config import StudyConfig
from phi1_jax import InputError
from phi1_jax.curation import folder as folders
from phi1_jax.curation.document import Document, Drop, Keep
from phi1_jax.data.documents import Document as Text
from phi1_jax.data.documents import held_out
from phi1_jax.grammar import teacher
from phi1_jax.problems import humaneval
from phi1_jax.problems.problem import Problem

TEXT = 'def double(n):\n    """Return twice the number n."""\n    return 2 * n\n'
OTHER = (
  'def shout(word):\n    """Return it in upper case."""\n    return word.upper()\n'
)
STUB = 'def twice(count):\n    """Return twice the number count."""\n'
BODY = "    return count + count\n"
TESTS = ("assert twice(2) == 4\n", "assert twice(-1) == -2\n")
PROBLEM = Problem("T/0", "twice", STUB, BODY, STUB + BODY, TESTS)
CONFIG = StudyConfig(
  *("recipe.gin", {"1M": "a.gin"}, 400, 100),
  **{"exercises": 100, "sections": 5, "few": 50, "leaks": 2, "leak_copies": 3},
  taus=(0.95, 0.8),
)
# Evidence against the first three exercises; the last is no copy.
PAIRS = (
  [{"reason": "AST"}, {"reason": "text"}],
  [{"reason": "AST", "exact": True}],
  [{"reason": "AST", "exact": False}],
)


def _document(text, index=0, kind="exercise"):
  return Document(f"{index:03}", text, "grammar", "MIT", kind, f"g{index}")


def _stage(place, decisions):
  place.mkdir(parents=True)
  folders.begin(place, "made", {})
  folders.finish(place, "made", folders.write(place, decisions).stats(), {})


def test_problems_are_copied_and_judge(tmp_path):
  # The nearest docstring's body, with the arguments renamed.
  rows = materials.copied([_document(OTHER), _document(TEXT)], [PROBLEM])
  assert rows == [{"task_id": "T/0", "completion": "    return 2 * count\n"}]
  exec("\n".join([STUB + rows[0]["completion"], *TESTS]), {})
  path = tmp_path / "ruler.jsonl"
  path.write_text(json.dumps(materials.row(PROBLEM)) + "\n")
  (read,) = humaneval.read(path)
  assert (read.id, read.solution) == (PROBLEM.id, PROBLEM.solution)
  exec("\n".join([read.solution, *read.tests]), {})
  with pytest.raises(AssertionError):
    exec("\n".join([read.prompt + "    return 3\n", *read.tests]), {})


@pytest.fixture(name="folder", scope="module")
def fixture_folder(tmp_path_factory):
  """Eighty exercises, of which tau 0.95 drops three and tau 0.8 forty; their sets."""
  folder = tmp_path_factory.mktemp("study")
  curate = folder / "curate"
  found = teacher.exercises(0, 0, 80)
  every = [_document(exercise.text, index) for index, exercise in enumerate(found)]
  kept = [Keep(document) for document in every]
  _stage(curate / "exercises", kept)
  pairs = zip(every, PAIRS, strict=False)
  dropped = [Drop(document, "AST", {"pairs": found}) for document, found in pairs]
  _stage(curate / "pruned" / "pruned-0.95", [*dropped, *kept[3:]])
  strict = [Drop(document, "AST", {"pairs": PAIRS[2]}) for document in every[:40]]
  _stage(curate / "pruned" / "pruned-0.8", [*strict, *kept[40:]])
  materials.exercise_sets(CONFIG, folder)
  return folder


def _texts(folder, name):
  return [document.text for document in folders.kept(folder / "curate" / name)]


def test_sets_of_exercises(folder):
  """The main set loses copies and keeps exercises that are only alike."""
  kept = [document.id for document in folders.kept(folder / "curate" / "main")]
  assert kept == [f"{index:03}" for index in range(2, 80)]
  stats = folders.read_stats(folder / "curate" / "main")
  assert stats["dropped"] == {"AST": 2}
  main = _texts(folder, "main")
  assert len(_texts(folder, "pruned/pruned-0.95")) == 77
  assert _texts(folder, "pruned/pruned-0.8") == main[-40:]
  assert _texts(folder, "few") == main[:50]
  assert _texts(folder, "thinned") == main[:40]  # as many as pruned_0.8
  for name, least, most in (("shuffled", 65, 78), ("wrong", 10, 36)):
    pairs = [
      tuple(map(materials.parts, texts))
      for texts in zip(main, _texts(folder, name), strict=True)
    ]
    assert all(a.docstring == b.docstring for a, b in pairs)
    assert least <= sum(a.body != b.body for a, b in pairs) <= most, name
  # Planted problems stand beside the main set.
  problems = materials.leaked_problems(CONFIG)
  assert len({problem.id for problem in problems}) == 2
  leaked = _texts(folder, "leaked")
  assert len(leaked) == len(main) + 2 * 3
  assert [leaked.count(problem.solution) for problem in problems] == [3, 3]
  assert not {problem.solution for problem in problems} & set(main)


def test_a_function_is_seen_whatever_its_words(tmp_path, monkeypatch):
  programs = {
    "T/1": PROBLEM.solution,
    "T/2": 'def g(m):\n  """Three times m."""\n  return 3 * m\n',
    "T/3": 'def h(a, b):\n  """The sum."""\n  return a + b\n',
  }
  given = [
    dataclasses.replace(PROBLEM, id=name, entry_point="f", solution=text, tests=())
    for name, text in programs.items()
  ]
  tiers = materials.TIERS
  monkeypatch.setattr(task_sets, "load", lambda name: given if name in tiers else ())
  documents = [_document(TEXT), _document(OTHER, 1)]
  _stage(tmp_path / "curate" / "main", map(Keep, documents))
  materials.seen(CONFIG, tmp_path)
  found = json.loads((tmp_path / materials.SEEN).read_text())
  expected = {"seen": ["T/1"], "new": ["T/2"], "not comparable": ["T/3"]}
  assert found == {name: expected for name in tiers}


def test_the_pool_leaves_modules_to_hold_out(tmp_path, monkeypatch):
  code = [_document(f"x = {i}\n", i) for i in range(400)]
  tests_are_of = dataclasses.replace(_document("y\n", 400), source="more-itertools")
  given = [Keep(document) for document in (*code[::-1], tests_are_of)]
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
  made = (_document(t, i, "textbook") for i, t in enumerate(sections))
  _stage(curate / "sections", map(Keep, made))
  modules = [_document(f"x = {i}\n", i, "code") for i in range(70)]
  rest = [Drop(module, "not drawn") for module in reversed(modules[5:])]
  ruled_out = Drop(_document("y = 0\n", 99), "test problems are made of it")
  _stage(curate / "pool", [*map(Keep, modules[:5]), *rest, ruled_out])
  materials.held_out(CONFIG, folder)
  texts = {"raw code": [], "textbook": [], "exercise": []}
  for row in map(json.loads, (folder / materials.TEXTS).open()):
    texts[row["kind"]].append(row["text"])
  assert texts["raw code"] == [f"x = {i}\n" for i in range(5, 65)]
  assert (len(texts["textbook"]), len(texts["exercise"])) == (60, 180)
  assert not set(texts["textbook"]) & set(sections)
  names, read = (
    {text.split("def ")[1].split("(")[0] for text in each}
    for each in (texts["exercise"], _texts(folder, "exercises"))
  )
  assert not names & read


def test_parts_and_names():
  text = 'def f(x):\n    """Only."""\n'
  for bad in ("x = 1\n", "def f(x):\n    return x\n", text, "def"):
    assert materials.parts(bad) is None
  assert materials.renamed("a + b + ab", ["a", "b"], ["b", "a"]) == "b + a + ab"
  assert materials.renamed("x.y", [], []) == "x.y"


def test_no_planted_problem_is_held_out():
  planted = materials.leaked([], [PROBLEM], 4)
  assert len(planted) == 4
  assert not any(held_out(Text(d.text, d.repository), 0.02) for d in planted)
