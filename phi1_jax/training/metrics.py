"""Reads each step's metrics one step late, judges them, and writes rows."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from phi1_jax.parallel import hosts
from phi1_jax.telemetry.goodput import StartLog
from phi1_jax.telemetry.throughput import Throughput
from phi1_jax.telemetry.writers import Recorder
from phi1_jax.training.memory import GIB
from phi1_jax.training.setup import Setup
from phi1_jax.training.step import Metrics


class DivergedError(RuntimeError):
  """Loss or gradient stopped being a number."""


class MetricsReader:
  """Follows the loop one step behind, so that the device never waits for the host.

  Beside the rows it leaves in starts.jsonl when the run trains and when it pauses.

  Args:
    setup: the run.
    recorder: where rows go.
    first: the step that the run starts or goes on from.
    tokens_before: tokens seen until then.
  """

  def __init__(self, setup: Setup, recorder: Recorder, first: int, tokens_before: int):
    self._train = setup.config.train
    self._recorder = recorder
    self._first, self._tokens_before = first, tokens_before
    self._pending: tuple[int, Metrics] | None = None
    self._starts = StartLog(setup.workdir, process_index=hosts.index())
    self._step, self._training = first, False
    self._mesh = setup.mesh
    self._throughput = Throughput(
      setup.mesh.devices.flat[0].device_kind, setup.mesh.size, setup.flops_per_token
    )

  def tokens_seen(self, step: int) -> int:
    """Tokens that `step` updates have learnt from."""
    new = (step - self._first) * self._train.tokens_per_step
    return self._tokens_before + new

  def waiting_for_input(self) -> contextlib.AbstractContextManager[None]:
    """Time inside is counted as waiting for a batch; a step follows."""
    if not self._training:
      self._starts.write("training", self._step)
      self._training = True
    return self._throughput.waiting_for_input()

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Time inside is not training time; reads what is pending before it starts.

    So a diverged state is neither evaluated nor saved.
    """
    self._read_pending()
    with self._throughput.paused():
      self._starts.write("paused", self._step)
      self._training = False
      yield

  def follow(self, step: int, metrics: Metrics) -> None:
    """Takes the metrics of a step just dispatched, and reads those of the last one.

    Raises:
      DivergedError: the last one's loss or gradient is not finite.
    """
    self._read_pending()
    self._pending = step, metrics

  def _read_pending(self) -> None:
    if self._pending is None:
      return
    (step, metrics), self._pending = self._pending, None
    self._step = step
    values: dict[str, Any] = {k: float(v) for k, v in jax.device_get(metrics).items()}
    self._throughput.step(self._train.tokens_per_step)
    loss, norm = values["loss"], values["grad_norm"]
    if not (math.isfinite(loss) and math.isfinite(norm)):
      self._recorder.write(step, values)
      raise DivergedError(
        f"loss {loss} and gradient norm {norm} at step {step}: it broke between steps "
        f"{step - 1} and {step}. The update was left out and nothing was saved since; "
        "run again from the last checkpoint, with a lower "
        "Optimizer.peak_learning_rate or another Train.seed"
      )
    last = step == self._train.last_step
    if step == 1 or last or step % self._train.log_every == 0:
      row = {
        **values,
        "tokens_seen": self.tokens_seen(step),
        **self._throughput.take(),
        "hbm_peak_gib": hbm_peak_gib(self._mesh),
      }
      self._recorder.write(step, row)
      self._starts.write("training", step)


def hbm_peak_gib(mesh: Mesh) -> float | None:
  """The most memory that any device of this host has used since the start, in GiB.

  Returns:
    None where the backend does not count, as on CPUs.
  """
  stats = [device.memory_stats() or {} for device in mesh.local_devices]
  peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
  return max(peaks) / GIB if peaks else None
