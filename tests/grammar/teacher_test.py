"""The teacher's promises: pure, right, diverse, and nothing of a held-out tier shown.

`python tests/grammar/teacher_test.py` prints the digest to put into DIGEST after a
change that is meant to change exercises; raise grammar.VERSION with it.
"""

import ast
import collections
import hashlib
import itertools
import os
import subprocess
import sys

import pytest

from phi1_jax import InputError
from phi1_jax.grammar import reserve, teacher

DIGEST = "3397eb147b48b3e7301024b0e5ae88929488ae6e969c859f274df3e75c9c2dbf"
COUNT = 1000  # of the tier "train", for what is said of many
HELD_OUT = 100  # of each other tier


def digest(count: int = 200) -> str:
  """Of everything in the first exercises and sections."""
  state = hashlib.sha256()
  for tier in teacher.TIERS:
    for exercise in teacher.exercises(0, 0, count if tier == "train" else 10, tier):
      state.update(repr(exercise).encode())
  for index in range(10):
    state.update(repr(teacher.section(0, index)).encode())
  return state.hexdigest()


@pytest.fixture(scope="module")
def train():
  return list(teacher.exercises(3, 0, COUNT))


@pytest.fixture(scope="module")
def held_out():
  return {
    tier: list(teacher.exercises(3, 0, HELD_OUT, tier)) for tier in teacher.TIERS[1:]
  }


@pytest.fixture(scope="module")
def every(train, held_out):
  return [*train, *itertools.chain(*held_out.values())]


def space_of(exercise):
  space = {}
  exec(exercise.text, space)
  return space


def test_the_same_arguments_give_the_same_exercise_in_another_process():
  program = "import sys; sys.path.insert(0, '.'); "
  program += "from tests.grammar import teacher_test; print(teacher_test.digest(800))"
  here = digest(800)
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  for hash_seed in ("1", "4242"):
    done = subprocess.run(
      [sys.executable, "-c", program],
      cwd=root,
      env={**os.environ, "PYTHONHASHSEED": hash_seed},
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stdout.strip() == here


def test_exercises_are_those_of_this_version():
  message = "exercises have changed; if that is meant: python " + "/".join(
    os.path.abspath(__file__).split(os.sep)[-3:]
  )
  assert digest() == DIGEST, message


def test_a_range_is_its_single_exercises():
  assert list(teacher.exercises(5, 7, 10)) == [
    teacher.exercise(5, index) for index in (7, 8, 9)
  ]


def test_seeds_and_indices_give_different_exercises():
  texts = {teacher.exercise(s, i).text for s in range(5) for i in range(20)}
  assert len(texts) == 100


def test_an_unknown_tier_is_refused():
  with pytest.raises(InputError, match="tier is 'hard', expected one of"):
    teacher.exercise(0, 0, "hard")


def test_every_solution_passes_its_tests(every):
  for exercise in every:
    space = space_of(exercise)
    for test in exercise.tests:
      exec(test, space)


def test_solutions_leave_their_arguments_alone(every):
  for exercise in every:
    space = space_of(exercise)
    for test in exercise.tests:
      call = ast.parse(test).body[0].test.left
      arguments = [ast.literal_eval(a) if literal(a) else None for a in call.args]
      if None in arguments:
        continue
      before = repr(arguments)
      space[exercise.name](*arguments)
      assert repr(arguments) == before, exercise.text


def literal(node):
  try:
    ast.literal_eval(node)
  except ValueError:
    return False
  return True


def expected(exercise):
  values = []
  for test in exercise.tests:
    compare = ast.parse(test).body[0].test
    values.append(ast.unparse(compare.comparators[0]))
  return values


def test_five_or_six_tests_that_no_constant_answer_passes(every):
  for exercise in every:
    values = expected(exercise)
    assert len(values) in (5, 6)
    assert len(set(exercise.tests)) == len(values)
    if set(values) <= {"True", "False"}:
      assert min(values.count("True"), values.count("False")) >= 2
    else:
      assert len(set(values)) >= 3, exercise.text


def test_giving_an_argument_back_does_not_pass(every):
  for exercise in every:
    for position in range(3):
      wrong = 0
      for test in exercise.tests:
        compare = ast.parse(test).body[0].test
        given = [ast.unparse(a) for a in compare.left.args]
        if position >= len(given) or given[position] != ast.unparse(
          compare.comparators[0]
        ):
          wrong += 1
      assert wrong >= 2, exercise.text


def test_prompt_and_body_have_their_form(every):
  for exercise in every:
    assert exercise.text == exercise.prompt + exercise.body
    assert exercise.prompt.endswith('"""\n')
    assert exercise.body.startswith("    ")
    assert exercise.body.endswith("\n")
    assert not exercise.body.endswith("\n\n")
    assert "\t" not in exercise.text
    assert all(line == line.rstrip() for line in exercise.text.split("\n"))
    tree = ast.parse(exercise.text)
    function = tree.body[-1]
    assert isinstance(function, ast.FunctionDef)
    assert function.name == exercise.name
    assert len(function.body) >= 2
    assert ast.get_docstring(function)
    assert function.body[0].lineno == function.lineno + 1
    assert function.body[0].end_lineno == exercise.prompt.count("\n")
    assert len(exercise.composition) >= 2
    assert exercise.family
    assert exercise.frame


def test_doctests_in_docstrings_are_true(every):
  seen = 0
  for exercise in every:
    space, lines = space_of(exercise), exercise.prompt.split("\n")
    for line, answer in itertools.pairwise(lines):
      if line.strip().startswith(">>> "):
        assert repr(eval(line.strip()[4:], space)) == answer.strip(), exercise.text
        seen += 1
  assert seen > 80


def test_hints_are_imported_only_where_used(every):
  styles = collections.Counter()
  for exercise in every:
    tree = ast.parse(exercise.text)
    imported = {
      alias.name
      for node in tree.body
      if isinstance(node, ast.Import | ast.ImportFrom)
      for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported <= used, exercise.text
    function = tree.body[-1]
    assert isinstance(function, ast.FunctionDef)
    styles["typing" if "typing" in exercise.text else bool(function.returns)] += 1
  assert min(styles[kind] for kind in ("typing", True, False)) > len(every) * 0.1


def test_training_holds_nothing_that_is_reserved(train):
  for exercise in train:
    assert reserve.kind(exercise.composition) == "train"
    assert not reserve.name_is_reserved(exercise.name)
    assert not reserve.frame_is_reserved(exercise.frame)
    parts = exercise.composition[1:]
    assert len(parts) <= reserve.LONGEST_IN_TRAINING
    for pair in itertools.combinations(parts, 2):
      assert not reserve.pair_is_reserved(*pair)


def test_held_out_tiers_share_no_composition_and_no_name_with_training(train, held_out):
  compositions = {exercise.composition for exercise in train}
  names = {exercise.name for exercise in train}
  for exercises in held_out.values():
    assert not compositions & {exercise.composition for exercise in exercises}
    assert not names & {exercise.name for exercise in exercises}


def test_each_tier_is_held_out_in_its_own_way(held_out):
  for tier, exercises in held_out.items():
    for exercise in exercises:
      assert reserve.name_is_reserved(exercise.name)
      framed = reserve.frame_is_reserved(exercise.frame)
      assert framed == (tier == "reserved_frames")
      kind = reserve.kind(exercise.composition)
      assert kind == ("unseen_triples" if tier == "reserved_frames" else tier)


def test_pairs_of_unseen_triples_are_free_and_longer_ones_have_more_parts(held_out):
  for exercise in held_out["unseen_triples"]:
    parts = exercise.composition[1:]
    assert len(parts) == 3
    assert not any(
      reserve.pair_is_reserved(*pair) for pair in itertools.combinations(parts, 2)
    )
  assert all(len(e.composition) == 5 for e in held_out["longer"])


def test_families_are_many_and_none_dominates(train, held_out):
  families = collections.Counter(exercise.family for exercise in train)
  assert len(families) >= 30
  assert max(families.values()) < 0.3 * len(train)
  for tier in ("unseen_triples", "unseen_pairs", "reserved_frames"):
    assert len({exercise.family for exercise in held_out[tier]}) >= 15


def test_training_is_diverse(train):
  assert len({exercise.text for exercise in train}) == len(train)
  assert len({exercise.composition for exercise in train}) > 0.8 * len(train)
  assert len({exercise.name for exercise in train}) > 0.95 * len(train)
  assert len({exercise.frame for exercise in train}) >= 80
  arguments = collections.Counter()
  styles = collections.Counter()
  for exercise in train:
    function = ast.parse(exercise.text).body[-1]
    assert isinstance(function, ast.FunctionDef)
    arguments.update(a.arg for a in function.args.args)
    styles.update(type(node).__name__ for node in ast.walk(function))
  assert len(arguments) >= 200
  assert styles["For"] > 250
  assert styles["ListComp"] + styles["GeneratorExp"] > 250
  assert styles["While"] > 20


def test_most_exercises_fit_a_small_window(train):
  lengths = sorted(len(exercise.text) for exercise in train)
  assert sum(length <= 600 for length in lengths) > 0.9 * len(lengths)
  assert lengths[-1] <= 1100


if __name__ == "__main__":
  print(digest())
