"""Replies of LLMs, read: exercises and sections; and the check of their code."""

import ast
import dataclasses

import pytest

from phi1_jax import InputError
from phi1_jax.curation import exercises, ideas, prompt, teaching, textbooks
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
  assert "assert" not in written.text
  assert "print" not in written.text


@pytest.mark.parametrize(
  ("change", "says"),
  [
    (lambda text: text.replace("def scale", "def other"), "got 0 plain asserts"),
    (lambda text: text.replace("    return [", "    return [["), "not valid Python"),
    (lambda text: text[: text.index("assert scale")] + "```", "got 1 plain asserts"),
    (lambda text: "", "no function with a docstring"),
    (lambda text: "\0" + text.replace("```", ""), "not valid Python"),
    (lambda text: "(" * 100_000, "not valid Python"),
    (
      lambda text: (
        'def f(x):\n  """D."""\n  return 1\nassert f(1) == 1\nassert f(2) == 1'
      ),
      "all asserts expect the same value",
    ),
  ],
)
def test_another_answer_says_what_is_wrong(change, says):
  with pytest.raises(Malformed, match=says):
    exercises.read_reply(change(GOOD), 2)


def test_only_the_last_exercise_of_an_answer_counts():
  draft = GOOD.replace("value * factor", "value + factor").replace("Enjoy!", "Wait:")
  written = exercises.read_reply(draft + GOOD, 2)
  assert written.text == exercises.read_reply(GOOD, 2).text
  apart = GOOD.replace("\n\nassert", "\n```\n\nChecks:\n\n```python\nassert", 1)
  assert exercises.read_reply(apart, 2).tests == exercises.read_reply(GOOD, 2).tests


def plain(source):
  return exercises.plain_asserts(ast.parse(source).body, "f")


@pytest.mark.parametrize(
  ("source", "taken"),
  [
    ("assert f(1) == 2", True),
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
  assert plain(f"{source}\nassert f(9) == 9\nassert f(9)==9, 'twice'")[:-1] == (
    (source,) if taken else ()
  )


@pytest.mark.parametrize(
  ("sources", "several"),
  [
    (["assert f(1) == 2", "assert f(2) == 2"], False),
    (["assert f(1) == 2", "assert f(2) == 3"], True),
    (["assert f(1)", "assert f(2) == True", "assert f(3) is True"], False),
    (["assert f(1)", "assert not f(2)"], True),
    (["assert abs(f(1) - 0.5) < 1e-6", "assert abs(f(2) - 0.5) < 1e-6"], False),
    (["assert abs(f(1) - 0.5) < 1e-6", "assert abs(f(2) - 1.5) < 1e-6"], True),
    (["assert sorted(f(1)) == [1]", "assert f(1) == [1]"], True),
    (["assert f(1) > 0", "assert f(2) < 9"], False),
    (["assert f(1) == 1", "assert 1 == f(2)"], False),
    (["assert f(1) == 1", "assert f(2) == 1.0", "assert f(3) == True"], False),
    (["assert f(3) == f(3)", "assert f(1) == 2"], False),
  ],
)
def test_a_constant_may_not_pass_all(sources, several):
  assert exercises.expects_several(sources, "f") == several


SECTION = "# Loops\n\n" + "Prose that explains. " * 20 + "\n\n```python\nx = 1\n```\n"


def test_a_section_keeps_its_text_and_gives_its_code():
  assert textbooks.read_reply(SECTION.replace("\n", "\r\n")).text == SECTION
  two = SECTION + "\nMore.\n\n```python\nassert x == 1\n```\n\n```text\nno code\n```\n"
  assert textbooks.read_reply(two).code == "x = 1\n\n\nassert x == 1\n"
  hidden = SECTION + "\n1. Then:\n\n    ```Py title=x\n    raise SystemError\n    ```\n"
  assert textbooks.code_of(hidden) == ["x = 1\n", "raise SystemError\n"]


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


TEXTBOOKS = textbooks.subject(TextbooksConfig(teacher="llm", sections=300))
EXERCISES = exercises.subject(ExercisesConfig(cpu_seconds=0.5))


def asked(subject):
  llm = subject.llm(None)
  numbers = range(subject.number)
  return [(llm.request(subject, n), subject.places(n)) for n in numbers]


def test_questions_vary_and_more_of_them_begin_with_the_same():
  few, many = (
    asked(exercises.subject(ExercisesConfig(teacher="llm", exercises=n)))
    for n in (20, 200)
  )
  assert many[:20] == few
  places = [places for _, places in many]
  assert len({each["name"] for each in places}) > 195
  assert len({each["topic_a"] for each in places}) > 50
  assert all(each["topic_a"] != each["topic_b"] for each in places)
  assert all(each["name"] in r.messages[0].content for r, each in many)
  sections = [p for _, p in asked(TEXTBOOKS)]
  assert {p["audience"] for p in sections} == set(ideas.AUDIENCES)
  assert len({p["topic"] for p in sections}) > 60
  assert len({p["words"] for p in sections}) > 290


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("Write $name for $$5.", None),
    ("no place", "got the places none, expected name"),
    ("$name $other", "got the places name, other, expected name"),
    ("$name costs 5$", "got the places name, expected name"),
    (b"\xff $name", "not readable"),
    (None, "expected a text file, or one of annotate, exer"),
  ],
)
def test_a_prompt_of_your_own(tmp_path, text, says):
  path, places = tmp_path / "mine.txt", frozenset(("name",))
  if text is not None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
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


def written(code, *tests):
  return samples.document(code, kind="exercise"), Written(code, code, tests)


PROGRAMS = {
  ("def f(x):\n  return x + 1\n", "assert f(1) == 2", "assert f(2) == 3"): None,
  ("def g(x):\n  return x\n", "assert g(1) == 2"): "code: wrong",
  ("def h(x):\n  return 1 / 0\n", "assert h(1) == 2"): "code: raised",
  # The same name as the first; and a neighbour's names do not count.
  ("def f(x):\n  return -x\n", "assert f(1) == -1"): None,
  ("import math\nLIMIT = 3\ndef f(x):\n  return x\n", "f(1)"): None,
  ("def g(x):\n  return math.ceil(x)\n", "assert g(1) == 1"): "code: raised",
  ("def h(x):\n  return x + LIMIT\n", "assert h(1) == 4"): "code: raised",
  ("while True:\n  pass\n",): "code: cpu_limit",
  ("def k(x)\n",): "code: syntax_error",
  ("import os\nos._exit(0)\n", "assert k(1)"): "code: exited",
  ("print('no tests: running to the end is enough')\n",): None,
  ("x = 1\n" * 20_000,): "too long to run",
}


@pytest.mark.parametrize("together", [False, True])
def test_failing_code_is_dropped_with_the_reason(sandbox, together):
  subject = dataclasses.replace(EXERCISES, together=together)
  texts = [written(*each) for each in PROGRAMS]
  drop = Drop(texts[1][0], "written before")
  found = list(teaching.checked([*texts, drop], sandbox, subject))
  assert found.pop() is drop
  reasons = [each.reason if isinstance(each, Drop) else None for each in found]
  reasons = [why and why.replace("wall", "cpu") for why in reasons]  # a busy machine
  assert reasons == [*PROGRAMS.values()]
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
  texts = [
    written(f"def f(x):\n  return {n}\n", f"assert f(1) == {n}") for n in range(9)
  ]
  found = teaching.checked(texts, sandbox, EXERCISES)
  assert all(isinstance(each, Keep) for each in found)
  assert len(programs) == 1
