"""Tiny models of transformers, and the folders that older layouts would be."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
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


def codegen(heads: int = 8, rotary_dim: int = 4) -> CodeGenForCausalLM:
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


def save_older(model: PhiForCausalLM, folder: Path, layout: str) -> Path:
  """The model as it would have been published in 2023.

  Written by hand from what those files looked like, not from our tables: q, k and v
  one below the other in Wqkv, one list of numbered layers or a `transformer`.
  """
  state, config = model.state_dict(), model.config
  mixformer = layout.startswith("mixformer")
  last = config.num_hidden_layers + 1
  up, down = ("fc_in", "fc_out") if "fc_in" in layout else ("fc1", "fc2")
  renamed = {
    "model.embed_tokens.": "layers.0.wte." if mixformer else "transformer.embd.wte.",
    "model.final_layernorm.": f"layers.{last}.ln." if mixformer else "lm_head.ln.",
    "lm_head.": f"layers.{last}.linear." if mixformer else "lm_head.linear.",
  }
  old = {}
  for name, tensor in state.items():
    for start, theirs in renamed.items():
      if name.startswith(start):
        old[name.replace(start, theirs)] = tensor
  for i in range(config.num_hidden_layers):
    block = f"layers.{i + 1}." if mixformer else f"transformer.h.{i}."
    theirs = f"model.layers.{i}."
    for leaf in ("weight", "bias"):
      parts = [state[f"{theirs}self_attn.{x}_proj.{leaf}"] for x in "qkv"]
      old[f"{block}mixer.Wqkv.{leaf}"] = torch.cat(parts)
      old[f"{block}mixer.out_proj.{leaf}"] = state[f"{theirs}self_attn.dense.{leaf}"]
      old[f"{block}ln.{leaf}"] = state[f"{theirs}input_layernorm.{leaf}"]
      old[f"{block}mlp.{up}.{leaf}"] = state[f"{theirs}mlp.fc1.{leaf}"]
      old[f"{block}mlp.{down}.{leaf}"] = state[f"{theirs}mlp.fc2.{leaf}"]
    old[f"{block}mixer.rotary_emb.inv_freq"] = torch.ones(3)
  folder.mkdir()
  contiguous = {name: x.contiguous() for name, x in old.items()}
  save_file(contiguous, folder / "model.safetensors")
  # What the GPT-2-like names of those files are in today's.
  names = {"n_embd": "hidden_size", "n_head": "num_attention_heads"}
  names |= {"n_inner": "intermediate_size", "n_layer": "num_hidden_layers"}
  names |= {"n_positions": "max_position_embeddings", "vocab_size": "vocab_size"}
  names |= {"layer_norm_epsilon": "layer_norm_eps"}
  content = {old: getattr(config, new) for old, new in names.items()}
  content |= {
    "model_type": "mixformer-sequential" if mixformer else "phi-msft",
    "activation_function": "gelu_new",
    "architecture": {"block_cls": "parallel", "mixer": {}, "mlp": {"mlp_cls": "mlp"}},
    "initializer_range": config.initializer_range,
    "rotary_dim": SIZES[4],
    "tie_word_embeddings": False,
  }
  (folder / "config.json").write_text(json.dumps(content))
  small_tokenizer().save(folder / "tokenizer.json")
  return folder


@pytest.fixture(scope="session")
def model():
  return phi()


@pytest.fixture(scope="session")
def twins():
  """What this file defines, which tests cannot import."""
  return types.SimpleNamespace(**globals())
