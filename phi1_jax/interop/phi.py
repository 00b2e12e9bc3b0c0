"""State dicts in memory: another layout's tensors to our parameters and back.

For models that fit into memory twice; `from_hf` and `to_hf` of whole files stream.
"""

from collections.abc import Mapping

import jax
import numpy as np

from phi1_jax import InputError
from phi1_jax.interop import layouts
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig


def to_hf(
  params: Mapping, config: ModelConfig, layout: layouts.Layout = layouts.PHI
) -> dict[str, np.ndarray]:
  """Our parameters as a state dict, dtype kept.

  Args:
    params: the tree that `model.decoder` documents, of plain arrays.
    config: the model.
    layout: whose state dict; PhiForCausalLM's unless said.
  """
  arrays = layouts.flatten(jax.tree.map(np.asarray, params))
  return {
    name: tensor.read(arrays[tensor.path])
    for name, tensor in layout.tensors(config).items()
  }


def from_hf(
  state_dict: Mapping[str, np.ndarray],
  config: ModelConfig,
  layout: layouts.Layout = layouts.PHI,
) -> dict:
  """A state dict as our parameters, NumPy of `config.param_dtype`.

  Raises:
    InputError: tensors are missing, unknown, or not of the shape that config implies.
  """
  expected = layout.tensors(config)
  given = {name: tuple(np.shape(array)) for name, array in state_dict.items()}
  if lines := layouts.misfits(expected, given):
    raise InputError(
      f"state dict: expected the tensors of {layout.name} for this model:\n  "
      + "\n  ".join(lines)
    )
  arrays = {
    path: np.zeros(shape.shape, shape.dtype)
    for path, shape in layouts.flatten(decoder.parameter_shapes(config)).items()
  }
  for name, tensor in expected.items():
    tensor.write(arrays[tensor.path], np.asarray(state_dict[name]))
  return layouts.unflatten(arrays)
