"""Hugging Face's PhiForCausalLM: its state dict to our parameters and back.

Both directions read the one table below. Hugging Face keeps layers and q, k, v apart,
stores matrices as (outputs, inputs), and flattens heads.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from phi1_jax import InputError
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig

_ALL = slice(None)

# Their name, with {} for the layer; our array; which part of it (of one layer); and,
# for a matrix that they transpose, how many leading dims of the part are inputs.
_ROWS = (
  ("model.embed_tokens.weight", "embedding/embedding", (), None),
  ("model.layers.{}.input_layernorm.weight", "layers/norm/scale", (), None),
  ("model.layers.{}.input_layernorm.bias", "layers/norm/bias", (), None),
  (
    "model.layers.{}.self_attn.q_proj.weight",
    "layers/attention/qkv/kernel",
    (_ALL, 0),
    1,
  ),
  ("model.layers.{}.self_attn.q_proj.bias", "layers/attention/qkv/bias", (0,), None),
  (
    "model.layers.{}.self_attn.k_proj.weight",
    "layers/attention/qkv/kernel",
    (_ALL, 1),
    1,
  ),
  ("model.layers.{}.self_attn.k_proj.bias", "layers/attention/qkv/bias", (1,), None),
  (
    "model.layers.{}.self_attn.v_proj.weight",
    "layers/attention/qkv/kernel",
    (_ALL, 2),
    1,
  ),
  ("model.layers.{}.self_attn.v_proj.bias", "layers/attention/qkv/bias", (2,), None),
  ("model.layers.{}.self_attn.dense.weight", "layers/attention/out/kernel", (), 2),
  ("model.layers.{}.self_attn.dense.bias", "layers/attention/out/bias", (), None),
  ("model.layers.{}.mlp.fc1.weight", "layers/mlp/up/kernel", (), 1),
  ("model.layers.{}.mlp.fc1.bias", "layers/mlp/up/bias", (), None),
  ("model.layers.{}.mlp.fc2.weight", "layers/mlp/down/kernel", (), 1),
  ("model.layers.{}.mlp.fc2.bias", "layers/mlp/down/bias", (), None),
  ("model.final_layernorm.weight", "final_norm/scale", (), None),
  ("model.final_layernorm.bias", "final_norm/bias", (), None),
  ("lm_head.weight", "head/kernel", (), 1),
  ("lm_head.bias", "head/bias", (), None),
)


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of the state dict and the view of our array that it corresponds to."""

  name: str
  view: np.ndarray
  num_inputs: int | None

  @property
  def shape(self) -> tuple[int, ...]:
    """Its shape in the state dict."""
    shape, num_inputs = self.view.shape, self.num_inputs
    if num_inputs is not None:
      return math.prod(shape[num_inputs:]), math.prod(shape[:num_inputs])
    is_embedding = self.name == "model.embed_tokens.weight"
    return shape if is_embedding else (math.prod(shape),)

  def read(self) -> np.ndarray:
    """The tensor, from our view."""
    if self.num_inputs is None:
      return self.view.reshape(self.shape)
    return np.ascontiguousarray(self.view.reshape(self.shape[::-1]).T)

  def write(self, array: np.ndarray) -> None:
    """Our view, from the tensor."""
    ours = array if self.num_inputs is None else array.T
    self.view[...] = ours.reshape(self.view.shape)


def tensors(params: Mapping, config: ModelConfig) -> Iterator[Tensor]:
  """Every tensor of the state dict, as a view of `params`, NumPy arrays."""
  for name, path, part, num_inputs in _ROWS:
    array = params
    for key in path.split("/"):
      array = array[key]
    if "{}" not in name:
      yield Tensor(name, array[part], num_inputs)
      continue
    for layer in range(config.num_layers):
      yield Tensor(name.format(layer), array[layer][part], num_inputs)


def to_hf(params: Mapping, config: ModelConfig) -> dict[str, np.ndarray]:
  """Our parameters as PhiForCausalLM's state dict, dtype kept.

  Args:
    params: the tree that `model.decoder` documents, of plain arrays.
    config: the model.
  """
  arrays = jax.tree.map(np.asarray, params)
  return {tensor.name: tensor.read() for tensor in tensors(arrays, config)}


def from_hf(state_dict: Mapping[str, np.ndarray], config: ModelConfig) -> dict:
  """PhiForCausalLM's state dict as our parameters, NumPy of `config.param_dtype`.

  Raises:
    InputError: a tensor is missing, unknown, or not of the shape that config implies.
  """
  params = jax.tree.map(
    lambda x: np.empty(x.shape, x.dtype), decoder.parameter_shapes(config)
  )
  expected = {tensor.name: tensor for tensor in tensors(params, config)}
  # Old releases also stored the rotary frequencies, which follow from the config.
  given = {name for name in state_dict if not name.endswith("rotary_emb.inv_freq")}
  for what, names in (
    ("lacks", expected.keys() - given),
    ("has unknown", given - expected.keys()),
  ):
    if names:
      raise InputError(
        f"state dict: {what} {min(names)!r} ({len(names)} such), expected the tensors "
        f"of a PhiForCausalLM with Model.num_layers={config.num_layers}."
      )
  for name, tensor in expected.items():
    array = np.asarray(state_dict[name])
    if array.shape != tensor.shape:
      raise InputError(
        f"state dict: {name!r} has shape {array.shape}, expected {tensor.shape} for "
        "this model; give the gin file of the model that was saved."
      )
    tensor.write(array)
  return params
