import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi1_jax.sampling import stopping


@pytest.mark.parametrize(
  ("text", "stops", "expected"),
  [
    ("a\ndef f", ["\ndef", "\nif"], ("a", "\ndef")),
    ("a\nif\ndef f", ["\ndef", "\nif"], ("a", "\nif")),
    ("no stop here", ["\ndef"], ("no stop here", None)),
    ("no stop here", [], ("no stop here", None)),
    ("x###y", ["#", "###"], ("x", "###")),  # the longest of those at one place
    ("\ndef", ["\ndef"], ("", "\ndef")),
  ],
)
def test_cut(text, stops, expected):
  assert stopping.cut(text, stops) == expected


@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=12))
def test_what_is_settled_is_never_taken_back(text, more):
  stops = ["\nab", "bb", "aba"]
  before, found = stopping.cut(text, stops)
  if found is None:
    shown = text[: stopping.settled(text, stops)]
    assert stopping.cut(text + more, stops)[0].startswith(shown)
  else:
    assert stopping.cut(text + more, stops)[0] == before
