"""Grades by a grader whose rule is known: a server that reads what it is sent."""

import collections
import itertools
import json
import re

import pytest

from evals import __main__ as command_line
from evals import grade as grading
from phi1_jax import InputError
from phi1_jax.llm.conversation import Malformed
from phi1_jax.problems.problem import Problem
from tests.llm.conftest import ThreadSender
from tests.llm.counting_server import CountingServer

# The grader's rule: what the body of the code says. Half of the problem with number 3.
SLIP = "    return number / 2\n"


def grade_of(code):
  """10 for a loop or a sum of two lines, 6 for a slip, 0 for one answer or none."""
  if SLIP.strip() in code:
    return 6
  body = code.rsplit('"""', 1)[-1].strip()
  empty = body.endswith("pass") or re.fullmatch(r"return (\w+|''|'a')", body)
  return 0 if empty else 10


def solution(body):
  content = body["messages"][0]["content"]
  return content.partition("<solution>\n")[2].rpartition("\n</solution>")[0]


def wording(body):
  return f"It does what it does.\nGRADE: {grade_of(solution(body))}"


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
  monkeypatch.setattr("phi1_jax.llm.client.SenderProcess", ThreadSender)
  with CountingServer() as serving:
    serving.write = wording
    yield serving


@pytest.fixture
def run(evaluate, only_five, tmp_path):
  """`run("a", "++-s+")`: a judged run of five problems: right, wrong or a slip."""

  def run(name, pattern):
    bodies = {"-": "    pass\n", "s": SLIP}
    rows = [
      {"task_id": p.id, "completion": bodies.get(sign, p.reference)}
      for p, sign in zip(only_five, pattern, strict=True)
    ]
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluate(name, source=(f"--completions={path}",)) == 0

  return run


@pytest.fixture
def grade(server, tmp_path):
  """`grade("a", "b", "--flag")`: what grades.json and grades.jsonl then hold."""

  def grade(*words, workdir="grades", code=0):
    flags = [
      *("grade", *words, f"--workdir={tmp_path / workdir}"),
      f"--gin.Llm.base_url={server.url}",
      f"--gin.Llm.journal={tmp_path / 'journal'}",
      *("--gin.Llm.model=m", "--gin.Llm.input_usd_per_million=0.15"),
      *("--gin.Llm.output_usd_per_million=0.6", "--gin.Grade.controls=1"),
    ]
    assert command_line.main(flags) == code
    if not (tmp_path / workdir / grading.GRADES).exists():
      return None, []
    rows = (tmp_path / workdir / grading.GRADES).read_text().splitlines()
    found = json.loads((tmp_path / workdir / grading.RESULT).read_text())
    return found, [json.loads(row) for row in rows]

  return grade


def test_a_known_rule_gives_known_numbers(run, grade, server, capsys):
  run("secretmodel", "++-s+")
  found, rows = grade("secretmodel")
  [judged] = found["runs"]
  score = judged["understanding_score"]
  assert score["value"] == pytest.approx(72)  # 10, 10, 0, 6, 10
  # Of the 3125 samples of five, 1.0% add up to less than 16, and 2.9% to 16 or less.
  assert (score["low"], score["high"]) == (pytest.approx(32), pytest.approx(100))
  assert (judged["spread"], judged["completions"], judged["unparsed"]) == (0, 5, 0)
  expected = {"passed": 3, "failed": 2, "mean_passed": 10, "mean_failed": 3}
  assert judged["agreement"] == {**expected, "auc": 1}
  # Five completions, and of one problem a reference, an empty body and a constant.
  means = {kind: row["mean"] for kind, row in found["planted"].items()}
  assert means == {"reference": 10, "empty": 0, "constant": 0}
  assert found["complaints"] == []
  assert len(rows) == 3 * found["programs"] == server.counts()["billed"]
  text = capsys.readouterr().out
  assert "planted references: mean 10.00 of 1" in text
  assert "CANNOT" not in text
  # The grader does not know whose code it reads.
  sent = json.dumps(server.bodies)
  for word in ("secretmodel", "planted", "HumanEval/", "reference", "canonical"):
    assert word not in sent
  # One body per program, so no repeat looks like one; the journal tells them apart.
  assert len({json.dumps(body) for body in server.bodies}) == len(rows) / 3
  assert len({row["request"] for row in rows}) == len(rows)
  assert collections.Counter(row["repeat"] for row in rows).keys() == {0, 1, 2}


def test_nothing_is_asked_twice(run, grade, server, monkeypatch, capsys):
  run("a", "+----")
  run("b", "-+---")
  assert grade("a", "--estimate") == (None, [])
  assert re.search(r"0 already paid, \d+ to send: about \$", capsys.readouterr().out)
  assert not server.bodies
  grade("a", "--gin.Llm.budget_usd=0.0015", code=1)
  assert "run the same command with --gin.Llm.budget_usd=" in capsys.readouterr().err
  before = server.counts()["billed"]
  first = grade("a")
  assert 0 < before < len(first[1]) == (billed := server.counts()["billed"])
  monkeypatch.delenv("OPENAI_API_KEY")
  assert grade("a") == first
  assert grade("a", workdir="elsewhere") == first
  assert server.counts()["billed"] == billed
  # b's program of the second problem alone is new, if it is none of the planted ones.
  found, _ = grade("a", "b")
  new = found["programs"] - first[0]["programs"]
  assert new <= 2
  assert server.counts()["billed"] == billed + 3 * new
  with pytest.raises(InputError, match="begun with temperature = 1"):
    grade("a", "--gin.Grade.temperature=0.5")


def test_what_is_no_grade_is_counted_and_is_none(run, grade, server, capsys):
  run("a", "+++--")

  def mumble(body):
    return "Nice work. 10/10" if grade_of(solution(body)) == 10 else wording(body)

  server.write = mumble
  found, rows = grade("a")
  [judged] = found["runs"]
  assert judged["unparsed"] == 3 * 3
  assert judged["understanding_score"]["value"] == 0
  assert (judged["problems"], judged["completions"]) == (2, 2)
  assert found["complaints"] == ["no grade of the planted references could be read"]
  assert {row["grade"] for row in rows} == {None, 0}
  bad = [row for row in rows if row["grade"] is None]
  assert found["unparsed"] == len(bad)
  assert all("again when corrected" in row["reason"] for row in bad)
  told = [body["messages"][-1]["content"] for body in server.bodies]
  assert sum('its last line is not "GRADE: "' in text for text in told) == len(bad)
  assert "THE GRADER CANNOT BE TRUSTED: no grade of" in capsys.readouterr().out


def test_repeats_that_differ(run, grade, server):
  run("a", "+++++")
  turns = collections.defaultdict(itertools.count)

  def moody(body):
    return f"Hm.\nGRADE: {(7, 8, 10)[next(turns[solution(body)])]}"

  server.write = moody
  found, _ = grade("a")
  [judged] = found["runs"]
  assert judged["spread"] == pytest.approx(2)  # 1, 2 and 3 apart
  assert judged["understanding_score"]["value"] == pytest.approx(250 / 3)
  assert judged["understanding_score"]["method"] == "wilson"  # all problems alike
  assert judged["agreement"]["auc"] is None
  assert len(found["complaints"]) == 2
  assert found["complaints"][0].startswith("empty bodies get 8.3 on average")


def test_refuses(run):
  run("x", "+-+-+")
  for flags, named in (
    (["nope"], "got nope, expected the work directory of a run"),
    (["nope", "nope"], "named twice"),
    (["x", "--gin.Grade.repeats=0"], r"repeats .*: got 0, expected an integer >= 1"),
    (["x", "--gin.Grade.repeat=2"], r"Grade\.repeat: no such parameter"),
    (["x", "--gin.Llm.model=nobody"], "no price is known"),
  ):
    with pytest.raises(InputError, match=named):
      command_line.main(["grade", *flags])


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("It works,\nmostly.\n\nGRADE: 7 \n", (7, "It works,\nmostly.")),
    ("It works.\nGRADE: 10", (10, "It works.")),
    ("It does not.\nGRADE: 0", (0, "It does not.")),
    ("GRADE: 10", "no evaluation"),
    ("It works.\nGRADE: 11", "11, which is not from 0 to 10"),
    ("GRADE: 3 or so.\nGRADE: 10", "more than one place"),
    *(
      (f"It works.\n{last}", "last line")
      for last in ("GRADE: 7.5", "GRADE: -1", "GRADE: 10/10", "grade: 10", "")
    ),
    ("It works.\nGRADE: 10\nThat is all.", "last line"),
  ],
)
def test_replies(text, expected):
  if isinstance(expected, tuple):
    assert grading.read_reply(text) == expected
  else:
    with pytest.raises(Malformed, match=expected):
      grading.read_reply(text)


def test_statistics():
  assert grading.auc([10, 5], [5, 0]) == (1 + 0.5 + 1 + 1) / 4
  assert grading.auc([], [1]) is None
  assert grading.spread([[1, 3], [4, 4, 7], [9]]) == (2 + 2) / 2
  assert grading.spread([[1]]) is None
  means = {"reference": 7.9, "empty": 3.1, "constant": 3.0, "misreading": 5.0}
  found = grading.complaints(means)
  kinds = [line.split(" get ")[0] for line in found]
  assert kinds == ["references", "empty bodies", "misreadings"]
  assert "nothing was planted" in grading.complaints({})[0]


def test_what_is_planted(five, monkeypatch):
  by_hand = {five[0].id: (("forgets", "def wrong(): ...\n"),)}
  monkeypatch.setattr(grading.written, "TASK_SETS", {"some": None})
  monkeypatch.setattr(grading.written, "wrong_solutions", lambda name: by_hand)
  found = list(grading.plant(five, "exercises-some", 5))
  kinds = collections.Counter(kind for kind, _, _ in found)
  assert kinds == {"reference": 5, "empty": 5, "constant": 5, "misreading": 1}
  # A larger number adds to a smaller one.
  usual = [each for each in found if each[0] != "misreading"]
  assert list(grading.plant(five, "other", 2)) == usual[:6]
  for _, problem, code in usual[2::3]:
    with pytest.raises((AssertionError, TypeError)):
      exec("\n".join([code, *problem.tests]), {})
    assert ">>>" in code  # the docstring stays


@pytest.mark.parametrize(
  ("solution", "kinds"),
  [
    ("class f:\n  x = 1\n", ["reference", "empty"]),
    ("f = lambda: 1\n", ["reference", "empty"]),
    ("async def f():\n  return 1\n", ["reference", "empty", "constant"]),
    ("from math import sqrt as f\n", ["reference"]),
  ],
)
def test_a_reference_is_planted_only_as_itself(solution, kinds):
  problem = Problem("a", "f", "", solution, solution, ())
  found = {kind: code for kind, _, code in grading.plant([problem], "other", 1)}
  assert [*found] == kinds
  assert len(set(found.values())) == len(kinds)


def test_the_question(five):
  # A changed prompt gives other grades: no score is to be compared with the old ones.
  assert grading.load_prompt().version == "e43821a627be"
  shown = grading.question(five[0])
  assert shown.startswith("from typing import List")
  for hidden in (five[0].reference.strip(), *five[0].tests):
    assert hidden not in shown
