"""Tables: rows of users, errors with file and line, and that all rows are right.

`solved.jsonl` has two or more exercises of a row: "id" (row/number), "prompt", "tests",
and "solution", the body that somebody wrote who saw only the prompt.
"""

import collections
import json
import pathlib
import random
import re
import textwrap

import pytest

from phi1_jax import InputError
from phi1_jax.grammar import rows, solve, teacher
from phi1_jax.grammar.__main__ import main
from phi1_jax.grammar.exercise import draw
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.templates import alternatives

SOLVED = pathlib.Path(__file__).with_name("solved.jsonl").read_text().splitlines()
BODY = "return $p * 110 / 100"
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


def load(tmp_path, text):
  path = tmp_path / "mine.toml"
  path.write_text(text)
  return rows.load((str(path),))


def drawn(tables, id, count=60):
  task = next(task for task in tables.tasks if task.id == id)
  gate = Gate("train")
  made = [draw(random.Random(f"{id}/{n}"), tables, task, gate) for n in range(count)]
  return [exercise for exercise in made if exercise]


def test_a_row_of_a_user_is_a_task(tmp_path):
  tables = load(tmp_path, ROW)
  assert len(tables.tasks) == len(rows.load().tasks) + 1
  files = (str(tmp_path / "mine.toml"),)
  found = next(
    e for e in teacher.exercises(0, 0, 3000, tables=files) if e.family == "taxed"
  )
  assert "10 percent" in found.prompt
  assert "* 110 / 100" in found.body
  names = [e.name for e in drawn(tables, "taxed", 200)]
  own = [name for name in names if name.endswith(("taxed", "with_tax"))]
  assert 0.75 < len(own) / len(names) < 0.95  # the others are general, or say nothing


def test_a_kind_of_a_user_may_have_a_topic(tmp_path):
  """The table may begin with a byte order mark."""
  assert load(tmp_path, f"\ufeff{KIND}").kinds["mine"].topics == ("numbers",)


@pytest.mark.parametrize(
  ("table", "old", "new", "message"),
  [
    (ROW, "nat", "whole", r"2 \[task.taxed\] args: got kind 'whole', expected"),
    (ROW, "= price|cost", "= list", r"2 .*got the name 'list', expected a name"),
    (ROW, "p: nat", "p nat", r"3 .* args: got 'p nat = price\|cost', expected"),
    (ROW, "-> float", "-> text", r"3 \[task.taxed\] args: got -> text"),
    (ROW, " -> float", "", r"3 .*args: got 'p: nat = price.cost', expected"),
    (ROW, "$p *", "$q *", r"6 \[task.taxed\] body: got \$q, expected one of p"),
    (ROW, "[| tax", "| tax", r"4 \[task.taxed\] noun: got a '\]' without"),
    (ROW, "names", "name", r"2 .*names: got nothing, expected a value"),
    (ROW, "names", 'let = { k = "9..2" }\nnames', r"5 .*let: got '9..2', expected a r"),
    (ROW, "names", "weight = -1\nnames", r"5 .*weight: got -1, expected a number >= 0"),
    (ROW, "taxed]", "taxed]\ncolour = 1", r"3 .* colour: got a key that no"),
    (ROW, "task.taxed", "tax.taxed", r"2 .*expected task, kind, frame"),
    (ROW, 'body = "', "body = ", r" got .*line 6.*expected TOML"),
    (FILTER, "$x <", "$x ** 0.5 <", r"2 .*code: got TypeError .* for x = -\d+, expec"),
    (FILTER, "$x < 9", "$x <", r"2 \[filter.int.*code: got SyntaxError"),
    (FILTER, "is small", "is under $k", r"2 .*small\]: got \$k, expected one of x"),
    (FILTER, '9"', '9", unless = "1 / $x"', r"2 .*unless: got ZeroDivisionError"),
    (FILTER, ".int", ".integer", r".*got kind 'integer', expected one of .*int"),
    (KIND, "numbers", "money", r"2 \[kind.mine\] topic: got 'money'"),
    (ROW, '["taxed", "with_tax"]', "[]", r"5 .*names: got \[\], expected at least one"),
    (ROW, f'"{BODY}"', "[]", r"6 .*body: got \[\], expected at least one"),
    ('[topic.a]\nwords = " "\n', "", "", r"2 \[topic.a\] words: got none"),
  ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path, table, old, new, message):
  with pytest.raises(InputError, match=f"mine.toml:{message}"):
    load(tmp_path, table.replace(old, new, 1))


_TIMEOUT = r"2 .*body: got TimeoutError \(no answer within 0.3 s\)"
# It catches the first of the errors.
_CATCHES = r"try:\n  while True: abs(1)\nexcept TimeoutError:\n  while True: pass"


@pytest.mark.parametrize(
  ("table", "task", "message"),
  [
    (MAP, "then", r"2 \[map.int.known\] code, in .*toml"),
    (ROW.replace("* 110 / 100", "// 0"), "taxed", "2 .*body: got ZeroDivisionError"),
    (f'{ROW}check = "$p > 1"', "taxed", r"2 .* check: got '\$p > 1' \(SyntaxError"),
    (f'{ROW}check = "q > 1"', "taxed", r"2 .* check: got 'q > 1' \(NameError"),
    (f'{ROW}check = "p < 0"', "taxed", r"2 .* check: .*no input of nat passes"),
    (ROW.replace(BODY, "while True: pass"), "taxed", _TIMEOUT),
    (ROW.replace(BODY, _CATCHES), "taxed", _TIMEOUT),
    (ROW.replace(BODY, "import sys; sys.exit(3)"), "taxed", "2 .*the code calls exit"),
    (ROW.replace(f'"{BODY}"', f'["{BODY}", "return $p"]'), "taxed", "2 .*101.*not 111"),
  ],
)
def test_a_row_that_fails_when_it_is_drawn_is_named(
  tmp_path, monkeypatch, table, task, message
):
  monkeypatch.setattr(solve, "_SECONDS", 0.3)
  with pytest.raises(InputError, match=f"mine.toml:{message}"):
    drawn(load(tmp_path, table), task)


@pytest.mark.parametrize("task", rows.load().tasks, ids=lambda task: task.id)
def test_every_row_of_the_package_gives_exercises(task):
  made = drawn(rows.load(), task.id)
  assert len(made) >= 10
  for exercise in made[:15]:
    space = {}
    exec(exercise.text, space)
    for test in exercise.tests:
      exec(test, space)


def test_somebody_elses_solutions_of_every_row_pass():
  counts = collections.Counter()
  for row in map(json.loads, SOLVED):
    counts[row["id"].split("/")[0]] += 1
    solution = row["solution"].strip("\n")
    if not solution.startswith(("def ", "import ", "from ")):  # a body
      body = textwrap.indent(textwrap.dedent(solution), "    ")
      solution = row["prompt"] + body
    space = {}
    exec(solution, space)
    for test in row["tests"]:
      exec(test, space)
  assert [task.id for task in rows.load().tasks if counts[task.id] < 2] == []


def test_alternatives_nest_and_divide():
  assert alternatives("a|b") == ["a", "b"]
  assert alternatives("x[ y[z|]|] w") == ["x yz w", "x y w", "x w"]
  with pytest.raises(ValueError, match=r"without a '\]'"):
    alternatives("a[b")


def test_the_command_shows_exercises_with_asserts_that_they_pass(tmp_path, capsys):
  assert main(["--task=fare", "--count=2"]) == 0
  printed = capsys.readouterr().out
  assert printed.count("def ") == 2
  exec(printed, {})
  # The rows of the page give exercises.
  page = pathlib.Path(__file__).parents[2] / "docs" / "exercises.md"
  flags = []
  for row in re.findall(r"```toml\n(.*?)```", page.read_text(), re.S):
    table = tmp_path / f"{len(flags)}.toml"
    table.write_text(row)
    flags.append(f"--tables={table}")
  for task, says in (("taxed", "10 percent"), ("issquare", "perfect square")):
    assert main([*flags, f"--task={task}", "--count=5"]) == 0
    assert " ".join(capsys.readouterr().out.split()).count(says) >= 5


@pytest.mark.parametrize(
  ("flag", "named"),
  [
    ("--task=nothing", "nothing"),
    ("--task=palindrom", "such as palindrome"),
    ("--tables=absent.toml", "absent.toml"),
    ("--table=mine.toml", "--table"),  # abbreviated
  ],
)
def test_what_is_not_there_is_refused_in_one_line(flag, named, capsys):
  try:
    code = main([flag])
  except SystemExit as exit:
    code = exit.code
  message = capsys.readouterr().err
  assert code == 2
  assert named in message
  assert message.count("\n") == 1
