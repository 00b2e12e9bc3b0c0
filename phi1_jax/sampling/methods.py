"""Sampling methods, which choose the next token.

B batch, V vocabulary.
"""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp

from phi1_jax import InputError

# Below it logits divided by the temperature leave what float32 tells apart.
MIN_TEMPERATURE = 1e-4


class Method(Protocol):
  """A sampling method; hashable, so that it can be a static argument of `jit`."""

  def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """Return the next token of every row, int32 B, drawn with the row's own key."""
    ...


@dataclasses.dataclass(frozen=True)
class Greedy:
  """The most probable token; among equals, the lowest id."""

  def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """Return the most probable tokens."""
    del keys_B
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Temperature:
  """A token drawn from softmax(logits / temperature)."""

  temperature: float = 1.0

  def __post_init__(self):
    _check_temperature(self.temperature)

  def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """Draw from all tokens."""
    return _draw(logits_BV / self.temperature, keys_B)


@dataclasses.dataclass(frozen=True)
class TopK:
  """A token drawn from the k most probable (and those as probable as the last)."""

  k: int
  temperature: float = 1.0

  def __post_init__(self):
    _check_temperature(self.temperature)
    if self.k < 1:
      raise InputError(f"top_k: got {self.k}, expected at least 1")

  def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """Draw from the k most probable tokens."""
    k = min(self.k, logits_BV.shape[-1])
    least_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
    kept_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    return _draw(kept_BV / self.temperature, keys_B)


@dataclasses.dataclass(frozen=True)
class TopP:
  """A token drawn from the nucleus (Holtzman et al. 2019, arXiv 1904.09751).

  The nucleus is the smallest set of most probable tokens whose probabilities, after
  the temperature, sum to at least p.
  """

  p: float
  temperature: float = 1.0

  def __post_init__(self):
    _check_temperature(self.temperature)
    if not 0 < self.p <= 1:
      raise InputError(f"top_p: got {self.p}, expected more than 0 and at most 1")

  def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """Draw from the nucleus."""
    logits_BV = logits_BV / self.temperature
    probabilities_BV = jax.nn.softmax(logits_BV, axis=-1)
    least_B1 = _least_probable(probabilities_BV, self.p)
    return _draw(jnp.where(probabilities_BV >= least_B1, logits_BV, -jnp.inf), keys_B)


def make(temperature: float, top_k: int | None, top_p: float | None) -> Method:
  """Return the method for these settings; temperature 0 is greedy.

  Raises:
    InputError: both top_k and top_p, or one of them with temperature 0.
  """
  if top_k is not None and top_p is not None:
    raise InputError(f"got top_k={top_k} and top_p={top_p}, expected one of them")
  if temperature == 0:
    if top_k is not None or top_p is not None:
      raise InputError(
        "got top_k or top_p with temperature=0, which is greedy; raise the "
        "temperature or leave them out"
      )
    return Greedy()
  if top_k is not None:
    return TopK(top_k, temperature)
  return Temperature(temperature) if top_p is None else TopP(top_p, temperature)


def _check_temperature(temperature: float) -> None:
  if not MIN_TEMPERATURE <= temperature < math.inf:
    raise InputError(
      f"temperature: got {temperature}, expected 0 (greedy) or at least "
      f"{MIN_TEMPERATURE}"
    )


def _least_probable(probabilities_BV: jax.Array, p: float) -> jax.Array:
  """Return the largest t for which all probabilities of at least t sum to at least p.

  It bisects the bits of t, which are ordered like the floats: 31 sums over the
  vocabulary instead of a sort.
  """
  shape = (probabilities_BV.shape[0], 1)
  one = jax.lax.bitcast_convert_type(jnp.float32(1), jnp.int32)

  def halve(_, bounds):
    low_B1, high_B1 = bounds  # t = low is enough, t = high is not
    middle_B1 = low_B1 + (high_B1 - low_B1) // 2
    least_B1 = jax.lax.bitcast_convert_type(middle_B1, jnp.float32)
    kept_BV = jnp.where(probabilities_BV >= least_B1, probabilities_BV, 0)
    enough_B1 = jnp.sum(kept_BV, axis=-1, keepdims=True) >= p
    low_B1 = jnp.where(enough_B1, middle_B1, low_B1)
    return low_B1, jnp.where(enough_B1, high_B1, middle_B1)

  bounds = jnp.zeros(shape, jnp.int32), jnp.full(shape, one + 1)
  low_B1, _ = jax.lax.fori_loop(0, 31, halve, bounds)
  return jax.lax.bitcast_convert_type(low_B1, jnp.float32)


def _draw(logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
  return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)
