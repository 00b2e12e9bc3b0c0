"""Choosing tokens, and where a text ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi1_jax import InputError
from phi1_jax.sampling import methods, stopping

LOGITS_V = jnp.log(jnp.asarray([0.05, 0.4, 0.1, 0.25, 0.2]))


def draws(method, logits_V=LOGITS_V, count=4000):
  keys = jax.random.split(jax.random.key(0), count)
  logits_BV = jnp.tile(logits_V, (count, 1))
  chosen = np.asarray(jax.jit(method.choose)(logits_BV, keys))
  return np.bincount(chosen, minlength=len(logits_V)) / count


def test_greedy_takes_the_most_probable_and_of_equals_the_first():
  logits_BV = jnp.asarray([[0.0, 2.0, 1.0], [3.0, 1.0, 3.0]])
  keys = jax.random.split(jax.random.key(0), 2)
  assert methods.Method().choose(logits_BV, keys).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_temperature_draws_by_probability(temperature):
  wanted = np.asarray([0.05, 0.4, 0.1, 0.25, 0.2]) ** (1 / temperature)
  found = draws(methods.Method(temperature))
  np.testing.assert_allclose(found, wanted / wanted.sum(), atol=0.025)


@pytest.mark.parametrize(
  ("limit", "kept"),
  [
    *(({"top_k": 1}, [1]), ({"top_k": 3}, [1, 3, 4]), ({"top_k": 99}, [0, 1, 2, 3, 4])),
    # The smallest set that reaches p.
    *(({"top_p": 0.39}, [1]), ({"top_p": 0.41}, [1, 3]), ({"top_p": 0.64}, [1, 3])),
    *(({"top_p": 0.66}, [1, 3, 4]), ({"top_p": 1.0}, [0, 1, 2, 3, 4])),
  ],
)
def test_top_k_and_top_p_keep_the_most_probable(limit, kept):
  assert np.flatnonzero(draws(methods.Method(1.0, **limit))).tolist() == kept


@pytest.mark.parametrize(
  ("numbers", "named"),
  [
    ((1.0, 5, 0.9), "top_k=5"),
    ((0, 5, None), "greedy"),
    ((-1.0, None, None), "temperature"),
    ((1.0, 0, None), "top_k"),
    ((1.0, None, 0.0), "top_p"),
  ],
)
def test_refuses(numbers, named):
  with pytest.raises(InputError, match=named):
    methods.Method(*numbers)


def test_a_row_draws_by_its_own_key_alone():
  keys = jax.random.split(jax.random.key(7), 6)
  logits_BV = jax.random.normal(jax.random.key(2), (6, 50))
  together = methods.Method(1.0).choose(logits_BV, keys)
  for row in range(6):
    part = slice(row, row + 1)
    alone = methods.Method(1.0).choose(logits_BV[part], keys[part])
    assert alone.tolist() == together[part].tolist()


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
