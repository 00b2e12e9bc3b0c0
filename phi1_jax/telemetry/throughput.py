"""Tokens per second and model FLOPs utilisation (MFU).

MFU = tokens/s × FLOPs/token ÷ (devices × peak). FLOPs per token come from the model's
configuration and count what the model needs, causal attention and no recomputation.
The peak is that of dense bfloat16 matrix products, whatever dtype a run uses. A device
that is not in the table has no peak, and so no MFU: None (null in the files), never
a guess.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator


@dataclasses.dataclass(frozen=True)
class Device:
  """What one `jax.Device` can do; on TPU v2 and v3 that is one of a chip's two cores.

  Attributes:
    peak_flops: dense bfloat16 FLOP/s, without sparsity.
    hbm_gib: memory as sold; a compiler leaves a little less to the program.
  """

  peak_flops: float
  hbm_gib: float


_A100_40 = Device(312e12, 40)
_A100_80 = Device(312e12, 80)

# Keys are jax.Device.device_kind, matched whole: a slice of a GPU (MIG) or a variant
# with another clock has another name, and a prefix would give it the wrong peak.
# Peaks: cloud.google.com/tpu/docs (system architecture) and NVIDIA's data sheets.
DEVICES: dict[str, Device] = {
  "TPU v2": Device(45e12 / 2, 8),  # 45 TFLOP/s and 16 GiB per chip of two cores
  "TPU v3": Device(123e12 / 2, 16),  # 123 TFLOP/s and 32 GiB per chip of two cores
  "TPU v4": Device(275e12, 32),
  "TPU v5 lite": Device(197e12, 16),  # v5e
  "TPU v5": Device(459e12, 95),  # v5p
  "TPU v6 lite": Device(918e12, 32),  # v6e, Trillium
  "NVIDIA A100-SXM4-40GB": _A100_40,
  "NVIDIA A100-PCIE-40GB": _A100_40,
  "NVIDIA A100-SXM4-80GB": _A100_80,
  "NVIDIA A100 80GB PCIe": _A100_80,
  "NVIDIA H100 80GB HBM3": Device(989.4e12, 80),  # SXM
  "NVIDIA H100 PCIe": Device(756e12, 80),
  "NVIDIA H200": Device(989.4e12, 141),  # SXM
  "NVIDIA L4": Device(121e12, 24),
  # Volta and Turing have no bfloat16 units: the peaks are float16's.
  "Tesla T4": Device(65e12, 16),
  "Tesla V100-SXM2-16GB": Device(125e12, 16),
  "Tesla V100-SXM2-32GB": Device(125e12, 32),
  "Tesla V100-PCIE-16GB": Device(112e12, 16),
  "Tesla V100-PCIE-32GB": Device(112e12, 32),
}


def model_flops_utilisation(
  tokens_per_second: float,
  *,
  flops_per_token: float,
  device_kind: str,
  num_devices: int,
) -> float | None:
  """Share of the devices' peak that the model's own FLOPs take, in [0, 1].

  Args:
    tokens_per_second: of the whole run, over all devices.
    flops_per_token: training FLOPs, `ModelConfig.flops_per_token(sequence_length)`.
    device_kind: `jax.Device.device_kind`.
    num_devices: number of `jax.Device`s in the run, on all hosts.

  Returns:
    The MFU, or None if the peak of the device is not known (every CPU).
  """
  device = DEVICES.get(device_kind)
  if device is None:
    return None
  return tokens_per_second * flops_per_token / (num_devices * device.peak_flops)


class Throughput:
  """Adds up tokens, time and time spent waiting for input between two log rows.

      throughput = Throughput(device_kind, num_devices, flops_per_token)
      for ...:
        with throughput.waiting_for_input():
          batch = next(batches)
        ...
        throughput.step(batch.size)
        if log:
          row.update(throughput.take())
        with throughput.paused():  # evaluation, sampling, waiting for a save
          ...

  Args:
    device_kind: `jax.Device.device_kind`.
    num_devices: number of devices in the run, on all hosts.
    flops_per_token: training FLOPs per token.
    clock: seconds; another one in tests.
  """

  def __init__(
    self,
    device_kind: str,
    num_devices: int,
    flops_per_token: float,
    clock: Callable[[], float] = time.perf_counter,
  ):
    self._device_kind, self._num_devices = device_kind, num_devices
    self._flops_per_token, self._clock = flops_per_token, clock
    self._reset()

  def _reset(self) -> None:
    self._started = self._clock()
    self._steps = self._tokens = 0
    self._waited = self._pause = 0.0

  @contextlib.contextmanager
  def waiting_for_input(self) -> Iterator[None]:
    """The time inside counts as training time, and as waiting for input."""
    started = self._clock()
    try:
      yield
    finally:
      self._waited += self._clock() - started

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """The time inside does not count as training time."""
    started = self._clock()
    try:
      yield
    finally:
      self._pause += self._clock() - started

  def step(self, tokens: int) -> None:
    """One step over `tokens` tokens (of the global batch) is done."""
    self._steps += 1
    self._tokens += tokens

  def take(self) -> dict[str, float | None]:
    """The figures since the last call, and starts over.

    Returns:
      tokens_per_second; mfu (None: unknown peak); step_seconds and
      input_wait_seconds, both means per step. All None if there was no step.
    """
    elapsed = self._clock() - self._started - self._pause
    steps, tokens, waited = self._steps, self._tokens, self._waited
    self._reset()
    if not steps or elapsed <= 0:
      names = ("tokens_per_second", "mfu", "step_seconds", "input_wait_seconds")
      return dict.fromkeys(names)
    speed = tokens / elapsed
    return {
      "tokens_per_second": speed,
      "mfu": model_flops_utilisation(
        speed,
        flops_per_token=self._flops_per_token,
        device_kind=self._device_kind,
        num_devices=self._num_devices,
      ),
      "step_seconds": elapsed / steps,
      "input_wait_seconds": waited / steps,
    }
