"""Description of a checkpoint: its model, its tokenizer, its digest."""

import hashlib
import json
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.model.config import ModelConfig
from phi1_jax.storage import AnyPath
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer


def model_of(step: AnyPath, meta: dict[str, Any], **changes: Any) -> ModelConfig:
  """Return the model of a checkpoint, with some fields replaced.

  Raises:
    InputError: the meta is not that of a phi model.
  """
  try:
    return ModelConfig(**{**meta["config"]["model"], **changes})
  except (KeyError, TypeError) as error:
    raise InputError(
      f"{step}: its meta describes no phi model ({error}); expected a checkpoint of "
      "phi1_jax.train or phi1_jax.convert"
    ) from None


def tokenizer_of(step: AnyPath, meta: dict[str, Any]) -> Tokenizer:
  """Return the tokenizer beside a checkpoint, or CodeGen's if it has that digest.

  Raises:
    InputError: no tokenizer, or another one than that of the training.
  """
  digest = meta["tokenizer"]
  for place in (step, step.parent, step.parent.parent):
    if storage.exists(place / tokenizers.FILE_NAME):
      found = tokenizers.load(place)
      if found.digest != digest:
        raise InputError(
          f"{place / tokenizers.FILE_NAME}: not the tokenizer of {step}: got digest "
          f"{found.digest[:12]}, expected {digest[:12]}"
        )
      return found
  if tokenizers.codegen().digest == digest:
    return tokenizers.codegen()
  raise InputError(
    f"{step}: no {tokenizers.FILE_NAME} beside it; expected the one it was trained "
    "with in its work directory"
  )


def model_digest(meta: dict[str, Any]) -> str:
  """Return the sha256 (hex) over all parameters' fingerprints and the tokenizer."""
  prints = {k: v for k, v in meta["fingerprints"].items() if k.startswith("params/")}
  content = json.dumps([prints, meta["tokenizer"]], sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()
