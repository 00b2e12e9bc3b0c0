"""Tables: rows of users, and errors with file and line."""

import random

import pytest

from phi1_jax import InputError
from phi1_jax.grammar import rows, teacher
from phi1_jax.grammar.exercise import draw
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.templates import alternatives

ROW = """# mine
[task.taxed]
args = "p: nat = price|cost -> float"
noun = ["$p:name with 10 percent[| tax] added"]
names = ["taxed", "with_tax"]
body = "return $p * 110 / 100"
"""
KIND = """[kind.mine]
topic = "numbers"
type = "list[int]"
given = "a list"
noun = "list"
names = "xs"
pool = "[[1], [2, 3]]"
"""


FILTER = """[filter.int]
small = { code = "$x < 9", clause = "is small", adj = "small", name = "small" }
"""


MAP = """[map.int]
known = { code = "dict.fromkeys(range(-5000, 5001))[$x]", of = "the value of $x", \
  do = "value $x", name = "known", weight = 100 }
"""


def table(tmp_path, text):
  path = tmp_path / "mine.toml"
  path.write_text(text)
  return str(path)


def drawn(tables, id, count=60):
  task = next(task for task in tables.tasks if task.id == id)
  gate = Gate("train")
  made = [draw(random.Random(f"{id}/{n}"), tables, task, gate) for n in range(count)]
  return [exercise for exercise in made if exercise]


def test_a_row_of_a_user_is_a_task(tmp_path):
  tables = (table(tmp_path, ROW),)
  assert len(rows.load(tables).tasks) == len(rows.load().tasks) + 1
  found = [
    e for e in teacher.exercises(0, 0, 3000, tables=tables) if e.family == "taxed"
  ]
  assert found
  names = [e.name for e in drawn(rows.load(tables), "taxed", 200)]
  own = [name for name in names if name.endswith(("taxed", "with_tax"))]
  assert 0.75 < len(own) / len(names) < 0.95  # the others are general, or say nothing
  assert "10 percent" in found[0].prompt
  assert "* 110 / 100" in found[0].body


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("nat", "whole", r"mine.toml:2 \[task.taxed\] args: got kind 'whole', expected"),
    ("= price|cost", "= list", r"got the name 'list', expected a name"),
    ("p: nat", "p nat", r"mine.toml:3 .* args: got 'p nat = price\|cost', expected"),
    ("$p *", "$q *", r"mine.toml:6 \[task.taxed\] body: got \$q, expected one of p"),
    ("[| tax", "| tax", r"mine.toml:4 \[task.taxed\] noun: got a '\]' without"),
    ("names", "name", r"mine.toml:2 .*names: got nothing, expected a value"),
    ("names", 'let = { k = "9..2|5" }\nnames', r"let: got '9..2\|5', expected a range"),
    ("names", "weight = -1\nnames", r"weight: got -1, expected a number >= 0"),
    ("names", 'weight = "2"\nnames', r"weight: got '2', expected a number >= 0"),
    (" -> float", "", r"args: got 'p: nat = price.cost', expected"),
    ("taxed]", "taxed]\ncolour = 1", r"mine.toml:3 .* colour: got a key that no"),
    ("task.taxed", "tax.taxed", r"mine.toml:2 .*expected task, kind, frame"),
    ('body = "', "body = ", r"mine.toml: got .*line 6.*expected TOML"),
  ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path, old, new, message):
  with pytest.raises(InputError, match=message):
    rows.load((table(tmp_path, ROW.replace(old, new, 1)),))


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("$x < 9", "int($x ** 0.5) < 9", r"code: got TypeError .* for x = -\d+, expected"),
    ("$x < 9", "$x <", r"code: got SyntaxError"),
    ("$x < 9", "$x < $k", r"small\]: got \$k, expected one of x"),
    ('"$x < 9"', '"$x < 9", unless = "1 / $x"', r"unless: got ZeroDivisionError"),
    ("is small", "is under $k", r"small\]: got \$k, expected one of x"),
    (".int", ".integer", r"got kind 'integer', expected one of .*int"),
  ],
)
def test_a_wrong_part_is_named_by_file_and_line(tmp_path, old, new, message):
  path = table(tmp_path, FILTER.replace(old, new, 1))
  with pytest.raises(InputError, match=r"mine.toml:2 \[filter.int.*" + message):
    rows.load((path,))


def test_a_part_that_fails_in_a_composition_is_named(tmp_path):
  tables = rows.load((table(tmp_path, MAP),))
  with pytest.raises(
    InputError, match=r"mine.toml:2 \[map.int.known\] code, in .*toml"
  ):
    drawn(tables, "then")


def test_a_missing_table_is_named():
  with pytest.raises(
    InputError, match=r"Data.grammar_tables: got .*none.toml, expected a f"
  ):
    rows.load(("none.toml",))


def test_a_body_that_fails_is_named(tmp_path):
  text = ROW.replace("* 110 / 100", "// 0")
  tables = rows.load((table(tmp_path, text),))
  with pytest.raises(InputError, match=r"mine.toml:2 .*body: got ZeroDivisionError"):
    drawn(tables, "taxed")


@pytest.mark.parametrize("task", rows.load().tasks, ids=lambda task: task.id)
def test_every_row_of_the_package_gives_exercises(task):
  made = drawn(rows.load(), task.id)
  assert len(made) >= 10
  for exercise in made[:15]:
    space = {}
    exec(exercise.text, space)
    for test in exercise.tests:
      exec(test, space)


def test_alternatives_nest_and_divide():
  assert alternatives("a|b") == ["a", "b"]
  assert alternatives("x[ y[z|]|] w") == ["x yz w", "x y w", "x w"]
  with pytest.raises(ValueError, match=r"without a '\]'"):
    alternatives("a[b")


@pytest.mark.parametrize(
  ("text", "says"),
  [
    (KIND.replace("numbers", "money"), r"mine.toml:2 \[kind.mine\] topic: got 'money'"),
    ('[topic.empty]\nwords = " "\n', r"mine.toml:2 \[topic.empty\] words: got none"),
  ],
)
def test_topics_without_nouns_are_refused(tmp_path, text, says):
  with pytest.raises(InputError, match=says):
    rows.load((table(tmp_path, text),))


def test_a_kind_of_a_user_may_have_a_topic(tmp_path):
  assert rows.load((table(tmp_path, KIND),)).kinds["mine"].topics == ("numbers",)


def test_bodies_that_disagree_are_refused(tmp_path):
  text = ROW.replace(
    '"return $p * 110 / 100"', '["return $p * 110 / 100", "return $p"]'
  )
  with pytest.raises(InputError, match=r"mine.toml:2 .* body: .*101.*not 111.1"):
    drawn(rows.load((table(tmp_path, text),)), "taxed")


def test_a_result_without_a_type_of_python_is_refused(tmp_path):
  text = ROW.replace("-> float", "-> text")
  with pytest.raises(InputError, match=r"mine.toml:3 \[task.taxed\] args: got -> text"):
    rows.load((table(tmp_path, text),))
