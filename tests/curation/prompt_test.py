"""Prompts are files, and their own version."""

import pytest

from phi1_jax import InputError
from phi1_jax.curation import prompt

PLACES = frozenset(("name",))


def write(tmp_path, text):
  path = tmp_path / "mine.txt"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(path)


def test_a_prompt_of_ones_own(tmp_path):
  mine = prompt.load(write(tmp_path, "Write $name for $$5."), PLACES)
  request = mine.request({"name": "f"}, max_tokens=7, temperature=0.5, sample=3)
  assert request.messages[0].content == "Write f for $5."
  assert (request.max_tokens, request.temperature, request.sample) == (7, 0.5, 3)
  assert (request.prompt_id, request.prompt_version) == ("mine", mine.version)


def test_another_text_is_another_version(tmp_path):
  one = prompt.load(write(tmp_path, "Write $name"), PLACES)
  two = prompt.load(write(tmp_path, "Write $name."), PLACES)
  assert one.version != two.version


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("no place", "got the places none, expected name"),
    ("$name $other", "got the places name, other, expected name"),
    ("$name costs 5$", "got the places name, expected name"),
    (b"\xff $name", "not readable"),
  ],
)
def test_a_prompt_that_cannot_be_filled_is_refused(tmp_path, text, says):
  with pytest.raises(InputError, match=says):
    prompt.load(write(tmp_path, text), PLACES)


def test_a_missing_prompt_names_those_that_there_are(tmp_path):
  with pytest.raises(
    InputError, match="expected a text file, or one of annotate, exer"
  ):
    prompt.load(str(tmp_path / "gone.txt"), PLACES)
