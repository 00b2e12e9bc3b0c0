"""Sampling methods, which choose the next token.

B batch, V vocabulary.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from phi1_jax import InputError

# Below it logits divided by the temperature leave what float32 tells apart.
MIN_TEMPERATURE = 1e-4


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to choose the next token; hashable, as a static argument of `jit` must be.

  Attributes:
    temperature: tokens are drawn from softmax(logits / temperature); 0 is greedy, which
      takes the most probable token and among equals the lowest id.
    top_k: draw from the k most probable tokens, and those as probable as the last.
    top_p: draw from the nucleus (Holtzman et al. 2019, arXiv 1904.09751), the smallest
      set of most probable tokens whose probabilities, after the temperature, sum to at
      least p.

  Raises:
    InputError: a number out of range, both top_k and top_p, or one of them with
      temperature 0.
  """

  temperature: float = 0.0
  top_k: int | None = None
  top_p: float | None = None

  def __post_init__(self):
    if self.temperature and not MIN_TEMPERATURE <= self.temperature < math.inf:
      raise InputError(
        f"temperature: got {self.temperature}, expected 0 (greedy) or at least "
        f"{MIN_TEMPERATURE}"
      )
    if self.top_k is not None and self.top_k < 1:
      raise InputError(f"top_k: got {self.top_k}, expected at least 1")
    if self.top_p is not None and not 0 < self.top_p <= 1:
      raise InputError(f"top_p: got {self.top_p}, expected more than 0 and at most 1")
    if self.top_k is not None and self.top_p is not None:
      raise InputError(
        f"got top_k={self.top_k} and top_p={self.top_p}, expected one of them"
      )
    if not self.temperature and (self.top_k, self.top_p) != (None, None):
      raise InputError(
        "got top_k or top_p with temperature=0, which is greedy; raise the "
        "temperature or leave them out"
      )

  def choose(self, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """Return the next token of every row, int32 B, drawn with the row's own key."""
    if not self.temperature:
      return _argmax(logits_BV)
    if self.top_k is not None:
      k = min(self.top_k, logits_BV.shape[-1])
      least_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
      logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    logits_BV = logits_BV / self.temperature
    if self.top_p is not None:
      probabilities_BV = jax.nn.softmax(logits_BV, axis=-1)
      least_B1 = _least_probable(probabilities_BV, self.top_p)
      logits_BV = jnp.where(probabilities_BV >= least_B1, logits_BV, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def _argmax(logits_BV: jax.Array) -> jax.Array:
  """Return the place of the largest logit of each row, the first among equals.

  XLA for CPUs computes these two reductions three times as fast as `jnp.argmax`.
  """
  ids_V = jnp.arange(logits_BV.shape[-1], dtype=jnp.int32)
  largest_BV = logits_BV == jnp.max(logits_BV, axis=-1, keepdims=True)
  return jnp.min(jnp.where(largest_BV, ids_V, ids_V.size), axis=-1)


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
