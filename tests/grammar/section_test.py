"""Textbook sections: their form, and that what their comments say is printed."""

import contextlib
import io
import re

import pytest

from phi1_jax.grammar import section, teacher

COUNT = 80


@pytest.fixture(scope="module")
def sections():
  return [teacher.section(2, index) for index in range(COUNT)]


def test_code_prints_what_its_comments_say(sections):
  comments = 0
  for each in sections:
    for block in each.code:
      out = io.StringIO()
      with contextlib.redirect_stdout(out):
        exec(block, {})
      said = re.findall(r"^print\(.*\)  # (.*)$", block, flags=re.M)
      assert said == out.getvalue().splitlines()
      comments += len(said)
  assert comments >= 3 * COUNT


def test_the_text_holds_the_code_in_numbered_examples(sections):
  for each in sections:
    blocks = re.findall(r"```python\n(.*?)```", each.text, flags=re.S)
    assert tuple(blocks) == each.code
    examples = re.findall(r"\*\*Example (\d+)\.\*\*", each.text)
    assert examples == [str(n + 1) for n in range(len(each.code))]
    assert each.text.startswith(f"## {each.title}\n\n")
    assert each.text.endswith("\n")
    assert not each.text.endswith("\n\n")
    prose = re.sub(r"```python\n.*?```", "", each.text, flags=re.S)
    assert len(prose.split()) >= 40


def test_sections_are_distinct_in_text_and_wording(sections):
  assert len({each.text for each in sections}) == COUNT
  assert len({each.topic for each in sections}) >= 10
  assert len({each.audience for each in sections}) >= 8
  assert len({each.title for each in sections}) > COUNT / 2
  openings = {each.text.split("\n\n")[1] for each in sections}
  assert len(openings) > 0.8 * COUNT


def test_no_placeholder_is_left(sections):
  for each in sections:
    prose = re.sub(r"```python\n.*?```|`[^`]*`", "CODE", each.text, flags=re.S)
    assert not re.search(r"[{}|]|  |\.\.", prose), prose


def test_values_that_no_comment_can_show_are_refused():
  assert section.printed("", ["1 + 1", "'a'"]) == "print(1 + 1)  # 2\nprint('a')  # a\n"
  assert section.printed("", ["{1, 2}"]) is None
  assert section.printed("", ["''"]) is None
  assert section.printed("", [r"'a\nb'"]) is None
