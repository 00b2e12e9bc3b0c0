import numpy as np
import pytest

from phi1_jax.interop import layouts
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig

# vocabulary, layers, heads, head_dim, rotary_dim, embed, mlp, length
CONFIG = ModelConfig(31, 3, 4, 11, 6, 13, 17, 5)
PHI1 = ModelConfig(51200, 24, 32, 64, 32, 2048, 8192, 2048)
EVERY = pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda x: x.name)


def numbered(config):
  """Parameters each of which is another number, from 1."""
  arrays, count = {}, 1
  for path, leaf in layouts.flatten(decoder.parameter_shapes(config)).items():
    size = int(np.prod(leaf.shape))
    arrays[path] = np.arange(count, count + size).reshape(leaf.shape)
    count += size
  return arrays


def biasless(path):
  return path.startswith("layers/attention/") and path.endswith("bias")


@EVERY
def test_every_parameter_has_one_place(layout):
  arrays = numbered(CONFIG)
  tensors = layout.tensors(CONFIG)
  read = {name: tensor.read(arrays[tensor.path]) for name, tensor in tensors.items()}
  held = np.sort(np.concatenate([x.reshape(-1) for x in read.values()]))
  wanted = [
    x for path, x in arrays.items() if not (layout.is_codegen and biasless(path))
  ]
  np.testing.assert_array_equal(held, np.concatenate([x.reshape(-1) for x in wanted]))
  for name, tensor in tensors.items():
    assert read[name].shape == tensor.shape, name
    assert read[name].flags.c_contiguous


@EVERY
def test_a_layout_is_detected_by_its_names(layout):
  names = set(layout.tensors(PHI1))
  assert layouts.detect(names, layout.model_type, PHI1) is layout


def test_shapes_of_phi1_are_the_twins(twins):
  import torch

  with torch.device("meta"):
    theirs = twins.phi(PHI1).state_dict()
  ours = {name: tensor.shape for name, tensor in layouts.PHI.tensors(PHI1).items()}
  assert ours == {name: tuple(x.shape) for name, x in theirs.items()}


def test_codegens_order_by_hand():
  """Four heads of 4 dims, one to a block; 2 of the dims are rotated, then 4.

  Theirs, block 0: q 0..3, v 4..7, k 8..11; block 1 begins at 12.
  """
  config = ModelConfig(31, 1, 4, 4, 2, 16, 17, 5)
  codegen = layouts.LAYOUTS[-1]
  name = "transformer.h.0.attn.qkv_proj.weight"
  order = codegen.tensors(config)[name].order.reshape(3, 4, 4)
  assert order[:, :2].tolist() == [
    [[0, 1, 2, 3], [12, 13, 14, 15]],
    [[8, 9, 10, 11], [20, 21, 22, 23]],
    [[4, 5, 6, 7], [16, 17, 18, 19]],
  ]
  config = ModelConfig(31, 1, 4, 4, 4, 16, 17, 5)
  order = codegen.tensors(config)[name].order.reshape(3, 4, 4)
  assert order[0, 0].tolist() == [0, 2, 1, 3]  # pairs (0, 1), (2, 3) become (0, 2), ..
  assert order[1, 1].tolist() == [20, 22, 21, 23]
  assert order[2, 0].tolist() == [4, 5, 6, 7]  # values are not rotated


def test_buffers():
  for name in ("mixer.rotary_emb.inv_freq", "attn.causal_mask", "attn.bias"):
    assert layouts.is_buffer(f"transformer.h.3.{name}")
  for name in ("self_attn.dense.bias", "mixer.Wqkv.bias"):
    assert not layouts.is_buffer(f"layers.3.{name}")
