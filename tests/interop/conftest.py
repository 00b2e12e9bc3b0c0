"""Tiny models of transformers."""

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CodeGenConfig, CodeGenForCausalLM, PhiConfig, PhiForCausalLM

from phi1_jax.interop import hf_config
from phi1_jax.model.config import ModelConfig
from phi1_jax.text import tokenizer as text_tokenizer

SIZES = (320, 3, 4, 12, 6, 48, 40, 24)  # vocabulary .. length; 12 · 4 = 48
CONFIG = ModelConfig(
  *SIZES, 0.0, 0.0, dtype="float32", rope_base=10000.0, initializer_range=0.2
)


def phi(config: ModelConfig = CONFIG) -> PhiForCausalLM:
  """A PhiForCausalLM of random weights, biases and norms included."""
  torch.manual_seed(0)
  content = hf_config.from_model_config(config, 0, "float32")
  content |= {"resid_pdrop": 0.0, "attention_dropout": 0.0}
  return _shaken(PhiForCausalLM(PhiConfig.from_dict(content)))


def codegen(heads: int, rotary_dim: int) -> CodeGenForCausalLM:
  """A CodeGenForCausalLM of random weights."""
  torch.manual_seed(1)
  sizes = {"vocab_size": 320, "n_positions": 24, "n_ctx": 24, "n_embd": 6 * heads}
  sizes |= {"n_layer": 2, "n_head": heads, "rotary_dim": rotary_dim}
  ids = {"bos_token_id": 0, "eos_token_id": 0}
  config = CodeGenConfig(**sizes, **ids, initializer_range=0.2)
  return _shaken(CodeGenForCausalLM(config))


def _shaken(model):
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if name.endswith("bias") or "ln" in name or "norm" in name:
        parameter += 0.2 * torch.randn_like(parameter)
  return model.eval()


def tokens(rows: int = 3) -> np.ndarray:
  """Token ids for any of the models."""
  return np.random.default_rng(1).integers(0, 320, (rows, 24))


def logits(model) -> np.ndarray:
  """What the model makes of `tokens`."""
  with torch.no_grad():
    return model(torch.tensor(tokens())).logits.numpy()


def save(model, folder: Path, **options) -> Path:
  """`save_pretrained`, with a small tokenizer beside it."""
  model.save_pretrained(folder, **options)
  small_tokenizer().save(folder / "tokenizer.json")
  return folder


def small_tokenizer() -> text_tokenizer.Tokenizer:
  """One with 300 ids."""
  text = "def add(left, right):\n    return left + right\n"
  return text_tokenizer.train([text], 300)


@pytest.fixture(scope="session")
def model():
  return phi()


@pytest.fixture(scope="session")
def twins():
  """What this file defines, which tests cannot import."""
  return types.SimpleNamespace(**globals())
