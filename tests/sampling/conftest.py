"""A tiny random model and a small tokenizer, laid out on one or more devices."""

import jax
import pytest
from flax import linen as nn

from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder, abstract_parameters
from phi1_jax.parallel import mesh as meshes
from phi1_jax.sampling.checkpoint import Loaded
from phi1_jax.text import tokenizer as tokenizers

# Sharp enough logits that a random model's texts differ from prompt to prompt.
CONFIG = ModelConfig(
  *(320, 2, 4, 8, 4, 24, 40, 128), initializer_range=0.3, dtype="float32"
)


@pytest.fixture(scope="session")
def tokenizer():
  return tokenizers.train(["def f(x):\n  return x + 1\n" * 20, "abcdefg hij"], 300)


@pytest.fixture(scope="session")
def params():
  tokens_BT = jax.numpy.zeros((1, 1), int)
  return nn.unbox(jax.jit(Decoder(CONFIG).init)(jax.random.key(3), tokens_BT))["params"]


@pytest.fixture(scope="session")
def load(tokenizer, params):
  """load(data=1, fsdp=1, tensor=1) gives the model on that many devices."""

  def make(data: int = 1, fsdp: int = 1, tensor: int = 1) -> Loaded:
    devices = jax.devices()[: data * fsdp * tensor]
    mesh = meshes.make_mesh(meshes.MeshConfig(data, fsdp, tensor), devices)
    places = jax.tree.map(lambda x: x.sharding, abstract_parameters(CONFIG, mesh))
    placed = jax.device_put(params, places)
    return Loaded(CONFIG, placed, tokenizer, mesh, "digest")

  return make
