import pytest

from phi1_jax.telemetry.throughput import (
  DEVICES,
  Throughput,
  model_flops_utilisation,
)


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self) -> float:
    return self.now


@pytest.mark.parametrize(
  ("device_kind", "tokens_per_second"),
  # tokens/s per chip of phi-1 at 50% MFU, with 8.48e9 FLOPs per token.
  [
    *[("TPU v4", 16.2e3), ("TPU v5 lite", 11.6e3), ("TPU v5", 27.1e3)],
    *[("TPU v6 lite", 54e3), ("NVIDIA A100-SXM4-80GB", 18.4e3)],
    *[("NVIDIA H100 80GB HBM3", 58.3e3), ("NVIDIA H200", 58.3e3)],
    ("NVIDIA L4", 7.1e3),
  ],
)
def test_mfu_of_known_devices(device_kind, tokens_per_second):
  mfu = model_flops_utilisation(
    8 * tokens_per_second,
    flops_per_token=8.48e9,
    device_kind=device_kind,
    num_devices=8,
  )
  assert mfu == pytest.approx(0.5, rel=0.01)


def test_a_device_is_half_a_chip_on_v2_and_v3():
  for device_kind, chip in (("TPU v2", 45e12), ("TPU v3", 123e12)):
    mfu = model_flops_utilisation(
      1.0, flops_per_token=chip, device_kind=device_kind, num_devices=2
    )
    assert mfu == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA H200 MIG 1g.18gb", "TPU v9", ""])
def test_unknown_devices_have_no_mfu(kind):
  assert (
    model_flops_utilisation(1.0, flops_per_token=1.0, device_kind=kind, num_devices=1)
    is None
  )


def test_the_table_is_in_flops_and_gib():
  for device in DEVICES.values():
    assert 2e13 < device.peak_flops < 1e15
    assert 8 <= device.hbm_gib <= 200


def test_figures_between_two_rows():
  clock = Clock()
  throughput = Throughput("TPU v4", 2, 1e9, clock)
  for _ in range(4):
    with throughput.waiting_for_input():
      clock.now += 0.5
    clock.now += 2.0
    throughput.step(1000)
  with throughput.paused():
    clock.now += 1000.0
  assert throughput.take() == {
    "tokens_per_second": 400.0,
    "mfu": pytest.approx(400.0 * 1e9 / (2 * 275e12)),
    "step_seconds": 2.5,
    "input_wait_seconds": 0.5,
  }
  # The next row starts from nothing.
  clock.now += 1.0
  throughput.step(10)
  row = throughput.take()
  assert (row["tokens_per_second"], row["input_wait_seconds"]) == (10.0, 0.0)


def test_time_counts_even_if_the_input_ends():
  clock = Clock()
  throughput = Throughput("cpu", 1, 1.0, clock)

  def draw():
    with throughput.waiting_for_input():
      clock.now += 3.0
      raise StopIteration

  with pytest.raises(StopIteration):
    draw()
  throughput.step(1)
  row = throughput.take()
  assert row["input_wait_seconds"] == 3.0
  assert row["mfu"] is None


def test_without_a_step_nothing_is_known():
  assert set(Throughput("cpu", 1, 1.0).take().values()) == {None}
