"""Key-value cache, and the forward pass that extends it.

The same function does prefill (many tokens at once) and decoding (one token): it writes
the new tokens into the cache after those of each row, and attends to all of them.
Layers are unrolled, and each has its own parameters and cache: a slice of a stacked
array would be copied at every step, and memory traffic limits the speed of decoding.
On a CPU, kernels lie in memory with their outputs first: XLA multiplies them with a few
rows more than twice as fast (see `layers.Projection`).

B batch, T new tokens, S cache positions, N heads, H head_dim, D embed, V vocabulary.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from flax.linen.spmd import with_logical_constraint

from phi1_jax.kernels import grid
from phi1_jax.model import layers
from phi1_jax.model.config import ModelConfig

# Dims of a kernel that are contracted, where it is not one.
_INPUTS = {"out": 2}
# Logical names of a cache array BNSH.
NAMES = ("batch", "heads", None, "head_dim")


@struct.dataclass
class Cache:
  """Keys and values of the tokens so far, per layer, in the computation's dtype.

  Attributes:
    keys: one BNSH array per layer, rotated.
    values: one BNSH array per layer.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]

  @property
  def length(self) -> int:
    """The tokens that it can hold of each row."""
    return self.keys[0].shape[2]


def empty(config: ModelConfig, batch: int, length: int) -> Cache:
  """Return a cache of `batch` rows that can hold `length` tokens each."""
  shape = (batch, config.num_heads, length, config.head_dim)

  def one() -> tuple[jax.Array, ...]:
    zeros = [jnp.zeros(shape, config.dtype) for _ in range(config.num_layers)]
    return tuple(with_logical_constraint(array, NAMES) for array in zeros)

  return Cache(one(), one())


def insert(cache: Cache, new: Cache, rows_P: jax.Array) -> Cache:
  """Write the P rows of a shorter cache into these rows; drop rows out of range."""

  def put(arrays, others):
    return tuple(
      with_logical_constraint(
        array.at[rows_P, :, : other.shape[2]].set(other, mode="drop"), NAMES
      )
      for array, other in zip(arrays, others, strict=True)
    )

  return Cache(put(cache.keys, new.keys), put(cache.values, new.values))


def resized(cache: Cache, length: int) -> Cache:
  """Return the cache for `length` tokens of each row; later tokens are dropped.

  Frees each array of the old cache after its use, so that memory does not hold both.
  """

  def one(array: jax.Array) -> jax.Array:
    new = jax.block_until_ready(_resized(array, length))
    array.delete()
    return new

  return jax.tree.map(one, cache)


@functools.partial(jax.jit, static_argnums=1)
def _resized(array: jax.Array, length: int) -> jax.Array:
  more = max(0, length - array.shape[2])
  padded = jnp.pad(array, ((0, 0), (0, 0), (0, more), (0, 0)))
  return with_logical_constraint(padded[:, :, :length], NAMES)


def by_layer(
  params: Any, config: ModelConfig, *, consume: bool = False
) -> dict[str, Any]:
  """Return the parameters that `extend` takes: cast, and a tuple of layers.

  Matrices are cast to the dtype of the computation once, instead of at every step.
  Biases and norms keep their dtype, as in `Decoder`.

  Args:
    params: the tree that `model.decoder` documents.
    config: the model.
    consume: free each array of `params` after its use, so that memory never holds a
      large model twice.
  """

  def take(path, x, count: int | None):
    matrix = path[-1].key in ("kernel", "embedding")
    moved = _inputs(path) if _outputs_first() else 0
    taken = _take(x, config.dtype if matrix else x.dtype, count, moved)
    if consume:
      jax.block_until_ready(taken)
      x.delete()
    return taken

  whole = {name: tree for name, tree in params.items() if name != "layers"}
  taken = jax.tree_util.tree_map_with_path(lambda p, x: take(p, x, None), whole)
  stacked = jax.tree_util.tree_map_with_path(
    lambda p, x: take(p, x, config.num_layers), params["layers"]
  )
  split = tuple(
    jax.tree.map(
      lambda x, layer=layer: x[layer], stacked, is_leaf=lambda x: isinstance(x, tuple)
    )
    for layer in range(config.num_layers)
  )
  return {**taken, "layers": split}


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _take(x: jax.Array, dtype: Any, count: int | None, moved: int) -> Any:
  """Cast an array, and move its first dims to its end.

  Its first axis, of size `count`, is first split into a tuple unless that is None.
  """
  if count is not None:
    return tuple(_take(x[index], dtype, None, moved) for index in range(count))
  return jnp.moveaxis(x.astype(dtype), range(moved), range(-moved, 0))


def _outputs_first() -> bool:
  return grid.device().platform == "cpu"


def _inputs(path: Any) -> int:
  """Return how many dims of a parameter are contracted; 0 if it is no kernel."""
  return _INPUTS.get(path[-2].key, 1) if path[-1].key == "kernel" else 0


def _inputs_first(params: dict[str, Any]) -> dict[str, Any]:
  """Return the parameters as the modules take them; nothing moves in memory."""
  if not _outputs_first():
    return params
  return jax.tree_util.tree_map_with_path(
    lambda path, x: jnp.moveaxis(x, range(-_inputs(path), 0), range(_inputs(path))),
    params,
  )


def extend(
  config: ModelConfig,
  params: dict[str, Any],
  cache: Cache,
  tokens_BT: jax.Array,
  starts_B: jax.Array,
) -> tuple[jax.Array, Cache]:
  """Run the decoder on T more tokens of every row.

  Args:
    config: the model.
    params: what `by_layer` returns.
    cache: the rows so far; positions from `starts_B` on are ignored.
    tokens_BT: the new tokens.
    starts_B: how many tokens each row has in the cache.

  Returns:
    hidden_BTD after the last block (see `logits`), and the cache with the new tokens.
  """
  params = _inputs_first(params)
  embedding = layers.Embedding(config)
  x_BTD: Any = embedding.apply({"params": params["embedding"]}, tokens_BT)
  block = layers.Block(config)
  keys, values = [], []
  read = zip(params["layers"], cache.keys, cache.values, strict=True)
  for layer, k_BNSH, v_BNSH in read:
    layer_cache = layers.LayerCache(k_BNSH, v_BNSH, starts_B)
    output: Any = block.apply({"params": layer}, x_BTD, None, True, layer_cache)
    x_BTD, (k_BNSH, v_BNSH, _) = output
    keys.append(with_logical_constraint(k_BNSH, NAMES))
    values.append(with_logical_constraint(v_BNSH, NAMES))
  return x_BTD, Cache(tuple(keys), tuple(values))


def logits(
  config: ModelConfig, params: dict[str, Any], hidden_BTD: jax.Array
) -> jax.Array:
  """Return the logits of the next token, BTV float32, from the hidden state."""
  params = _inputs_first(params)
  norm = layers.LayerNorm(config)
  normal_BTD = norm.apply({"params": params["final_norm"]}, hidden_BTD)
  kernel = layers.head_kernel(params)
  output: Any = layers.head(config).apply(
    {"params": params["head"]}, normal_BTD, kernel
  )
  return output
