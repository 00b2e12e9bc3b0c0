"""State dicts of PhiForCausalLM in memory, from and to our parameters.

For models that fit into memory twice; `from_hf` and `to_hf` stream files.
"""

from collections.abc import Mapping

import jax
import numpy as np

from phi1_jax import InputError
from phi1_jax.interop import layouts
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig


def to_hf(params: Mapping, config: ModelConfig) -> dict[str, np.ndarray]:
  """Return our parameters, a tree of plain arrays, as a state dict; dtype kept."""
  arrays = layouts.flatten(jax.tree.map(np.asarray, params))
  tensors = layouts.PHI.tensors(config).items()
  return {name: tensor.read(arrays[tensor.path]) for name, tensor in tensors}


def from_hf(state_dict: Mapping[str, np.ndarray], config: ModelConfig) -> dict:
  """Return a state dict as our parameters, NumPy of `config.param_dtype`.

  Raises:
    InputError: tensors are missing, unknown, or of another shape.
  """
  expected = layouts.PHI.tensors(config)
  given = {name: tuple(np.shape(array)) for name, array in state_dict.items()}
  if lines := layouts.misfits(expected, given):
    raise InputError(
      "\n  ".join(["state dict: expected the tensors of phi for this model:", *lines])
    )
  arrays = {
    path: np.zeros(shape.shape, shape.dtype)
    for path, shape in layouts.flatten(decoder.parameter_shapes(config)).items()
  }
  for name, tensor in expected.items():
    tensor.write(arrays[tensor.path], np.asarray(state_dict[name]))
  return layouts.unflatten(arrays)
