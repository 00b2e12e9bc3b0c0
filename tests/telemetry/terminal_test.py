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
  assert format_row(1200, ROW, 51_000) == (
    "step  1,200/51,000  loss  2.3457  grad   0.500  lr 1.00e-03  1.20B tokens  "
    "12.3k tok/s  MFU 51.2%  800.0 ms/step  input   0.4 ms"
  )


def test_rows_align_while_the_figures_change():
  later = {name: value * 15 for name, value in ROW.items()} | {"mfu": 0.05}
  lines = [format_row(7, ROW, 51_000), format_row(51_000, later, 51_000)]
  assert len(lines[0]) == len(lines[1])
  for word in ("loss", "grad", "lr", "tokens", "tok/s", "MFU", "/step", "input"):
    assert lines[0].index(word) == lines[1].index(word)


def test_memory_is_shown_where_it_is_known_and_other_columns_are_for_files():
  quiet = {
    "tokens_per_second_per_device": 12_345.0,
    "step_seconds_p50": 0.8,
    "step_seconds_p90": 0.9,
    "step_seconds_max": 1.0,
  }
  on_a_cpu = format_row(1200, ROW | quiet | {"hbm_peak_gib": None}, 51_000)
  assert on_a_cpu == format_row(1200, ROW, 51_000)
  row = ROW | quiet | {"hbm_peak_gib": 68.04}
  assert format_row(1200, row, 51_000) == on_a_cpu + "  HBM  68.0 GiB"


def test_the_unknown_is_left_out_and_other_names_follow():
  line = format_row(7, {"eval/loss": 1.5, "mfu": None, "loss": math.nan})
  assert line == "step         7  loss     nan  eval/loss 1.5"
