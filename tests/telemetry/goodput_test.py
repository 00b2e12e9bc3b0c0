import json

import pytest

from phi1_jax import InputError
from phi1_jax.telemetry import goodput


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


def test_lines_of_earlier_versions_and_torn_ones(tmp_path):
  lines = [{"time": 1.0, "state": "starting"}, {"time": 2.0, "state": "training"}]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (tmp_path / goodput.FILE_NAME).write_text(f'{text}{{"time": 3.')
  assert goodput.measure(tmp_path, [], now=5.0)["starts"] == 1
  goodput.note_start(tmp_path, 4.0)
  assert goodput.measure(tmp_path, [], now=5.0)["starts"] == 2


def test_no_start_and_something_else(tmp_path):
  assert goodput.measure(tmp_path, [], now=1.0) is None
  (tmp_path / goodput.FILE_NAME).write_text('{"time": "1", "state": "starting"}\n')
  with pytest.raises(InputError, match=r"starts\.jsonl: got .*expected the time"):
    goodput.measure(tmp_path, [], now=1.0)
