"""What a config.json means as a model of ours, and what it may not ask for."""

import dataclasses
from pathlib import Path

import pytest
from transformers import CodeGenConfig, PhiConfig

from phi1_jax import InputError
from phi1_jax.interop import hf_config
from phi1_jax.model.config import ModelConfig

PHI1 = ModelConfig(51200, 24, 32, 64, 32, 2048, 8192, 2048)
CODEGEN = {"model_type": "codegen", "vocab_size": 51200, "n_positions": 2048}
CODEGEN |= {"n_ctx": 2048, "n_embd": 1024, "n_layer": 20, "n_head": 16, "n_inner": None}
CODEGEN |= {"rotary_dim": 32, "activation_function": "gelu_new"}
CODEGEN |= {"layer_norm_epsilon": 1e-05, "scale_attn_weights": True}
MSFT = {**CODEGEN, "model_type": "phi-msft"}
# The released phi-1's, of early 2024 (PhiConfig of transformers 4).
PHI = {"model_type": "phi", "vocab_size": 51200, "hidden_size": 2048}
PHI |= {"intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32}
PHI |= {"num_key_value_heads": None, "max_position_embeddings": 2048}
PHI |= {"hidden_act": "gelu_new", "partial_rotary_factor": 0.5, "rope_theta": 10000.0}
PHI |= {"rope_scaling": None, "qk_layernorm": False, "layer_norm_eps": 1e-05}
PHI |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attention_dropout": 0.0}
PHI |= {"initializer_range": 0.02, "tie_word_embeddings": False}


def ours(content):
  return hf_config.to_model_config(content, Path("config.json"), "float32")


def test_the_released_config():
  no_dropout = dataclasses.replace(PHI1, dropout_rate=0.0, attention_dropout_rate=0.0)
  assert ours(PHI) == no_dropout
  assert ours(PHI).num_parameters() == 1_418_270_720


def test_codegen_and_its_other_names_of_sizes():
  config = ours(CODEGEN)
  assert config.num_parameters() == 356_794_368
  assert (config.head_dim, config.rotary_dim, config.mlp_dim) == (64, 32, 4096)
  assert config == ours({**CODEGEN, **CodeGenConfig(**CODEGEN).to_dict()})
  names = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers"}
  names |= {"n_head": "num_attention_heads", "n_positions": "max_position_embeddings"}
  content = {names.get(name, name): value for name, value in CODEGEN.items()}
  theirs = CodeGenConfig.from_dict(content)
  assert (theirs.n_embd, theirs.n_layer, theirs.n_positions) == (1024, 20, 2048)
  assert ours(content) == config


@pytest.mark.parametrize(
  "config",
  [
    dataclasses.replace(PHI1, rope_base=500.0, dropout_rate=0.25),
    ModelConfig(97, 3, 2, 11, 6, 13, 31, 19, layer_norm_epsilon=1e-6),
  ],
)
def test_round_trip_through_transformers(config):
  content = hf_config.from_model_config(config, 96, "float16")
  assert ours(content) == config
  theirs = PhiConfig.from_dict(content)
  assert ours(theirs.to_dict()) == config
  assert (theirs.eos_token_id, str(theirs.dtype)) == (96, "torch.float16")
  assert theirs.rope_parameters["rope_theta"] == config.rope_base
  older = {name: x for name, x in content.items() if name != "rope_parameters"}
  assert ours(older) == config


def test_the_rotary_dim_survives_its_division():
  for head_dim in range(2, 130):
    for rotary_dim in range(2, head_dim + 1, 2):
      config = ModelConfig(97, 1, 1, head_dim, rotary_dim, head_dim, 3, 5)
      content = hf_config.from_model_config(config, 0, "float32")
      factor = content["rope_parameters"]["partial_rotary_factor"]
      assert int(head_dim * factor) == rotary_dim
      assert factor <= 1


def rope(**parameters):
  return {"rope_parameters": parameters}


@pytest.mark.parametrize(
  ("content", "change", "named"),
  [
    (PHI, {"hidden_act": "relu"}, "hidden_act: got 'relu', expected 'gelu_new'"),
    (PHI, {"qk_layernorm": True}, "qk_layernorm: got True, expected False"),
    (PHI, {"num_key_value_heads": 8}, "num_key_value_heads: got 8, expected 32"),
    (PHI, {"quantization_config": {"bits": 4}}, "quantization_config"),
    (PHI, {"per_layer_config": {"0": {}}}, "per_layer_config: got"),
    (PHI, {"hidden_size": None}, "hidden_size: missing"),
    (PHI, {"hidden_size": "2048"}, "a setting of the wrong type"),
    (PHI, {"partial_rotary_factor": 0.3}, "rotary_dim: got 19"),
    (PHI, {"rope_scaling": {"type": "linear"}}, "type: got 'linear'"),
    (PHI, rope(rope_theta=5e3), "rope_theta=10000.0 and rope_parameters.rope_theta"),
    (PHI, rope(partial_rotary_factor=0.25), "rotary_factor=0.5 and rope_parameters"),
    (PHI, rope(full={"rope_theta": 1e4}), r"rope_parameters\.full: got"),
    (PHI | rope(rope_theta=1e4), {"rope_scaling": {"type": "default"}}, "rope_scaling"),
    (CODEGEN, {"tie_word_embeddings": True}, "tie_word_embeddings: got True"),
    (CODEGEN, {"n_head": 10}, "n_head: got 10, expected a multiple of 4"),
    (CODEGEN, {"rotary_dim": None}, "rotary_dim: missing"),
    (CODEGEN, {"hidden_size": 512}, "n_embd=1024 and hidden_size=512"),
    (CODEGEN, {"head_dim": 32}, "head_dim: got 32, expected n_embd / n_head = 64"),
    (MSFT, {"architecture": {"block_cls": "x"}}, "block_cls: got 'x', expected 'par"),
    (MSFT, {"architecture": [{"mixer": {"a": 1}}]}, r"mixer: got {'a': 1}"),
  ],
)
def test_refuses_what_the_model_does_not_have(content, change, named):
  with pytest.raises(InputError, match=f"config.json: (?s:.*){named}"):
    ours({**content, **change})


@pytest.mark.parametrize(
  ("text", "named"),
  [
    (None, "No such file"),
    ("{", "not JSON"),
    ("[]", "model_type: got None, expected one of phi, phi-msft"),
    ('{"model_type": "phi", "layer_norm_eps": NaN}', "NaN is not a number"),
  ],
)
def test_files_that_do_not_read(tmp_path, text, named):
  if text is not None:
    (tmp_path / "config.json").write_text(text)
  with pytest.raises(InputError, match=named):
    hf_config.read(tmp_path)


@pytest.mark.parametrize(
  "spelling",
  [
    {"partial_rotary_factor": 0.35, "rope_theta": 300.0},
    {"rope_parameters": {"rope_theta": 300.0}, "partial_rotary_factor": 0.35},
    {"rope_scaling": {"type": "default", "partial_rotary_factor": 0.35}},
    {"rope_parameters": None, "hidden_act": "gelu_pytorch_tanh"},
  ],
)
def test_every_spelling_means_what_transformers_reads(spelling):
  rotary = ("partial_rotary_factor", "rope_theta", "rope_scaling")
  content = {name: x for name, x in PHI.items() if name not in rotary} | spelling
  theirs = PhiConfig.from_dict(content).rope_parameters
  assert ours(content).rope_base == theirs["rope_theta"]
  assert ours(content).rotary_dim == int(64 * theirs["partial_rotary_factor"])
