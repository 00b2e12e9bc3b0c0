"""Hugging Face's config.json to `ModelConfig` and back.

What a config.json asks for and this model does not have is refused by name.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.model.config import ModelConfig

FILE_NAME = "config.json"
# ModelConfig's field: the key in config.json. Those of `_DEFAULTS` may be missing.
_PHI = {
  "vocabulary_size": "vocab_size",
  "num_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
  "embed_dim": "hidden_size",
  "mlp_dim": "intermediate_size",
  "max_length": "max_position_embeddings",
  "dropout_rate": "resid_pdrop",
  "attention_dropout_rate": "attention_dropout",
  "layer_norm_epsilon": "layer_norm_eps",
  "initializer_range": "initializer_range",
}
# CodeGen's keys, which the older phi layouts share.
_GPT = {
  "vocabulary_size": "vocab_size",
  "num_layers": "n_layer",
  "num_heads": "n_head",
  "rotary_dim": "rotary_dim",
  "embed_dim": "n_embd",
  "mlp_dim": "n_inner",
  "max_length": "n_positions",
  "dropout_rate": "resid_pdrop",
  "attention_dropout_rate": "attn_pdrop",
  "layer_norm_epsilon": "layer_norm_epsilon",
  "initializer_range": "initializer_range",
}
_KEYS = {
  "phi": _PHI,
  "phi-msft": _GPT,
  "mixformer-sequential": _GPT,
  "codegen": _GPT,
}
_DEFAULTS = {  # transformers'; it leaves out what has them
  "dropout_rate": 0.0,
  "attention_dropout_rate": 0.0,
  "layer_norm_epsilon": 1e-5,
  "initializer_range": 0.02,
}


def read(folder: Path) -> dict[str, Any]:
  """The folder's config.json, of a model type that can be read.

  Raises:
    InputError: no such file, no JSON object, or another model type.
  """
  path = folder / FILE_NAME
  try:
    content = json.loads(path.read_text())
  except OSError as error:
    raise InputError(
      f"{path}: {error.strerror}; expected the model's {FILE_NAME} beside its tensors"
    ) from None
  except ValueError as error:
    raise InputError(f"{path}: not JSON ({error})") from None
  model_type = content.get("model_type") if isinstance(content, dict) else None
  if model_type not in _KEYS:
    raise InputError(
      f"{path}: model_type: got {model_type!r}, expected one of {', '.join(_KEYS)}"
    )
  return content


def to_model_config(
  content: Mapping[str, Any], path: Path, param_dtype: str
) -> ModelConfig:
  """The model that a config.json describes.

  Args:
    content: from `read`.
    path: where it is from, for errors.
    param_dtype: dtype of the parameters, which config.json does not decide.

  Raises:
    InputError: a key is missing, or asks for what this model does not have.
  """
  keys = _KEYS[content["model_type"]]
  if lines := [*_missing(content, keys), *_unsupported(content)]:
    raise InputError("\n  ".join([f"{path}: not a model that can be read:", *lines]))
  fields = {
    field: content.get(key, _DEFAULTS.get(field)) for field, key in keys.items()
  }
  try:
    head_dim = content.get("head_dim") or fields["embed_dim"] // fields["num_heads"]
    rope = content.get("rope_parameters") or content
    if keys is _PHI:
      factor = rope.get("partial_rotary_factor", 0.5)  # transformers' default
      fields["rotary_dim"] = int(head_dim * factor)
      fields["rope_base"] = float(rope.get("rope_theta", 10000.0))
    elif fields["mlp_dim"] is None:
      fields["mlp_dim"] = 4 * fields["embed_dim"]
    if content["model_type"] == "codegen" and fields["num_heads"] % 4:
      raise InputError(f"n_head: got {fields['num_heads']}, expected a multiple of 4")
    return ModelConfig(head_dim=head_dim, param_dtype=param_dtype, **fields)
  except InputError as error:
    raise InputError(f"{path}: {error}") from None
  except (TypeError, ZeroDivisionError, AttributeError, ValueError) as error:
    raise InputError(f"{path}: sizes that are no numbers ({error})") from None


def from_model_config(config: ModelConfig, eos_id: int, dtype: str) -> dict[str, Any]:
  """The config.json of a PhiForCausalLM.

  Args:
    config: our model.
    eos_id: the tokenizer's id of <|endoftext|>, which begins documents too.
    dtype: that of the tensors, e.g. "float16".
  """
  values = dataclasses.asdict(config)
  factor = config.rotary_dim / config.head_dim
  if (
    int(config.head_dim * factor) != config.rotary_dim
  ):  # it will be cut off, not rounded
    factor = math.nextafter(factor, 1.0)
  content = {
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi",
    **{key: values[field] for field, key in _PHI.items()},
    "embd_pdrop": 0.0,
    "hidden_act": "gelu_new",
    "num_key_value_heads": config.num_heads,
    "qk_layernorm": False,
    "tie_word_embeddings": False,
    "use_cache": True,
    # transformers 4 reads the first two, 5 the third.
    "partial_rotary_factor": factor,
    "rope_theta": config.rope_base,
    "rope_parameters": {
      "rope_type": "default",
      "rope_theta": config.rope_base,
      "partial_rotary_factor": factor,
    },
    "bos_token_id": eos_id,
    "eos_token_id": eos_id,
    "torch_dtype": dtype,
  }
  if config.head_dim * config.num_heads != config.embed_dim:
    content["head_dim"] = config.head_dim
  return content


def _missing(content: Mapping[str, Any], keys: Mapping[str, str]) -> list[str]:
  optional = {*_DEFAULTS, "mlp_dim"} if keys is _GPT else _DEFAULTS.keys()
  return [
    f"{key}: missing"
    for field, key in keys.items()
    if field not in optional and content.get(key) is None
  ]


def _unsupported(content: Mapping[str, Any]) -> list[str]:
  """One line for everything that would make another function of the same tensors."""
  model_type = content["model_type"]
  heads = content.get(_KEYS[model_type]["num_heads"])
  activation = "hidden_act" if model_type == "phi" else "activation_function"
  rope = content.get("rope_parameters") or {}
  scaling = content.get("rope_scaling") or {}
  block = (content.get("architecture") or {}).get("block_cls", "parallel")
  checks = [
    (activation, content.get(activation, "gelu_new"), "gelu_new"),
    ("qk_layernorm", content.get("qk_layernorm") or False, False),
    ("tie_word_embeddings", content.get("tie_word_embeddings") or False, False),
    ("quantization_config", content.get("quantization_config"), None),
    ("num_key_value_heads", content.get("num_key_value_heads") or heads, heads),
    ("n_head_kv", content.get("n_head_kv") or heads, heads),
    ("rope_parameters.rope_type", rope.get("rope_type", "default"), "default"),
    ("rope_scaling", scaling.get("rope_type", scaling.get("type")), None),
    ("architecture.block_cls", block, "parallel"),
    ("scale_attn_weights", content.get("scale_attn_weights", True), True),
  ]
  return [
    f"{name}: got {got!r}, expected {expected!r}"
    for name, got, expected in checks
    if got != expected
  ]
