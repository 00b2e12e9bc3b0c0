"""Conversion of Hugging Face's config.json to `ModelConfig` and back.

transformers reads the rotary settings at the top level, in `rope_parameters` and in
`rope_scaling`, and CodeGen's sizes under Phi's names too. So is it here. Spellings that
disagree, and settings that this model does not have, are refused by name.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.model import DType
from phi1_jax.model.config import ModelConfig
from phi1_jax.storage import AnyPath

FILE_NAME = "config.json"
# Field of ModelConfig -> its spellings in config.json; the first one is written.
_PHI = {
  "vocabulary_size": ("vocab_size",),
  "num_layers": ("num_hidden_layers",),
  "num_heads": ("num_attention_heads",),
  "embed_dim": ("hidden_size",),
  "mlp_dim": ("intermediate_size",),
  "max_length": ("max_position_embeddings",),
  "dropout_rate": ("resid_pdrop",),
  "attention_dropout_rate": ("attention_dropout",),
  "layer_norm_epsilon": ("layer_norm_eps",),
  "initializer_range": ("initializer_range",),
}
# CodeGen's and the older phi layouts'.
_GPT = {
  **{name: _PHI[name] for name in ("vocabulary_size", "dropout_rate")},
  "initializer_range": ("initializer_range",),
  "num_layers": ("n_layer", "num_hidden_layers"),
  "num_heads": ("n_head", "num_attention_heads"),
  "rotary_dim": ("rotary_dim",),
  "embed_dim": ("n_embd", "hidden_size"),
  "mlp_dim": ("n_inner",),
  "max_length": ("n_positions", "max_position_embeddings"),
  "attention_dropout_rate": ("attn_pdrop",),
  "layer_norm_epsilon": ("layer_norm_epsilon",),
}
_ROPE_DICTS = ("rope_parameters", "rope_scaling")
_KEYS = {
  "phi": _PHI,
  **dict.fromkeys(("phi-msft", "mixformer-sequential", "codegen"), _GPT),
}
_DEFAULTS = {  # transformers', where config.json says nothing
  "dropout_rate": 0.0,
  "attention_dropout_rate": 0.0,
  "layer_norm_epsilon": 1e-5,
  "initializer_range": 0.02,
}
# Names of one activation: GELU's approximation by tanh.
_ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")

_Check = tuple[str, Any, tuple[Any, ...]]  # a setting, its value, supported values


def read(folder: AnyPath) -> dict[str, Any]:
  """Return the folder's config.json; refuse other model types than phi and CodeGen."""
  path = folder / FILE_NAME
  try:
    content = json.loads(storage.read_bytes(path), parse_constant=_refuse_constant)
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
  content: Mapping[str, Any], path: AnyPath, param_dtype: DType
) -> ModelConfig:
  """Return the model that a config.json describes.

  Args:
    content: from `read`.
    path: its path, for errors.
    param_dtype: dtype of our parameters.

  Raises:
    InputError: a setting is missing, not supported, or contradicts another one.
  """
  try:
    return _model_config(content, param_dtype)
  except InputError as error:
    raise InputError(f"{path}: {error}") from None
  except (TypeError, ZeroDivisionError, AttributeError, ValueError) as error:
    raise InputError(f"{path}: a setting of the wrong type ({error})") from None


def _model_config(content: Mapping[str, Any], param_dtype: DType) -> ModelConfig:
  keys = _KEYS[content["model_type"]]
  wrong: list[str] = []
  settings = _flat(content, wrong)
  fields = {}
  for field, names in keys.items():
    given = {name: settings[name] for name in names if name in settings}
    values = [*given.values(), _DEFAULTS.get(field)]
    if any(value != values[0] for value in values[:-1]):
      wrong.append(_disagree(given))
    fields[field] = values[0]
  head_dim = settings.get("head_dim")
  wrong += [
    f"{keys[field][0]}: missing"
    for field, value in fields.items()
    if value is None and not (keys is _GPT and field == "mlp_dim")
  ]
  wrong += _unsupported(content, settings, fields["num_heads"])
  if wrong:
    raise InputError("\n  ".join(["not a model that can be read:", *wrong]))
  split = fields["embed_dim"] // fields["num_heads"]
  if keys is _PHI:
    factor = settings.get("partial_rotary_factor", 0.5)  # transformers' default
    fields["rotary_dim"] = int((head_dim or split) * factor)
    fields["rope_base"] = float(settings.get("rope_theta", 10000.0))
    fields["tie_embeddings"] = bool(settings.get("tie_word_embeddings"))
  else:
    fields["mlp_dim"] = fields["mlp_dim"] or 4 * fields["embed_dim"]
    if head_dim not in (None, split):
      raise InputError(f"head_dim: got {head_dim}, expected n_embd / n_head = {split}")
  if content["model_type"] == "codegen" and fields["num_heads"] % 4:
    raise InputError(f"n_head: got {fields['num_heads']}, expected a multiple of 4")
  return ModelConfig(head_dim=head_dim or split, param_dtype=param_dtype, **fields)


def from_model_config(config: ModelConfig, eos_id: int, dtype: str) -> dict[str, Any]:
  """Return the config.json of a PhiForCausalLM.

  Args:
    config: our model.
    eos_id: the tokenizer's id of <|endoftext|>, which begins documents too.
    dtype: dtype of the tensors, e.g. "float16".
  """
  values = dataclasses.asdict(config)
  factor = config.rotary_dim / config.head_dim
  if int(config.head_dim * factor) != config.rotary_dim:  # readers round down
    factor = math.nextafter(factor, 1.0)
  rotary = {"rope_theta": config.rope_base, "partial_rotary_factor": factor}
  content = {
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi",
    **{names[0]: values[field] for field, names in _PHI.items()},
    "embd_pdrop": 0.0,
    "hidden_act": "gelu_new",
    "num_key_value_heads": config.num_heads,
    "qk_layernorm": False,
    "tie_word_embeddings": config.tie_embeddings,
    "use_cache": True,
    **rotary,  # for transformers 4
    "rope_parameters": {"rope_type": "default", **rotary},  # for transformers 5
    "bos_token_id": eos_id,
    "eos_token_id": eos_id,
    "torch_dtype": dtype,
  }
  if config.head_dim * config.num_heads != config.embed_dim:
    content["head_dim"] = config.head_dim
  return content


def _refuse_constant(name: str) -> None:
  raise ValueError(f"{name} is not a number")


def _flat(content: Mapping[str, Any], wrong: list[str]) -> dict[str, Any]:
  """Return the settings, those of the rotary dicts included; None counts as not given.

  Adds a line to `wrong` for what contradicts, and for dicts in the rotary dicts:
  transformers keeps one dict per kind of layer there.
  """
  first, second = (content.get(name) or {} for name in _ROPE_DICTS)
  if first and second and first != second:  # transformers would read the second only
    wrong.append(f"rope_scaling: got {second!r}, expected {first!r}")
  settings = {name: value for name, value in content.items() if value is not None}
  for place in _ROPE_DICTS:
    for key, value in (content.get(place) or {}).items():
      if isinstance(value, Mapping):
        wrong.append(f"{place}.{key}: got {value!r}, expected a number")
      elif value is not None and settings.setdefault(key, value) != value:
        wrong.append(_disagree({key: settings[key], f"{place}.{key}": value}))
  return settings


def _disagree(given: Mapping[str, Any]) -> str:
  both = " and ".join(f"{name}={value!r}" for name, value in given.items())
  return f"got {both}, expected one value; delete the wrong one"


def _unsupported(
  content: Mapping[str, Any], settings: Mapping[str, Any], heads: Any
) -> list[str]:
  """Return a line for each setting with which the model would compute otherwise."""
  name = "hidden_act" if content["model_type"] == "phi" else "activation_function"
  tied = (False, True) if content["model_type"] == "phi" else (False,)
  defaults = {
    "qk_layernorm": False,
    **dict.fromkeys(("num_key_value_heads", "n_head_kv"), heads),
    "per_layer_config": None,
  }
  checks = [
    (name, content.get(name, _ACTIVATIONS[0]), _ACTIVATIONS),
    ("quantization_config", content.get("quantization_config"), (None,)),
    ("scale_attn_weights", content.get("scale_attn_weights", True), (True,)),
    ("tie_word_embeddings", bool(content.get("tie_word_embeddings")), tied),
    *((key, content.get(key) or value, (value,)) for key, value in defaults.items()),
    *((x, settings.get(x, "default"), ("default",)) for x in ("rope_type", "type")),
    *_blocks(content),
  ]
  return [
    f"{name}: got {got!r}, expected {' or '.join(map(repr, allowed))}"
    for name, got, allowed in checks
    if got not in allowed
  ]


def _blocks(content: Mapping[str, Any]) -> Iterator[_Check]:
  """Yield the checks of the blocks of the older phi layouts."""
  for name in ("architecture", "blocks"):
    described = content.get(name) or {}
    for block in described if isinstance(described, list) else [described]:
      yield f"{name}.block_cls", block.get("block_cls", "parallel"), ("parallel",)
      for part in ("mixer", "mlp"):  # its settings override the top level
        own = {k: v for k, v in (block.get(part) or {}).items() if k != f"{part}_cls"}
        yield f"{name}.{part}", own, ({},)
