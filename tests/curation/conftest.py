"""A tiny random model's checkpoint; and the server of tests/llm."""

import dataclasses

import jax
import pytest
from flax import linen as nn

from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder
from phi1_jax.text import tokenizer as tokenizers
from tests.llm.conftest import serve, thread_sender  # noqa: F401

SIZES = (320, 2, 8, 8, 4, 24, 40, 128)
MODEL = ModelConfig(*SIZES, initializer_range=0.3, dtype="float32")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
  """A work directory with a random model: its embeddings still tell texts apart."""
  folder = tmp_path_factory.mktemp("model")
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n", "import os\n"] * 9, 300)
  tokenizer.save(folder / tokenizers.FILE_NAME)
  init = jax.jit(Decoder(MODEL).init)
  params = nn.unbox(init(jax.random.key(0), jax.numpy.zeros((1, 1), int)))["params"]
  config = {"model": dataclasses.asdict(MODEL)}
  meta = {"config": config, "tokenizer": tokenizer.digest, "tokens_seen": 0}
  with Checkpoints(folder / "checkpoints", CheckpointConfig()) as checkpoints:
    checkpoints.save(1, {"params": params}, meta)
  return folder
