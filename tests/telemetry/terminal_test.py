import math

import pytest

from phi1_jax.telemetry.terminal import format_row, human

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
