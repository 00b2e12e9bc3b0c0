"""Grades by a grader whose rule is known: a server that reads what it is sent."""

import collections
import itertools
import json
import re

import pytest

from evals import __main__ as command_line
from evals import benchmark
from evals.grading import asking, grades
from phi1_jax import InputError
from phi1_jax.llm.conversation import Malformed
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
def run(only_five, trusting, monkeypatch, tmp_path):
  """`run("a", "++-s+")`: a judged run of five problems: right, wrong or a slip."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: trusting())

  def run(name, pattern):
    bodies = {"-": "    pass\n", "s": SLIP}
    rows = [
      {"task_id": p.id, "completion": bodies.get(sign, p.reference)}
      for p, signs in zip(only_five, pattern.split(), strict=True)
      for sign in signs
    ]
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [f"--completions={path}", f"--workdir={name}"]
    assert command_line.main(["humaneval", *flags]) == 0

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
    return read(tmp_path / workdir)

  return grade


def read(folder):
  if not (folder / asking.GRADES).exists():
    return None, []
  rows = (folder / asking.GRADES).read_text().splitlines()
  found = json.loads((folder / asking.RESULT).read_text())
  return found, [json.loads(row) for row in rows]


def test_a_known_rule_gives_known_numbers(run, grade, server, capsys):
  run("a", "+ + - s +")
  found, rows = grade("a")
  [judged] = found["runs"]
  score = judged["understanding_score"]
  assert score["value"] == pytest.approx(72)  # 10, 10, 0, 6, 10
  # Of the 3125 samples of five, 1.0% add up to less than 16, and 2.9% to 16 or less.
  assert (score["low"], score["high"]) == (pytest.approx(32), pytest.approx(100))
  assert (judged["spread"], judged["completions"], judged["unparsed"]) == (0, 5, 0)
  expected = {"passed": 3, "failed": 2, "mean_passed": 10, "mean_failed": 3}
  assert judged["agreement"] == {**expected, "auc": 1}
  # Five completions, and of one problem a reference, an empty body and a constant.
  assert found["planted"]["reference"]["mean"] == 10
  assert found["planted"]["empty"] == {**{"programs": 1, "graded": 1, "mean": 0}}
  assert (found["planted"]["constant"]["mean"], found["complaints"]) == (0, [])
  assert len(rows) == 3 * found["programs"] == server.counts()["billed"]
  text = capsys.readouterr().out
  assert "10.00 (3)" in text
  assert "planted references: mean 10.00 of 1" in text
  assert "CANNOT" not in text


def test_nothing_is_asked_twice(run, grade, server, monkeypatch, tmp_path):
  run("a", "+ - - - -")
  run("b", "- + - - -")
  first = grade("a")
  billed = server.counts()["billed"]
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


def test_the_grader_does_not_know_whose_code_it_reads(run, grade, server):
  run("secretmodel", "+ - s + -")
  _, rows = grade("secretmodel")
  sent = json.dumps(server.bodies)
  for word in ("secretmodel", "planted", "HumanEval/", "reference", "canonical"):
    assert word not in sent
  assert {len(body["messages"]) for body in server.bodies} == {1}
  # One body per program, so no repeat looks like one; the journal tells them apart.
  assert len({json.dumps(body) for body in server.bodies}) == len(rows) / 3
  assert len({row["request"] for row in rows}) == len(rows)
  assert collections.Counter(row["repeat"] for row in rows).keys() == {0, 1, 2}


def test_what_is_no_grade_is_counted_and_is_none(run, grade, server, capsys):
  run("a", "+ + + - -")

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
  run("a", "+ + + + +")
  turns = collections.defaultdict(itertools.count)

  def moody(body):
    turn = next(turns[solution(body)])
    return f"Hm.\nGRADE: {(7, 8, 10)[turn]}"

  server.write = moody
  found, _ = grade("a")
  [judged] = found["runs"]
  assert judged["spread"] == pytest.approx(2)  # 1, 2 and 3 apart
  assert judged["understanding_score"]["value"] == pytest.approx(250 / 3)
  assert judged["understanding_score"]["method"] == "wilson"  # all problems alike
  assert judged["agreement"]["auc"] is None
  assert len(found["complaints"]) == 2
  assert found["complaints"][0].startswith("empty bodies get 8.3 on average")


def test_an_estimate_sends_nothing(run, grade, server, capsys, tmp_path):
  run("a", "+ - + - +")
  assert grade("a", "--estimate") == (None, [])
  text = capsys.readouterr().out
  assert re.search(r"(\d+) different ones, each graded 3 times", text)
  assert re.search(r"requests, 0 already paid, \d+ to send: about \$0\.00", text)
  assert not server.bodies
  assert not (tmp_path / "grades").exists()


def test_a_budget_that_ends_is_no_loss(run, grade, server, capsys):
  run("a", "+ - + - +")
  grade("a", "--gin.Llm.budget_usd=0.0015", code=1)
  assert "run the same command with --gin.Llm.budget_usd=" in capsys.readouterr().err
  before = server.counts()["billed"]
  found, rows = grade("a")
  assert 0 < before < len(rows) == server.counts()["billed"]
  assert found["runs"][0]["understanding_score"]["value"] == pytest.approx(60)


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    (["nope"], "got nope, expected the work directory of a run"),
    (["nope", "nope"], "named twice"),
    (
      ["nope", "--gin.Grade.repeats=0"],
      r"Grade\.repeats .*: got 0, expected an integer >= 1",
    ),
    (["nope", "--gin.Grade.repeat=2"], r"Grade\.repeat: no such parameter"),
    (["nope", "--gin.Llm.model=nobody"], "no price is known"),
  ],
)
def test_refuses(run, flags, named):
  run("nobody", "+ - + - +")
  flags = ["nobody" if "nobody" in flags[-1] else flags[0], *flags[1:]]
  with pytest.raises(InputError, match=named):
    command_line.main(["grade", *flags])


@pytest.mark.parametrize(
  ("text", "grade"),
  [
    ("It works.\nGRADE: 10", 10),
    ("It works,\nmostly.\n\nGRADE: 7 \n", 7),
    ("It does not.\nGRADE: 0", 0),
  ],
)
def test_replies(text, grade):
  assert asking.read_reply(text)[0] == grade
  assert asking.read_reply(text)[1].startswith("It ")


@pytest.mark.parametrize(
  ("text", "why"),
  [
    ("GRADE: 10", "no evaluation"),
    ("It works.\nGRADE: 11", "11, which is not from 0 to 10"),
    ("It works.\nGRADE: 7.5", "last line"),
    ("It works.\nGRADE: -1", "last line"),
    ("It works.\nGRADE: 10/10", "last line"),
    ("It works.\ngrade: 10", "last line"),
    ("It works.\nGRADE: 10\nThat is all.", "last line"),
    ("GRADE: 3 or so.\nGRADE: 10", "more than one place"),
    ("", "last line"),
  ],
)
def test_replies_that_are_none(text, why):
  with pytest.raises(Malformed, match=why):
    asking.read_reply(text)


def test_statistics():
  assert grades.auc([10, 5], [5, 0]) == (1 + 0.5 + 1 + 1) / 4
  assert grades.auc([], [1]) is None
  assert grades.spread([[1, 3], [4, 4, 7], [9]]) == (2 + 2) / 2
  assert grades.spread([[1]]) is None


def test_planted_programs_that_get_the_wrong_grades():
  planted = {
    kind: {"programs": 4, "mean": mean}
    for kind, mean in zip(asking.KINDS, (7.9, 3.1, 3.0, 5.0), strict=True)
  }
  found = grades.complaints(planted)
  assert [line.split(" get ")[0] for line in found] == [
    *("references", "empty bodies", "misreadings")
  ]
  assert "nothing was planted" in grades.complaints({})[0]


def test_what_is_planted(five, monkeypatch):
  by_hand = {five[0].id: (("forgets", "def wrong(): ...\n"),)}
  monkeypatch.setattr(asking.written, "TASK_SETS", {"some": None})
  monkeypatch.setattr(asking.written, "wrong_solutions", lambda name: by_hand)
  found = list(asking.plant(five, "exercises-some", 5))
  kinds = collections.Counter(kind for kind, _, _ in found)
  assert kinds == {"reference": 5, "empty": 5, "constant": 5, "misreading": 1}
  fewer = list(asking.plant(five, "other", 2))
  assert "misreading" not in {kind for kind, _, _ in fewer}
  order = list(dict.fromkeys(problem.id for _, problem, _ in found))
  assert list(dict.fromkeys(problem.id for _, problem, _ in fewer)) == order[:2]
  for kind, problem, code in found:
    if kind == "constant":
      scope = {}
      exec(code, scope)
      with pytest.raises((AssertionError, TypeError)):
        exec("\n".join(problem.tests), scope)
      assert ">>>" in code  # the docstring stays


def test_the_question(five):
  prompt = asking.load_prompt()
  # A changed prompt gives other grades: no score is to be compared with the old ones.
  assert prompt.version == "e43821a627be"
  shown = asking.question(five[0])
  assert shown.startswith("from typing import List")
  for hidden in (five[0].reference.strip(), *five[0].tests):
    assert hidden not in shown
  cut = asking._shown("x = '\ud800'\n" + "y = 1\n" * 9, 9)
  assert cut == "x = '\ufffd'\ny\n# 52 more characters are not shown"
