"""Throughput, goodput and the line of a step."""

import json
import math

import pytest

from phi1_jax import InputError
from phi1_jax.telemetry import goodput
from phi1_jax.telemetry.terminal import format_row, human
from phi1_jax.telemetry.throughput import Throughput, model_flops_utilisation


class Clock:
  now = 100.0

  def __call__(self) -> float:
    return self.now


@pytest.mark.parametrize(
  ("kind", "tokens_per_second"),
  # tokens/s per chip of phi-1 at 50% MFU, with 8.48e9 FLOPs per token.
  [
    *[("TPU v4", 16.2e3), ("TPU v5 lite", 11.6e3), ("TPU v5", 27.1e3)],
    *[("TPU v6 lite", 54e3), ("NVIDIA A100-SXM4-80GB", 18.4e3)],
    *[("NVIDIA H100 80GB HBM3", 58.3e3), ("NVIDIA L4", 7.1e3)],
    *[(kind, None) for kind in ("cpu", "NVIDIA H200 MIG 1g.18gb", "TPU v9", "")],
  ],
)
def test_mfu_of_devices(kind, tokens_per_second):
  arguments = {"flops_per_token": 8.48e9, "device_kind": kind, "num_devices": 8}
  found = model_flops_utilisation(8 * (tokens_per_second or 1.0), **arguments)
  expected = None if tokens_per_second is None else pytest.approx(0.5, rel=0.01)
  assert found == expected


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
    "tokens_per_second_per_device": 200.0,
    "mfu": pytest.approx(400.0 * 1e9 / (2 * 275e12)),
    "step_seconds": 2.5,
    "step_seconds_p50": 2.5,
    "step_seconds_p90": 2.5,
    "step_seconds_max": 2.5,
    "input_wait_seconds": 0.5,
  }
  # The next row starts from nothing.
  clock.now += 1.0
  throughput.step(10)
  row = throughput.take()
  assert (row["tokens_per_second"], row["input_wait_seconds"]) == (10.0, 0.0)


def test_step_times_are_those_since_the_last_row_without_pauses():
  clock = Clock()
  throughput = Throughput("cpu", 1, 1.0, clock)

  def steps(*seconds):
    for each in seconds:
      clock.now += each
      throughput.step(1)

  steps(50.0)  # the first, of an earlier row
  throughput.take()
  steps(*range(1, 10))
  with throughput.paused():  # right after a step, as the loop does
    clock.now += 1000.0
  clock.now += 0.25  # of the next step
  with throughput.paused():
    clock.now += 1000.0
  steps(9.75, 11.0)
  row = throughput.take()
  assert row["step_seconds"] == pytest.approx(6.0)
  names = ("step_seconds_p50", "step_seconds_p90", "step_seconds_max")
  assert [row[name] for name in names] == [6.0, 10.0, 11.0]
  steps(3.0)
  assert throughput.take()["step_seconds_max"] == 3.0


ROW = {
  "loss": 2.34567,
  "grad_norm": 0.5,
  "learning_rate": 1e-3,
  "tokens_seen": 1.2e9,
  "tokens_per_second": 12_345.0,
  "mfu": 0.512,
  "step_seconds": 0.8,
  "input_wait_seconds": 0.0004,
}


@pytest.mark.parametrize(
  ("value", "text"),
  [
    *[(0, "0"), (950, "950"), (12_345, "12.3k"), (999_700, "1.00M"), (1000, "1.00k")],
    *[(1_418_270_720, "1.42B"), (1e13, "10T"), (100e6, "100M"), (-1500, "-1.50k")],
    *[(math.nan, "nan"), (math.inf, "inf")],
  ],
)
def test_human(value, text):
  assert human(value) == text


def test_a_training_row():
  """Unknown figures, and those that are for files, are left out."""
  row = ROW | {"hbm_peak_gib": None, "step_seconds_p90": 0.9, "eval/loss": 1.5}
  assert format_row(1200, row, 51_000) == (
    "step  1,200/51,000  loss  2.3457  grad   0.500  lr 1.00e-03  1.20B tokens  "
    "12.3k tok/s  MFU 51.2%  800.0 ms/step  input   0.4 ms  eval/loss 1.5"
  )


def row(step, seconds):
  return {"step": step, "loss": 1.0, "step_seconds": seconds}


def test_the_share_of_the_time_since_the_first_start(tmp_path):
  """Rows are means over the steps since the last one; evaluations have no time."""
  for began in (100.0, 160.0):
    goodput.note_start(tmp_path, began)
  rows = [row(1, 5.0), row(10, 2.0), {"step": 10, "eval/loss": 1.0}, row(20, 3.0)]
  assert goodput.measure(tmp_path, rows, now=200.0) == {
    "goodput": (5 + 9 * 2 + 10 * 3) / 100,
    "starts": 2,
    "total_seconds": 100.0,
    "training_seconds": 53.0,
  }


def test_lines_of_earlier_versions_torn_ones_and_something_else(tmp_path):
  assert goodput.measure(tmp_path, [], now=1.0) is None
  file = tmp_path / goodput.FILE_NAME
  lines = [{"time": 1.0, "state": "starting"}, {"time": 2.0, "state": "training"}]
  file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time": 3.')
  assert goodput.measure(tmp_path, [], now=5.0)["starts"] == 1
  goodput.note_start(tmp_path, 4.0)
  assert goodput.measure(tmp_path, [], now=5.0)["starts"] == 2
  file.write_text('{"time": "1", "state": "starting"}\n')
  with pytest.raises(InputError, match=r"starts\.jsonl: got .*expected the time"):
    goodput.measure(tmp_path, [], now=1.0)
