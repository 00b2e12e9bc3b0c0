"""Replies of LLMs, read: exercises and sections; and the check of their code."""

import ast
import dataclasses

import pytest

from phi1_jax import InputError
from phi1_jax.curation import exercises, prompt, teaching, textbooks
from phi1_jax.curation.config import ExercisesConfig, TextbooksConfig
from phi1_jax.curation.document import Drop, Keep
from phi1_jax.curation.teaching import Written
from phi1_jax.llm.conversation import Malformed
from phi1_jax.sandbox.sandbox import Sandbox
from tests.curation import samples

GOOD = '''Here you are:

```python
import math
from typing import List


def scale(values: List[int], factor: int) -> List[int]:
    """Multiply every value by the factor.

    >>> scale([1], 3)
    [3]
    """
    default = []  # the word def in a name is no definition
    return [value * factor for value in values] or default


assert scale([1, 2], 2) == [2, 4]
assert scale([], 5) == [], "empty"
print(scale([1], 1))
assert __import__("os").system("true") == 0
```

Enjoy!
'''


def test_an_exercise_is_found_in_the_answer_and_its_checks_are_plain():
  written = exercises.read_reply(GOOD, 2)
  assert written.facts == {"function": "scale", "tests": list(written.tests)}
  assert written.code == written.text
  assert written.tests == (
    "assert scale([1, 2], 2) == [2, 4]",
    "assert scale([], 5) == []",
    "assert scale([1], 3) == [3]",
  )
  assert written.text.startswith("import math\nfrom typing import List\n\n\ndef scale(")
  assert written.text.endswith("or default\n")
  # Only the last exercise of an answer counts; its checks may stand apart.
  draft = GOOD.replace("value * factor", "value + factor").replace("Enjoy!", "Wait:")
  apart = GOOD.replace("\n\nassert", "\n```\n\nChecks:\n\n```python\nassert", 1)
  for answer in (draft + GOOD, apart):
    again = exercises.read_reply(answer, 2)
    assert (again.text, again.tests) == (written.text, written.tests)


@pytest.mark.parametrize(
  ("old", "new", "says"),
  [
    ("def scale", "def other", "got 0 plain asserts"),
    ("    return [", "    return [[", "not valid Python"),
    (GOOD[GOOD.index("assert scale") :], "```", "got 1 plain asserts"),
    (GOOD, "", "no function with a docstring"),
    (GOOD, "(" * 100_000, "not valid Python"),
    ("== []", "== [2, 4]", "all asserts expect the same value"),
  ],
)
def test_another_answer_says_what_is_wrong(old, new, says):
  answer = GOOD.replace(old, new).replace("    [3]", "    [2, 4]")
  with pytest.raises(Malformed, match=says):
    exercises.read_reply(answer, 2)


@pytest.mark.parametrize(
  ("source", "taken"),
  [
    ("assert f([1, 2], key='a') == {'a': (1, -2)}", True),
    ("assert not f('x')", True),
    ("assert abs(f(0.1) - 0.3) < 1e-09", True),
    ("assert sorted(f({1: 2})) == [1]", True),
    ("assert f(f(1)) == 4 and f(2) == 3", True),
    ("assert True", False),
    ("assert g(1) == 2", False),
    ("assert f(__import__('os').system('ls')) == 0", False),
    ("assert f(open('/etc/passwd')) == 1", False),
    ("assert f(lambda: 1) == 1", False),
    ("assert f([x for x in (1, 2)]) == 1", False),
    ("assert f(9**9**9) == 1", False),
    ("assert f(x := 3) == 3", False),
    ("print(f(1))", False),
    ("assert f.__globals__ == {}", False),
    ("assert f(1) == 0x" + "f" * 5000, False),
  ],
)
def test_plain_asserts_are_taken_as_they_are(source, taken):
  body = ast.parse(f"{source}\nassert f(9) == 9\nassert f(9)==9, 'twice'").body
  assert exercises.plain_asserts(body, "f")[:-1] == ((source,) if taken else ())


@pytest.mark.parametrize(
  ("sources", "several"),
  [
    ("f(1) == 2; f(2) == 2", False),
    ("f(1) == 2; f(2) == 3", True),
    ("f(1); f(2) == True; f(3) is True", False),
    ("f(1); not f(2)", True),
    ("abs(f(1) - 0.5) < 1e-6; abs(f(2) - 0.5) < 1e-6", False),
    ("abs(f(1) - 0.5) < 1e-6; abs(f(2) - 1.5) < 1e-6", True),
    ("sorted(f(1)) == [1]; f(1) == [1]", True),
    ("f(1) > 0; f(2) < 9", False),
    ("f(1) == 1; f(2) == 1.0; f(3) == True", False),
    ("f(3) == f(3); f(1) == 2", False),
  ],
)
def test_a_constant_may_not_pass_all(sources, several):
  asserts = [f"assert {each}" for each in sources.split("; ")]
  assert exercises.expects_several(asserts, "f") == several


SECTION = "# Loops\n\n" + "Prose that explains. " * 20 + "\n\n```python\nx = 1\n```\n"


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ("Sure! Here is the section:\n\n", ""),
    ("", "\nLet me know if you want more of it!\n"),
    ("Of course.\n\n", "\n---\n\nI hope this helps.\n"),
    ("Here it is:\n\n```markdown\n", "```\n"),
  ],
)
def test_a_section_is_read_without_the_chatter(before, after):
  reply = (before + SECTION + after).replace("\n", "\r\n")
  assert textbooks.read_reply(reply).text == SECTION


def test_a_section_gives_its_code():
  two = SECTION + "\nMore.\n\n```python\nassert x == 1\n```\n\n```text\nno code\n```\n"
  assert textbooks.read_reply(two).code == "x = 1\n\n\nassert x == 1\n"
  hidden = SECTION + "\n1. Then:\n\n    ```Py title=x\n    raise SystemError\n    ```\n"
  assert textbooks.code_of(hidden) == ["x = 1\n", "raise SystemError\n"]
  for reply in ("Only prose. " * 50, SECTION.replace("x = 1", "")):
    with pytest.raises(Malformed, match="no ```python"):
      textbooks.read_reply(reply)
  with pytest.raises(Malformed, match="hardly any prose"):
    textbooks.read_reply("```python\nx = 1\n```")


def asked(subject):
  """The places of all questions, and the requests."""
  llm = subject.llm(None)
  numbers = range(subject.number)
  return [(subject.places(n), subject.request(llm, n)) for n in numbers]


def test_questions_vary_and_more_of_them_begin_with_the_same():
  few, many = (
    asked(exercises.subject(ExercisesConfig(teacher="llm", exercises=n)))
    for n in (20, 200)
  )
  assert many[:20] == few
  assert len({places["name"] for places, _ in many}) > 195
  assert len({places["topic_a"] for places, _ in many}) > 50
  assert all(places["topic_a"] != places["topic_b"] for places, _ in many)
  assert all(places["name"] in r.messages[0].content for places, r in many)
  sections = asked(textbooks.subject(TextbooksConfig(teacher="llm", sections=300)))
  assert {places["audience"] for places, _ in sections} == set(teaching.AUDIENCES)
  assert len({places["topic"] for places, _ in sections}) > 60


@pytest.mark.parametrize(
  ("text", "says"),
  [
    (b"Write $name for $$5.", None),
    (b"no place", "got the places none, expected name"),
    (b"$name $other", "got the places name, other, expected name"),
    (b"$name costs 5$", "got the places name, expected name"),
    (b"\xff $name", "not readable"),
    (None, "expected a text file, or one of annotate, exer"),
  ],
)
def test_a_prompt_of_your_own(tmp_path, text, says):
  path, places = tmp_path / "mine.txt", frozenset(("name",))
  if text is not None:
    path.write_bytes(text)
  if says:
    with pytest.raises(InputError, match=says):
      prompt.load(str(path), places)
    return
  mine = prompt.load(str(path), places)
  request = mine.request({"name": "f"}, max_tokens=7, temperature=0.5, sample=3)
  assert request.messages[0].content == "Write f for $5."
  assert (request.max_tokens, request.temperature, request.sample) == (7, 0.5, 3)
  assert (request.prompt_id, request.prompt_version) == ("mine", mine.version)
  path.write_text("Write $name")
  assert prompt.load(str(path), places).version != mine.version


@pytest.fixture(scope="module")
def sandbox():
  with Sandbox(workers=2) as opened:
    yield opened


EXERCISES = exercises.subject(ExercisesConfig(cpu_seconds=0.5))
PROGRAMS = [
  (None, "def f(x):\n  return x + 1\n", "assert f(1) == 2", "assert f(2) == 3"),
  ("code: wrong", "def g(x):\n  return x\n", "assert g(1) == 2"),
  ("code: raised", "def h(x):\n  return 1 / 0\n", "assert h(1) == 2"),
  # The same name as the first; and a neighbour's names do not count.
  (None, "def f(x):\n  return -x\n", "assert f(1) == -1"),
  (None, "import math\nLIMIT = 3\ndef f(x):\n  return x\n", "f(1)"),
  ("code: raised", "def g(x):\n  return math.ceil(x)\n", "assert g(1) == 1"),
  ("code: raised", "def h(x):\n  return x + LIMIT\n", "assert h(1) == 4"),
  ("code: cpu_limit", "while True:\n  pass\n"),
  ("code: syntax_error", "def k(x)\n"),
  ("code: exited", "import os\nos._exit(0)\n", "assert k(1)"),
  (None, "print('no tests: running to the end is enough')\n"),
  ("too long to run", "x = 1\n" * 20_000),
]


def written(code, *tests):
  return samples.document(code, kind="exercise"), Written(code, code, tests)


@pytest.mark.parametrize("together", [False, True])
def test_failing_code_is_dropped_with_the_reason(sandbox, together):
  subject = dataclasses.replace(EXERCISES, together=together)
  texts = [written(*each) for _, *each in PROGRAMS]
  drop = Drop(texts[1][0], "written before")
  found = list(teaching.checked([*texts, drop], sandbox, subject))
  assert found.pop() is drop
  reasons = [each.reason if isinstance(each, Drop) else None for each in found]
  reasons = [why and why.replace("wall", "cpu") for why in reasons]  # a busy machine
  assert reasons == [why for why, *_ in PROGRAMS]
  assert [each.document.id for each in found] == [document.id for document, _ in texts]
  assert found[0].document.provenance["exercises"]["verdict"] == "passed"
  assert found[1].evidence["failed_test"] == "assert g(1) == 2"
  assert "got 1" in found[1].evidence["detail"]
  marked = textbooks.subject(TextbooksConfig(failing_code="mark"))
  (kept,) = teaching.checked([texts[2]], sandbox, marked)
  assert isinstance(kept, Keep)
  assert kept.document.provenance["textbooks"]["verdict"] == "raised"


def test_programs_that_pass_together_share_a_process(sandbox, monkeypatch):
  programs, sandbox_run = [], sandbox.run

  def run(given):
    programs.extend(given := list(given))
    return sandbox_run(given)

  monkeypatch.setattr(sandbox, "run", run)
  texts = [written(f"def f(x):\n  return {n}\n", f"assert f(1) == {n}") for n in "1234"]
  found = teaching.checked(texts, sandbox, EXERCISES)
  assert all(isinstance(each, Keep) for each in found)
  assert len(programs) == 1
