"""Tables of names: every parameter has one place in every layout."""

import numpy as np
import pytest
import torch

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
    biases = {path for path in arrays if path.startswith("layers/attention/")}
    for path in biases & {path for path in arrays if path.endswith("bias")}:
      del arrays[path]
  held = np.sort(np.concatenate([x.reshape(-1) for x in read.values()]))
  wanted = np.concatenate([x.reshape(-1) for x in arrays.values()])
  np.testing.assert_array_equal(held, wanted)
  for name, tensor in tensors.items():
    assert read[name].shape == tensor.shape, name
    assert read[name].flags.c_contiguous
  # A layout is detected by its names.
  names = set(layout.tensors(PHI1))
  assert layouts.detect(names, layout.model_type, PHI1) is layout


def test_shapes_of_phi1_are_the_twins(twins):
  with torch.device("meta"):
    theirs = twins.phi(PHI1).state_dict()
  ours = {name: tensor.shape for name, tensor in layouts.PHI.tensors(PHI1).items()}
  assert ours == {name: tuple(x.shape) for name, x in theirs.items()}


def test_codegens_order_by_hand():
  """Four heads of 4 dims, one to a block; 2 of the dims are rotated, then 4.

  Theirs, block 0: q 0..3, v 4..7, k 8..11; block 1 begins at 12.
  """

  def order(rotary_dim):
    config = ModelConfig(31, 1, 4, 4, rotary_dim, 16, 17, 5)
    tensors = layouts.LAYOUTS[-1].tensors(config)
    return tensors["transformer.h.0.attn.qkv_proj.weight"].order.reshape(3, 4, 4)

  assert order(2)[:, :2].tolist() == [
    [[0, 1, 2, 3], [12, 13, 14, 15]],
    [[8, 9, 10, 11], [20, 21, 22, 23]],
    [[4, 5, 6, 7], [16, 17, 18, 19]],
  ]
  rotated = order(4)
  assert rotated[0, 0].tolist() == [0, 2, 1, 3]  # (0, 1), (2, 3) become (0, 2), ..
  assert rotated[1, 1].tolist() == [20, 22, 21, 23]
  assert rotated[2, 0].tolist() == [4, 5, 6, 7]  # values are not rotated


@pytest.mark.parametrize(
  ("name", "buffer"),
  [
    ("transformer.h.3.mixer.rotary_emb.inv_freq", True),
    ("transformer.h.3.attn.causal_mask", True),
    ("transformer.h.3.attn.bias", True),
    ("layers.3.self_attn.dense.bias", False),
    ("layers.3.mixer.Wqkv.bias", False),
  ],
)
def test_buffers(name, buffer):
  assert layouts.is_buffer(name) == buffer
