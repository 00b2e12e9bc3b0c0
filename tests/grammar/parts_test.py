"""Every row of the tables of parts and aggregates: its code, its words, its names."""

import inspect
import random
import re

import pytest

from phi1_jax.grammar import parts, pipeline_code, plan, sources
from phi1_jax.grammar.aggregate import BoundAggregate
from phi1_jax.grammar.draws import generator
from phi1_jax.grammar.parts import Bound, opposite
from phi1_jax.grammar.plan import Plan

VALUES = {
  "int": [-37, -10, -1, 0, 1, 2, 5, 9, 10, 25, 32, 81, 100],
  "word": [
    "level",
    "Banana",
    "apple",
    "TEA",
    "xylophone",
    "oak",
    "seed",
    "even",
    "storm",
    "pink",
  ],
  "char": [*"aEzB7 !eiorstnlcdmpbgk"],
}
OUT = {"int": int, "word": str, "char": str}
FILTERS = [(kind, row) for kind, rows in plan.FILTERS.items() for row in rows]
MAPS = [(kind, row) for kind, rows in plan.MAPS.items() for row in rows]


def ids(pair):
  return f"{pair[0]}-{pair[1].id}" if isinstance(pair, tuple) else None


def bounds(row):
  return [Bound(row, generator("parts_test", row.id, n)) for n in range(15)]


def phrases(bound, rng):
  for field in ("verbs", "adjective", "after", "does", "its", "nouns"):
    if hasattr(bound.part, field):
      yield bound.say(rng, field, "the thing")


@pytest.mark.parametrize("pair", FILTERS, ids=ids)
def test_a_filter_decides_and_its_opposite_says_no(pair):
  kind, row = pair
  answers = set()
  for bound in bounds(row):
    for value in VALUES[kind]:
      answer = bool(eval(bound.code("x"), {"x": value}))
      assert bool(eval(opposite(bound.code("x")), {"x": value})) is not answer
      answers.add(answer)
  assert answers == {True, False}


@pytest.mark.parametrize("pair", MAPS, ids=ids)
def test_a_map_gives_the_kind_that_it_says(pair):
  kind, row = pair
  changed = 0
  for bound in bounds(row):
    results = [eval(bound.code("x"), {"x": value}) for value in VALUES[kind]]
    assert {type(result) for result in results} == {OUT[row.out]}
    changed += results != VALUES[kind]
    if row.out == "char":
      assert all(len(result) == 1 for result in results)
  assert changed > 10


@pytest.mark.parametrize("pair", [*FILTERS, *MAPS], ids=ids)
def test_phrases_and_names_are_filled_in(pair):
  _, row = pair
  rng = random.Random(0)
  for bound in bounds(row):
    for text in phrases(bound, rng):
      assert not re.search(r"[{}|]|  ", text)
    for verb in row.verbs.split("|") if hasattr(row, "verbs") else ():
      assert re.match(r"\w+/\w+ ", verb), verb
    piece = bound.name_piece(rng).strip("+-")
    assert piece == "" or piece.isidentifier()


def test_ids_are_unique_within_a_kind():
  for table in (plan.FILTERS, plan.MAPS):
    for rows in table.values():
      assert len({row.id for row in rows}) == len(rows)


def test_constants_keep_their_order():
  for number in range(200):
    drawn = parts.constants(generator(number), "a:-5..10 b:a+4..18")
    low, high = drawn["a"], drawn["b"]
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert -5 <= low <= 10
    assert low + 4 <= high <= low + 18


@pytest.mark.parametrize(
  ("condition", "expected"),
  [
    ("x % 2 == 0", "x % 2 != 0"),
    ("x > 3", "x <= 3"),
    ("c not in s", "c in s"),
    ("1 <= x <= 5", "not 1 <= x <= 5"),
    ("x < 1 or x > 5", "not (x < 1 or x > 5)"),
    ("not s.isdigit()", "s.isdigit()"),
    ("s.isdigit()", "not s.isdigit()"),
  ],
)
def test_opposite(condition, expected):
  assert opposite(condition) == expected


ROWS = [(kind, row) for kind, rows in plan.AGGREGATES.items() for _, row in rows]


@pytest.mark.parametrize("pair", ROWS, ids=ids)
def test_all_styles_of_an_aggregate_agree(pair):
  """A filter and a map before it; comprehension, stages, loops, inner functions."""
  kind, row = pair
  source = {
    "int": sources.numbers,
    "word": sources.word_list,
    "char": sources.letters,
  }[kind]
  wanted = {"int": ("above", "times"), "word": ("contains", "upper")}
  wanted["char"] = ("letter", "lower")
  for number in range(4):
    rng = generator("styles", row.id, number)
    stages = [
      Bound(next(r for r in table[kind] if r.id == id), rng)
      for table, id in zip((plan.FILTERS, plan.MAPS), wanted[kind], strict=True)
    ]
    task = Plan(source(rng), tuple(stages), BoundAggregate(row, rng), kind)
    codes = {tuple(pipeline_code.body(rng, task)[0]) for _ in range(25)}
    assert len(codes) >= 4
    for arguments in task.setting.inputs(rng, task.hot, 6):
      answers = {repr(sorted_sets(run(code, task, arguments))) for code in codes}
      assert len(answers) == 1, codes


def run(code, task, arguments):
  names = ", ".join(argument.name for argument in task.setting.arguments)
  program = f"import math, itertools\ndef f({names}):\n"
  space = {}
  exec(program + "\n".join(f"    {line}" for line in code), space)
  return space["f"](*arguments)


def sorted_sets(value):
  return sorted(value) if isinstance(value, set) else value


def test_rows_are_documented_by_their_fields():
  for record in (parts.Filter, parts.Map):
    documented = inspect.getdoc(record) or ""
    for field in record.__dataclass_fields__:
      assert f"\n  {field}: " in documented
