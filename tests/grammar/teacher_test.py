"""Exercises and sections: pure, right, diverse, and nothing held out in training.

`python tests/grammar/teacher_test.py` prints the digest to put into DIGEST after a
change that is meant to change exercises; raise grammar.VERSION with it.
"""

import ast
import collections
import contextlib
import hashlib
import io
import itertools
import re

import pytest

from phi1_jax import InputError
from phi1_jax.grammar import reserve, section, solve, teacher
from phi1_jax.grammar.exercise import GENERIC

DIGEST = "bf7073d5d399be4a68dfe98a1ad696b81a042293b9278704fa6c3ce92e63663d"
COUNT = 1500  # of the tier "train"
HELD_OUT = 80  # of each other tier
SECTIONS = 80


def digest(count: int = 200) -> str:
  """Of everything in the first exercises and sections."""
  state = hashlib.sha256()
  for tier in teacher.TIERS:
    for exercise in teacher.exercises(0, 0, count if tier == "train" else 10, tier):
      state.update(repr((exercise.text, exercise.tests, exercise.frame)).encode())
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


def test_the_same_arguments_give_the_same_exercise_in_every_process():
  """Another process, whose strings had other hashes, has found DIGEST."""
  assert digest() == DIGEST


def test_every_solution_passes_its_tests_and_leaves_arguments_alone(every):
  for exercise in every:
    space = space_of(exercise)
    for test in exercise.tests:
      exec(test, space)
      call = ast.parse(test).body[0].test.left
      arguments = [ast.literal_eval(argument) for argument in call.args]
      before = repr(arguments)
      space[exercise.name](*arguments)
      assert repr(arguments) == before, exercise.text


def test_no_constant_answer_and_no_argument_passes_the_tests(every):
  for exercise in every:
    asserts = [ast.parse(test).body[0].test for test in exercise.tests]
    values = [ast.unparse(compare.comparators[0]) for compare in asserts]
    assert len(set(exercise.tests)) == len(values) in (5, 6)
    most = collections.Counter(values).most_common(1)[0][1]
    assert most <= len(values) - 1, exercise.text
    for position in range(3):
      wrong = 0
      for compare, value in zip(asserts, values, strict=True):
        given = [ast.unparse(argument) for argument in compare.left.args]
        wrong += position >= len(given) or given[position] != value
      assert wrong >= 2, exercise.text


def test_prompt_and_body_have_their_form(every):
  for exercise in every:
    assert exercise.text == exercise.prompt + exercise.body
    assert exercise.prompt.endswith('"""\n')
    assert re.fullmatch(r"    (?s:.*)[^\n]\n", exercise.body)
    assert "$" not in exercise.text
    assert all(line == line.rstrip() for line in exercise.text.split("\n"))
    tree = ast.parse(exercise.text)
    function = tree.body[-1]
    assert function.name == exercise.name
    assert ast.get_docstring(function)
    assert function.body[0].end_lineno == exercise.prompt.count("\n")
    # Hints are imported only where they are used.
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {alias.name for node in imports for alias in node.names}
    assert imported <= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def test_examples_in_docstrings_are_true(every):
  seen = 0
  for exercise in every:
    space, lines = space_of(exercise), exercise.prompt.split("\n")
    for line, answer in itertools.pairwise(lines):
      if line.strip().startswith(">>> "):
        answer = ast.literal_eval(answer.strip().replace("set()", "None") or "None")
        assert (eval(line.strip()[4:], space) or None) == (answer or None)
        seen += 1
  assert seen > 150


def test_training_holds_nothing_that_is_reserved(train):
  for exercise in train:
    assert reserve.kind(exercise.composition) == "train"
    if exercise.name not in GENERIC:
      assert not reserve.name_is_reserved(exercise.name)
    assert not any(map(reserve.wording_is_reserved, exercise.frame.split()))
    assert len(exercise.composition[1:]) <= reserve.LONGEST_IN_TRAINING


def test_each_tier_is_held_out_in_its_own_way(train, held_out):
  compositions = {exercise.composition for exercise in train}
  names = {exercise.name for exercise in train}
  for tier, exercises in held_out.items():
    for exercise in exercises:
      assert exercise.composition not in compositions
      assert exercise.name not in names
      assert reserve.name_is_reserved(exercise.name)
      framed = any(map(reserve.wording_is_reserved, exercise.frame.split()))
      assert framed == (tier == "reserved_frames")
      kind = reserve.kind(exercise.composition)
      assert kind == ("unseen_triples" if tier == "reserved_frames" else tier)
      assert (len(exercise.composition) == 5) == (tier == "longer")
      if kind == "unseen_triples":
        pairs = itertools.combinations(exercise.composition[1:], 2)
        assert not any(reserve.pair_is_reserved(*pair) for pair in pairs)
  # No unseen triple is trained on for another source.
  triples = {exercise.composition[1:] for exercise in held_out["unseen_triples"]}
  assert len(triples) > 20
  assert not triples & {exercise.composition[1:] for exercise in train}


def test_a_pair_is_reserved_in_either_order_and_the_source_is_no_part():
  parts = [f"map:{n}" for n in range(60)]
  pairs = list(itertools.combinations(parts, 2))
  reserved = [pair for pair in pairs if reserve.pair_is_reserved(*pair)]
  assert len(reserved) / len(pairs) == pytest.approx(1 / reserve.PAIRS, rel=0.2)
  one, other = reserved[0]
  assert reserve.kind(("ints", other, "sum", one)) == "unseen_pairs"
  assert reserve.kind(("ints", one, other, "sum", "more")) == "unused"
  assert reserve.kind(("ints", one, "sum")) == reserve.kind(("words", one, "sum"))


def test_sections_have_their_form_and_their_code_prints_what_its_comments_say():
  sections, comments = [teacher.section(2, index) for index in range(SECTIONS)], 0
  for each in sections:
    for block in each.code:
      out = io.StringIO()
      with contextlib.redirect_stdout(out):
        exec(block, {})
      said = re.findall(r"^print\(.*\)  # (.*)$", block, flags=re.M)
      assert said == out.getvalue().splitlines()
      comments += len(said)
    blocks = re.findall(r"```python\n(.*?)```", each.text, flags=re.S)
    assert tuple(blocks) == each.code
    examples = re.findall(r"\*\*Example (\d+)\.\*\*", each.text)
    assert examples == [str(n + 1) for n in range(len(each.code))]
    assert re.fullmatch(r"## .*\n\n(?s:.*)[^\n]\n", each.text)
    prose = re.sub(r"```python\n.*?```|`[^`]*`", "CODE", each.text, flags=re.S)
    assert len(prose.split()) >= 40
    assert not re.search(r"[{}|]|  |\.\.", prose), prose  # a place that is not filled
  assert comments >= 3 * SECTIONS
  assert len({each.text for each in sections}) == SECTIONS
  assert len({each.topic for each in sections}) >= 10
  assert len({each.audience for each in sections}) >= 8
  assert len({each.title for each in sections}) > SECTIONS / 2
  openings = {each.text.split("\n\n")[1] for each in sections}
  assert len(openings) > 0.8 * SECTIONS


def test_training_is_diverse(train):
  assert len({exercise.text for exercise in train}) > 0.99 * len(train)
  families = collections.Counter(exercise.family for exercise in train)
  assert len(families) >= 300
  assert families.most_common(1)[0][1] < 0.06 * len(train)
  # A model that has seen few names of arguments guesses them, and does not copy.
  trees = [ast.walk(ast.parse(exercise.text)) for exercise in train]
  named = [node.arg for tree in trees for node in tree if isinstance(node, ast.arg)]
  names = collections.Counter(named)
  assert len(names) > 250
  assert names.most_common(1)[0][1] < 0.1 * len(train)
  plain = [teacher.exercise(0, n, menu="plain") for n in range(20)]
  assert {e.composition[0] for e in plain} == {"task"}
  for tier, menu in (("hard", "all"), ("train", "first")):
    with pytest.raises(InputError, match=r"got .*'(hard|first)', expected one of"):
      teacher.exercise(0, 0, tier, menu)


def test_asserts_tell_wrong_functions_and_what_nothing_tells_is_refused():
  def solved(*functions):
    return solve.solved(functions, [(n,) for n in range(-5, 25)], (), "key")

  calls = solved(lambda n: n > 3 and n % 2 == 0, lambda n: n > 3, lambda n: n % 2 == 0)
  for wrong in (lambda n: n > 3, lambda n: n % 2 == 0, lambda n: True, lambda n: False):
    answers = [repr(wrong(int(call.arguments))) for call in calls[: solve.TESTS]]
    assert answers != [call.answer for call in calls[: solve.TESTS]]
  assert solved(lambda n: n % 2 == 0 and n % 4 == 0, lambda n: n % 4 == 0) is None
  assert solved(lambda n: 1) is None
  assert solved(lambda n: n) is None
  assert solve.literal([set(), {2, 1}]) == "[set(), {1, 2}]"  # sets in order
  assert solve.literal({"k": {"y", "x"}}) == "{'k': {'x', 'y'}}"
  assert section.printed("", ["1 + 1", "'a'"]) == "print(1 + 1)  # 2\nprint('a')  # a\n"
  for value in ("{1, 2}", "''", r"'a\nb'"):
    assert section.printed("", [value]) is None


if __name__ == "__main__":
  print(digest())
