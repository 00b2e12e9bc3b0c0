"""Search for the fastest setting that fits a machine."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from phi1_jax import InputError
from phi1_jax.kernels import attention

# From the least recomputation to the least memory.
REMAT = ("none", "matrices", "qkv_context", "full")

# The fields of `compile --json` of one setting. Where it does not fit, or is refused,
# only the setting and the reason, `refused`.
Trial = dict[str, Any]


def search(config: Any, share: int, measure: Callable[[Any], Trial]) -> Iterator[Trial]:
  """Try batch x remat x attention, and yield every trial.

  The batch doubles. What does not fit at one batch is not tried at a larger one, and
  stronger rematerialisation is only tried once the weaker no longer fits.

  Args:
    config: the run.
    share: sequences per step of one device, which batches must divide.
    measure: compiles the step of a run's configuration for the machine.
  """
  for name in attention.NAMES[1:-1]:  # neither "auto" nor the reference
    remats, size = list(REMAT), 1
    while size <= share and share % size == 0 and remats:
      setting = {"sequences_per_device": size, "remat": remats[0], "attention": name}
      model = dataclasses.replace(config.model, remat=remats[0], attention=name)
      train = dataclasses.replace(config.train, sequences_per_device=size)
      try:
        yield measure(dataclasses.replace(config, model=model, train=train)) | setting
        size *= 2
      except InputError as error:
        yield setting | {"refused": str(error)}
        if str(error).startswith("attention"):
          break
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
