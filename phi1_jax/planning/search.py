"""Search for settings that fit a machine: the nearest, or the fastest."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from phi1_jax import InputError
from phi1_jax.kernels import attention
from phi1_jax.planning.account import OutOfMemoryError

# From the least recomputation to the least memory.
REMAT = ("none", "matrices", "qkv_context", "full")

# The fields of `compile --json` of one setting. Where it does not fit, or is refused,
# only the setting and the reason, `refused`.
Trial = dict[str, Any]

# Compiles the step of a run's configuration (model, train, ...) for the machine.
Measure = Callable[[Any], Trial]


def nearest(config: Any, sequences: int, measure: Measure) -> Trial | None:
  """Find the fitting setting closest to one that does not fit.

  Tries fewer sequences first, then stronger rematerialisation.
  """
  now = config.model.remat
  remats = (now, *(REMAT[REMAT.index(now) + 1 :] if now in REMAT else REMAT[-2:]))
  sizes = [sequences >> halvings for halvings in range(sequences.bit_length())]
  for remat, size in itertools.product(remats, sizes):
    if (remat, size) != (now, sequences):
      trial = _try(config, size, remat, config.model.attention, measure)
      if "refused" not in trial:
        return trial
  return None


def search(config: Any, share: int, measure: Measure) -> Iterator[Trial]:
  """Try batch x remat x attention, and yield every trial.

  The batch doubles. What does not fit at one batch is not tried at a larger one, and
  stronger rematerialisation is only tried once the weaker no longer fits.

  Args:
    config: the run.
    share: sequences per step of one device, which batches must divide.
    measure: compiles a configuration.
  """
  for name in attention.NAMES[1:-1]:  # neither "auto" nor the reference
    remats = list(REMAT)
    size = 1
    while size <= share and share % size == 0 and remats:
      trial = _try(config, size, remats[0], name, measure)
      yield trial
      if "refused" not in trial:
        size *= 2
      elif trial["refused"].startswith("attention"):
        break
      else:
        remats.pop(0)


def fastest(trials: Sequence[Trial]) -> Trial | None:
  """Return the trial with the lowest bound; of equals, the one with most sequences.

  Fewer, larger products are faster, which bounds do not show.
  """
  return min(
    (trial for trial in trials if "refused" not in trial),
    key=lambda trial: (trial["bound_seconds"] or 0, -trial["sequences_per_device"]),
    default=None,
  )


def _try(config, sequences: int, remat: str, name: str, measure: Measure) -> Trial:
  changed = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, remat=remat, attention=name),
    train=dataclasses.replace(config.train, sequences_per_device=sequences),
  )
  setting = {
    "sequences_per_device": sequences,
    "remat": remat,
    "attention": name,
  }
  try:
    return measure(changed) | setting
  except (OutOfMemoryError, InputError) as error:
    return setting | {"refused": str(error)}
