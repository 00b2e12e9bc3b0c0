"""What LLMs answer, read: exercises, sections, scores."""

import pytest

from phi1_jax.curation import annotate, exercises, ideas, prompt, textbooks
from phi1_jax.curation.config import ExercisesConfig, TextbooksConfig
from phi1_jax.curation.teaching import LlmTeacher
from phi1_jax.llm.conversation import Malformed

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
  assert "assert" not in written.text
  assert "print" not in written.text


@pytest.mark.parametrize(
  ("change", "says"),
  [
    (lambda text: text.replace("def scale", "def other"), "got 0 plain asserts"),
    (lambda text: text.replace("    return [", "    return [["), "not valid Python"),
    (lambda text: text[: text.index("assert scale")] + "```", "got 1 plain asserts"),
    (lambda text: "", "no function with a docstring"),
    (lambda text: text.replace('"""', "#"), "not valid Python|no docstring"),
    (lambda text: "\0" + text.replace("```", ""), "not valid Python"),
    (lambda text: "(" * 100_000, "not valid Python"),
  ],
)
def test_an_answer_that_is_none_says_what_is_wrong(change, says):
  with pytest.raises(Malformed, match=says):
    exercises.read_reply(change(GOOD), 2)


def test_asserts_that_a_constant_passes_are_refused():
  reply = 'def f(x):\n  """Doc."""\n  return 1\nassert f(1) == 1\nassert f(2) == 1\n'
  with pytest.raises(Malformed, match="all asserts expect the same value"):
    exercises.read_reply(reply, 2)


SECTION = "# Loops\n\n" + "Prose that explains. " * 20 + "\n\n```python\nx = 1\n```\n"


def test_a_section_keeps_its_text_and_gives_its_code():
  assert textbooks.read_reply(SECTION.replace("\n", "\r\n")).text == SECTION
  two = SECTION + "\nMore.\n\n```python\nassert x == 1\n```\n\n```text\nno code\n```\n"
  assert textbooks.code_of(two) == ["x = 1\n", "assert x == 1\n"]
  assert textbooks.read_reply(two).code == "x = 1\n\n\nassert x == 1\n"
  hidden = SECTION + "\n1. Then:\n\n    ```Py title=x\n    raise SystemError\n    ```\n"
  assert textbooks.code_of(hidden) == ["x = 1\n", "raise SystemError\n"]


def test_only_the_last_exercise_of_an_answer_counts():
  draft = GOOD.replace("value * factor", "value + factor").replace("Enjoy!", "Wait:")
  written = exercises.read_reply(draft + GOOD, 2)
  assert written.text == exercises.read_reply(GOOD, 2).text
  apart = GOOD.replace("\n\nassert", "\n```\n\nChecks:\n\n```python\nassert", 1)
  assert exercises.read_reply(apart, 2).tests == exercises.read_reply(GOOD, 2).tests


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ("Sure! Here is the section:\n\n", ""),
    ("", "\nLet me know if you want more of it!\n"),
    ("Of course.\n\n", "\n---\n\nI hope this helps.\n"),
    ("Here it is:\n\n```markdown\n", "```\n"),
  ],
)
def test_chatter_is_no_part_of_a_section(before, after):
  assert textbooks.read_reply(before + SECTION + after).text == SECTION


@pytest.mark.parametrize(
  ("reply", "says"),
  [
    ("Only prose. " * 50, "no ```python"),
    (SECTION.replace("x = 1", ""), "no ```python"),
    ("```python\nx = 1\n```", "hardly any prose"),
  ],
)
def test_a_section_without_code_or_prose_is_refused(reply, says):
  with pytest.raises(Malformed, match=says):
    textbooks.read_reply(reply)


@pytest.mark.parametrize(
  ("reply", "score"),
  [
    ('{"reason": "clear", "score": 4}', 4.0),
    ('```json\n{"score": "3", "reason": null}\n```', 3.0),
    ("I think {it} is fine. Score: 2.5", 2.5),
    ('{"score": 0}', 0.0),
    ('Draft: {"score": 1}. Better: {"score": 4} {"note": 1}', 4.0),
    ("Score: 1, no, score: 3", 3.0),
  ],
)
def test_scores_are_found(reply, score):
  assert annotate.read_reply(reply)[0] == score


@pytest.mark.parametrize(
  "reply",
  ["", "no", '{"score": 7}', '{"score": 1}{"score": 7}', '{"score": "high"}', "[5]"],
)
def test_answers_without_a_score_are_refused(reply):
  with pytest.raises(Malformed):
    annotate.read_reply(reply)


class NoReplies:
  """Asks nobody."""

  model = "m"

  def identity(self):
    return {"model": "m"}


def test_what_is_asked_varies_and_more_of_it_keeps_what_was_asked():
  def asked(number):
    config = ExercisesConfig(teacher="llm", exercises=number)
    asked = prompt.load("exercise", exercises.PLACES)
    teacher = LlmTeacher(exercises.subject(config), config, NoReplies(), asked)
    return [
      (request.messages[0].content, places)
      for request, places in teacher.requests(0, number)
    ]

  few, many = asked(20), asked(200)
  assert many[:20] == few
  assert len({places["name"] for _, places in many}) > 195
  assert len({places["topic_a"] for _, places in many}) > 50
  assert all(places["topic_a"] != places["topic_b"] for _, places in many)
  assert all(places["name"] in content for content, places in many)


def test_textbooks_vary_by_topic_audience_and_words():
  config = TextbooksConfig(teacher="llm", sections=300)
  asked = prompt.load("textbook", textbooks.PLACES)
  teacher = LlmTeacher(textbooks.subject(config), config, NoReplies(), asked)
  places = [places for _, places in teacher.requests(0, 300)]
  assert {p["audience"] for p in places} == set(ideas.AUDIENCES)
  assert len({p["topic"] for p in places}) > 60
  assert len({p["words"] for p in places}) > 290
