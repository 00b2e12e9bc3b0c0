"""Tables of names: every parameter has one place in every layout."""

import numpy as np
import pytest

from phi1_jax.interop import layouts
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig

# vocabulary, layers, heads, head_dim, rotary_dim, embed, mlp, length
CONFIG = ModelConfig(31, 3, 4, 11, 6, 13, 17, 5)
PHI1 = ModelConfig(51200, 24, 32, 64, 32, 2048, 8192, 2048)


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda x: x.name)
def test_every_parameter_has_one_place(layout):
  arrays, count = {}, 1  # each of whose numbers is another one
  for path, leaf in layouts.flatten(decoder.parameter_shapes(CONFIG)).items():
    size = int(np.prod(leaf.shape))
    arrays[path] = np.arange(count, count + size).reshape(leaf.shape)
    count += size
  tensors = layout.tensors(CONFIG)
  read = {name: tensor.read(arrays[tensor.path]) for name, tensor in tensors.items()}
  if layout.is_codegen:  # its attention has no biases
    attention = [path for path in arrays if path.startswith("layers/attention/")]
    for path in attention:
      if path.endswith("bias"):
        del arrays[path]
  held = np.sort(np.concatenate([x.reshape(-1) for x in read.values()]))
  wanted = np.concatenate([x.reshape(-1) for x in arrays.values()])
  np.testing.assert_array_equal(held, wanted)
  for name, tensor in tensors.items():
    assert read[name].shape == tensor.shape, name
    assert read[name].flags.c_contiguous
    assert not layouts.is_buffer(name)
  # A layout is detected by its names.
  names = set(layout.tensors(PHI1))
  assert layouts.detect(names, layout.model_type, PHI1) is layout
