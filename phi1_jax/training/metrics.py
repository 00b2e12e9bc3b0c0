"""Reading each step's metrics one step late, checking them, and writing rows."""

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from phi1_jax.telemetry.throughput import Throughput
from phi1_jax.telemetry.writers import Recorder
from phi1_jax.training.memory import GIB
from phi1_jax.training.setup import Setup
from phi1_jax.training.step import Metrics

log = logging.getLogger(__name__)


class DivergedError(RuntimeError):
  """A loss or gradient that is not finite."""


# What a run has read and left out when it begins; a checkpoint's meta has the same.
# The next batch begins with window `samples_seen` of the mixture.
NOTHING = {"tokens_seen": 0, "samples_seen": 0, "skipped_steps": 0}


class MetricsReader:
  """Reader of metrics one step behind the loop, so that no device waits for the host.

  The run starts or goes on from step `first`; `before` is what was seen until then.
  `throughput` counts the time of steps, and of waiting for input.
  """

  def __init__(
    self, setup: Setup, recorder: Recorder, first: int, before: dict[str, int]
  ):
    self._setup, self._train, self._recorder = setup, setup.config.train, recorder
    self._first, self._before, self._skipped = first, before, before["skipped_steps"]
    self._warned = False
    self._pending: tuple[int, Metrics] | None = None
    self.throughput = Throughput(
      setup.mesh.devices.flat[0].device_kind, setup.mesh.size, setup.flops_per_token
    )

  def seen(self, step: int) -> dict[str, int]:
    """Return what `step` updates have read and left out, as `NOTHING` has it."""
    samples = (step - self._first) * self._train.batch_size
    tokens = samples * self._train.sequence_length
    return {
      "tokens_seen": self._before["tokens_seen"] + tokens,
      "samples_seen": self._before["samples_seen"] + samples,
      "skipped_steps": self._skipped,
    }

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leave the time inside out of training time; read what is pending first.

    So a diverged state is neither evaluated nor saved.
    """
    self._read_pending()
    with self.throughput.paused():
      yield

  def follow(self, step: int, metrics: Metrics) -> None:
    """Take the metrics of a step just dispatched, and read those of the last one.

    Raises:
      DivergedError: the last one's loss or gradient is not finite.
    """
    self._read_pending()
    self._pending = step, metrics

  def _read_pending(self) -> None:
    if self._pending is None:
      return
    (step, metrics), self._pending = self._pending, None
    values: dict[str, Any] = {k: float(v) for k, v in jax.device_get(metrics).items()}
    values.pop("skipped", None)  # the rows have the count
    self.throughput.step(self._train.tokens_per_step)
    what = f"loss {values['loss']} and gradient norm {values['grad_norm']}"
    finite = math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])
    if values.get("targets") == 0:
      values["loss"] = None
      log.warning("step %d: no token of the batch is a completion; no update", step)
    elif not finite and self._skipped < (limit := self._train.skip_nonfinite_steps):
      self._skipped += 1
      log.warning(
        "step %d: %s: the update was left out (%d of Train.skip_nonfinite_steps=%d)",
        *(step, what, self._skipped, limit),
      )
    elif not finite:
      self._recorder.write(step, values)
      raise DivergedError(
        f"{what} at step {step}: it broke between steps {step - 1} and {step}. The "
        "update was left out and nothing was saved since; run again from the last "
        "checkpoint, with a lower Optimizer.peak_learning_rate, another Train.seed, or "
        "Train.skip_nonfinite_steps"
      )
    lost = values.get("vanished_updates")
    warmup = self._setup.config.optimizer.warmup_steps
    if lost and step > warmup and not self._warned:
      self._warned = True
      log.warning(
        "step %d: Model.param_dtype: %.0f%% of the updates were too small to change a "
        "bfloat16 parameter; set Model.param_dtype='float32' (the computation stays in "
        "Model.dtype)",
        *(step, 100 * lost),
      )
    last = step == self._train.last_step
    if step == 1 or last or step % self._train.log_every == 0:
      row = {
        **values,
        "tokens_seen": self.seen(step)["tokens_seen"],
        **self.throughput.take(),
        "hbm_peak_gib": hbm_peak_gib(self._setup.mesh),
      }
      if self._train.skip_nonfinite_steps:
        row |= {"skipped_steps": self._skipped}
      self._recorder.write(step, row)


def hbm_peak_gib(mesh: Mesh) -> float | None:
  """Return the most memory that a device here has used, in GiB; None on CPUs."""
  stats = [device.memory_stats() or {} for device in mesh.local_devices]
  peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
  return max(peaks) / GIB if peaks else None
