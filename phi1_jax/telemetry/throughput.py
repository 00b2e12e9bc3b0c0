"""Tokens per second, step times and model FLOPs utilisation (MFU).

MFU = tokens/s × FLOPs/token ÷ (devices × peak). FLOPs per token come from the model's
configuration: causal attention, no recomputation. The peak is that of dense bfloat16
matrix products, whatever dtype a run uses. Devices without a known peak have no MFU:
None, or null in the files.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Device:
  """Data sheet of one `jax.Device`; on TPU v2 and v3, of one of a chip's two cores."""

  peak_flops: float  # dense bfloat16 FLOP/s, without sparsity
  hbm_gib: float  # memory as sold; programs get a little less
  hbm_bytes_per_second: float  # bandwidth of that memory (GDDR6 on L4 and T4)
  # To other devices, over all links together, in one direction (data sheets often add
  # up both).
  link_bytes_per_second: float


# One direction of 16 lanes, for cards without NVLink. Bridges are not counted.
_PCIE_3, _PCIE_4, _PCIE_5 = 16e9, 32e9, 64e9

# Keys are jax.Device.device_kind, matched whole: a slice of a GPU (MIG) or a variant
# with another clock has a longer name and another peak.
# Sources: cloud.google.com/tpu/docs (system architecture; where it gives links in both
# directions, half of it) and NVIDIA's data sheets, which give NVLink in both
# directions. The links of TPU v2 are from Jouppi et al. 2020 (Communications of the
# ACM 63:7), those of v3 and v4 from Jouppi et al. 2023 (ISCA, arXiv 2304.01433).
DEVICES: dict[str, Device] = {
  # Half of a chip with 45 TFLOP/s, 16 GiB at 700 GB/s, 4 links of 62 GB/s
  "TPU v2": Device(45e12 / 2, 8, 700e9 / 2, 4 * 62e9 / 2),
  # Half of a chip with 123 TFLOP/s, 32 GiB at 900 GB/s, 4 links of 70 GB/s
  "TPU v3": Device(123e12 / 2, 16, 900e9 / 2, 4 * 70e9 / 2),
  "TPU v4": Device(275e12, 32, 1200e9, 6 * 50e9),
  "TPU v5 lite": Device(197e12, 16, 819e9, 200e9),  # v5e
  "TPU v5": Device(459e12, 95, 2765e9, 600e9),  # v5p
  "TPU v6 lite": Device(918e12, 32, 1638e9, 400e9),  # v6e, Trillium
  "NVIDIA A100-SXM4-40GB": Device(312e12, 40, 1555e9, 300e9),
  "NVIDIA A100-PCIE-40GB": Device(312e12, 40, 1555e9, _PCIE_4),
  "NVIDIA A100-SXM4-80GB": Device(312e12, 80, 2039e9, 300e9),
  "NVIDIA A100 80GB PCIe": Device(312e12, 80, 1935e9, _PCIE_4),
  "NVIDIA H100 80GB HBM3": Device(989.4e12, 80, 3350e9, 450e9),  # SXM
  "NVIDIA H100 PCIe": Device(756e12, 80, 2000e9, _PCIE_5),
  "NVIDIA H200": Device(989.4e12, 141, 4800e9, 450e9),  # SXM
  "NVIDIA L4": Device(121e12, 24, 300e9, _PCIE_4),
  # Volta and Turing have no bfloat16 units: the peaks are float16's.
  "Tesla T4": Device(65e12, 16, 320e9, _PCIE_3),
  "Tesla V100-SXM2-16GB": Device(125e12, 16, 900e9, 150e9),
  "Tesla V100-SXM2-32GB": Device(125e12, 32, 900e9, 150e9),
  "Tesla V100-PCIE-16GB": Device(112e12, 16, 900e9, _PCIE_3),
  "Tesla V100-PCIE-32GB": Device(112e12, 32, 900e9, _PCIE_3),
}


def model_flops_utilisation(
  tokens_per_second: float,
  *,
  flops_per_token: float,
  device_kind: str,
  num_devices: int,
) -> float | None:
  """Return the share of the devices' peak that the model's FLOPs use, in [0, 1].

  Args:
    tokens_per_second: of the run, over all devices.
    flops_per_token: training FLOPs, `ModelConfig.flops_per_token(sequence_length)`.
    device_kind: `jax.Device.device_kind`.
    num_devices: number of `jax.Device`s in the run, on all hosts.

  Returns:
    The MFU, or None if the peak of the device is unknown, as for CPUs.
  """
  device = DEVICES.get(device_kind)
  if device is None:
    return None
  return tokens_per_second * flops_per_token / (num_devices * device.peak_flops)


# Figures of speed in a row of metrics, in this order.
FIGURES = (
  *("tokens_per_second", "tokens_per_second_per_device", "mfu"),
  *("step_seconds", "step_seconds_p50", "step_seconds_p90", "step_seconds_max"),
  "input_wait_seconds",
)


class Throughput:
  """Tokens, time and time spent waiting for input between two log rows.

  Times are the host's, without pauses. A step's time runs from one `step` call to the
  next. The loop calls `step` when it has read a step's metrics, while the device works
  on the next step. So this is the time of a step on the device, reported one step late.
  The first step after a start or a pause also includes its input and its dispatch.

  Args:
    device_kind: `jax.Device.device_kind`.
    num_devices: number of devices in the run, on all hosts.
    flops_per_token: training FLOPs per token.
    clock: returns seconds; replaced in tests.
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
    self._paused = 0.0
    self._step_started = clock()
    self._reset()

  def _reset(self) -> None:
    self._step_seconds: list[float] = []
    self._tokens, self._waited = 0, 0.0

  @contextlib.contextmanager
  def waiting_for_input(self) -> Iterator[None]:
    """Count the time inside as training time and as waiting for input."""
    started = self._clock()
    yield
    self._waited += self._clock() - started

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leave the time inside out of the training time."""
    started = self._clock()
    yield
    self._paused += self._clock() - started

  def step(self, tokens: int) -> None:
    """Count a finished step over `tokens` tokens (of the global batch)."""
    now = self._clock() - self._paused
    self._step_seconds.append(now - self._step_started)
    self._step_started = now
    self._tokens += tokens

  def take(self) -> dict[str, float | None]:
    """Return the figures since the last call, and start anew.

    Returns:
      tokens_per_second, and per `jax.Device`; mfu (None: unknown peak); step_seconds
      and input_wait_seconds, means per step; step_seconds_p50, _p90 and _max, over the
      steps, of which there must be one at least.
    """
    times, tokens, waited = self._step_seconds, self._tokens, self._waited
    self._reset()
    elapsed = sum(times)
    speed = tokens / elapsed
    mfu = model_flops_utilisation(
      speed,
      flops_per_token=self._flops_per_token,
      device_kind=self._device_kind,
      num_devices=self._num_devices,
    )
    values = (
      *(speed, speed / self._num_devices, mfu),
      *(elapsed / len(times), *np.quantile(times, (0.5, 0.9, 1.0)).tolist()),
      waited / len(times),
    )
    return dict(zip(FIGURES, values, strict=True))
