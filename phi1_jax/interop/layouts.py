"""Names and arrangements of the tensors in other projects' checkpoints.

Each layout is one table from their modules to ours; reading and writing are computed
from it. Hugging Face's files keep layers apart, store matrices as (outputs, inputs) and
flatten heads; our parameters stack layers and keep heads apart (see `model.decoder`).

  phi                  transformers' PhiForCausalLM: q, k and v apart
  mixformer-sequential phi-1 as first published: one flat list of layers, q k v fused
  phi-msft             phi-1 of late 2023: the same with other names
  codegen              CodeGen: no biases in the attention; q, v, k interleaved in four
                       blocks of heads; rotary pairs (2i, 2i + 1) where ours are
                       (i, i + rotary_dim / 2)
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from phi1_jax import InputError
from phi1_jax.interop.safetensors import DTYPES, Stored
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig

# Buffers that old files hold; they follow from the config.
_BUFFERS = re.compile(r"\.(rotary_emb\.inv_freq|attn\.(causal_mask|bias|masked_bias))$")
# CodeGen's fused projection is laid out for this many TPU cores, whatever runs it.
_CODEGEN_BLOCKS = 4
_PIECE = 1 << 20  # values that are checked at once


def _older(
  embedding: str, block: str, last: str, up: str = "fc1", down: str = "fc2"
) -> dict[str, str]:
  """Return the table of a layout of 2023, which differ in their prefixes."""
  return {
    f"{embedding}.wte": "embedding",
    f"{block}.ln": "layers/norm",
    f"{block}.mixer.Wqkv": "layers/attention/qkv",
    f"{block}.mixer.out_proj": "layers/attention/out",
    f"{block}.mlp.{up}": "layers/mlp/up",
    f"{block}.mlp.{down}": "layers/mlp/down",
    f"{last}.ln": "final_norm",
    f"{last}.linear": "head",
  }


# Their module, with {layer} and {last}; ours, with :q, :k or :v for one part of it.
_PHI = {
  "model.embed_tokens": "embedding",
  "model.layers.{layer}.input_layernorm": "layers/norm",
  "model.layers.{layer}.self_attn.q_proj": "layers/attention/qkv:q",
  "model.layers.{layer}.self_attn.k_proj": "layers/attention/qkv:k",
  "model.layers.{layer}.self_attn.v_proj": "layers/attention/qkv:v",
  "model.layers.{layer}.self_attn.dense": "layers/attention/out",
  "model.layers.{layer}.mlp.fc1": "layers/mlp/up",
  "model.layers.{layer}.mlp.fc2": "layers/mlp/down",
  "model.final_layernorm": "final_norm",
  "lm_head": "head",
}
_MIXFORMER = "layers.0", "layers.{layer}", "layers.{last}"
_MSFT = "transformer.embd", "transformer.h.{layer}", "lm_head"
_CODEGEN = {
  "transformer.wte": "embedding",
  "transformer.h.{layer}.ln_1": "layers/norm",
  "transformer.h.{layer}.attn.qkv_proj": "layers/attention/qkv",
  "transformer.h.{layer}.attn.out_proj": "layers/attention/out",
  "transformer.h.{layer}.mlp.fc_in": "layers/mlp/up",
  "transformer.h.{layer}.mlp.fc_out": "layers/mlp/down",
  "transformer.ln_f": "final_norm",
  "lm_head": "head",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of a file, and the block of our array that corresponds to it."""

  name: str  # in the file
  path: str  # our array, e.g. "layers/mlp/up/kernel"
  sizes: tuple[int, ...]  # shape of our array
  start: tuple[int, ...]  # first index of the block
  # For each of its dims, the axes of our array that it flattens. Our other axes are
  # fixed at `start`.
  groups: tuple[tuple[int, ...], ...]
  order: np.ndarray | None = None  # numbers of its rows in our order, if that differs

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape in the file."""
    return tuple(math.prod(self.sizes[axis] for axis in g) for g in self.groups)

  @property
  def axes(self) -> tuple[int, ...]:
    """Our axes that it covers, in its order."""
    return tuple(axis for group in self.groups for axis in group)

  @property
  def fixed(self) -> tuple[int, ...]:
    """Our axes of which it covers a single index."""
    return tuple(axis for axis in range(len(self.sizes)) if axis not in self.axes)

  def unfold(self, array: np.ndarray) -> np.ndarray:
    """Return the tensor with one dim for each of `axes`; a view unless reordered."""
    if self.order is not None:
      array = array[self.order]
    return array.reshape([self.sizes[axis] for axis in self.axes])

  def ours(self, unfolded: jax.Array) -> jax.Array:
    """Return the block of our array, from `unfold`."""
    return jnp.expand_dims(
      jnp.transpose(unfolded, np.argsort(self.axes).tolist()), self.fixed
    )

  def read(self, array: np.ndarray) -> np.ndarray:
    """Return the tensor in the file's arrangement from our array, dtype kept."""
    fixed = {axis: self.start[axis] for axis in self.fixed}
    part = array[tuple(fixed.get(axis, slice(None)) for axis in range(array.ndim))]
    part = np.transpose(part, np.argsort(np.argsort(self.axes)))
    theirs = np.ascontiguousarray(part.reshape(self.shape))
    if self.order is None:
      return theirs
    reordered = np.empty_like(theirs)
    reordered[self.order] = theirs
    return reordered

  def check(self, values: np.ndarray, dtype: np.dtype, place: object) -> None:
    """Refuse NaN, infinity, and numbers beyond the range of `dtype`.

    Args:
      values: the tensor.
      dtype: the dtype to which it will be cast.
      place: its origin, for errors.
    """
    flat = values.reshape(-1)
    pieces = (flat[i : i + _PIECE] for i in range(0, flat.size, _PIECE))
    with np.errstate(over="ignore"):
      if all(np.isfinite(x.astype(dtype, copy=False)).all() for x in pieces):
        return
    if count := np.count_nonzero(~np.isfinite(flat)):
      raise InputError(
        f"{place}: {self.name} holds {count:,} values of {flat.size:,} that are NaN or "
        "infinite, expected finite numbers; get the model from an earlier checkpoint"
      )
    raise InputError(
      f"{place}: {self.name} holds {np.max(np.abs(flat)):.3g}, which {dtype.name} "
      "cannot; use --dtype=bfloat16 or --dtype=float32"
    )


@dataclasses.dataclass(frozen=True)
class Layout:
  """A way of naming and arranging the tensors of a phi model."""

  name: str
  model_type: str  # in config.json
  modules: Mapping[str, str]  # from their modules to ours
  first_layer: int = 0  # number of the first layer in their names
  is_codegen: bool = False

  def tensors(self, config: ModelConfig) -> dict[str, Tensor]:
    """Return the tensors of a file of this layout, by name."""
    arrays = flatten(decoder.parameter_shapes(config))
    order = _codegen_order(config) if self.is_codegen else None
    found = {}
    for theirs, ours in self.modules.items():
      module, _, part = ours.partition(":")
      layers = range(config.num_layers) if module.startswith("layers/") else (None,)
      for path, shape in arrays.items():
        folder, _, leaf = path.rpartition("/")
        biasless = self.is_codegen and folder.startswith("layers/attention/")
        if folder != module or (leaf == "bias" and biasless):
          continue
        for layer in layers:
          number = None if layer is None else layer + self.first_layer
          name = theirs.format(layer=number, last=config.num_layers + 1)
          name += ".bias" if leaf == "bias" else ".weight"
          rows = order if module == "layers/attention/qkv" else None
          found[name] = _tensor(name, path, shape.shape, layer, part, rows)
    return found


LAYOUTS = (
  Layout("phi", "phi", _PHI),
  Layout("mixformer-sequential", "mixformer-sequential", _older(*_MIXFORMER), 1),
  Layout(
    "mixformer-sequential (fc_in, fc_out)",
    "mixformer-sequential",
    _older(*_MIXFORMER, "fc_in", "fc_out"),
    1,
  ),
  Layout("phi-msft", "phi-msft", _older(*_MSFT)),
  Layout("codegen", "codegen", _CODEGEN, is_codegen=True),
)
PHI = LAYOUTS[0]


def detect(names: set[str], model_type: str, config: ModelConfig) -> Layout:
  """Return the layout of a model type that shares the most names with a file."""
  of_type = [layout for layout in LAYOUTS if layout.model_type == model_type]
  return max(of_type, key=lambda layout: len(names & layout.tensors(config).keys()))


def is_buffer(name: str) -> bool:
  """Return whether a tensor of an old file follows from the config."""
  return bool(_BUFFERS.search(name))


def misfits(expected: Mapping[str, Tensor], stored: Iterable[Stored]) -> list[str]:
  """Return a line for each tensor that a file lacks, or has in another form.

  Args:
    expected: the tensors of the layout.
    stored: the tensors of the file; buffers are ignored.
  """
  given = {tensor.name: tensor for tensor in stored if not is_buffer(tensor.name)}
  lines = []
  for name, tensor in expected.items():
    if name not in given:
      lines.append(f"missing: {name}, expected {tensor.shape}")
      continue
    shape, dtype = given[name].shape, given[name].dtype
    if shape != tensor.shape:
      lines.append(f"shape: {name}, got {shape}, expected {tensor.shape}")
    if dtype not in DTYPES:
      lines.append(f"dtype: {name}, got {dtype}, expected {', '.join(DTYPES)}")
  unknown = (name for name in given if name not in expected)
  return lines + [f"unknown: {name}, got {given[name].shape}" for name in unknown]


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Return a tree of parameters as a dict from path to leaf, sorted by path."""
  return dict(sorted(traverse_util.flatten_dict(tree, sep="/").items()))


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Return the inverse of `flatten`."""
  return traverse_util.unflatten_dict(leaves, sep="/")


def _tensor(
  name: str,
  path: str,
  sizes: tuple[int, ...],
  layer: int | None,
  part: str,
  order: np.ndarray | None,
) -> Tensor:
  first = 0 if layer is None else 1
  axes = tuple(range(first, len(sizes)))
  num_inputs = 2 if path.startswith("layers/attention/out/") else 1
  if path.endswith("/kernel"):
    groups = axes[num_inputs:], axes[:num_inputs]
  elif path == "embedding/embedding":
    groups = axes[:1], axes[1:]
  else:
    groups = (axes,)
  start = [layer or 0] + [0] * (len(sizes) - 1)
  if part:  # ours has q, k and v on the first axis of the outputs
    start[groups[0][0]] = "qkv".index(part)
    groups = groups[0][1:], *groups[1:]
  return Tensor(name, path, sizes, tuple(start), groups, order)


def _codegen_order(config: ModelConfig) -> np.ndarray:
  """Return the numbers of the rows of CodeGen's fused projection in our order.

  Theirs: block, then q v k, then the block's heads, then head_dim. Ours: q k v, then
  all heads, then head_dim with the rotary pairs split into halves.
  """
  heads, head_dim = config.num_heads, config.head_dim
  rows = np.arange(3 * heads * head_dim)
  rows = rows.reshape(_CODEGEN_BLOCKS, 3, heads // _CODEGEN_BLOCKS, head_dim)
  rows = rows[:, [0, 2, 1]].swapaxes(0, 1).reshape(3, heads, head_dim)
  rotated = rows[:2, :, : config.rotary_dim]
  halves = np.concatenate([rotated[..., ::2], rotated[..., 1::2]], axis=-1)
  rows[:2, :, : config.rotary_dim] = halves
  return rows.reshape(-1)
