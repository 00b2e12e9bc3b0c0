import json
import math
import os
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from phi1_jax import InputError
from phi1_jax.telemetry import writers
from phi1_jax.telemetry.writers import Recorder, read_metrics, write_summary


def steps(path):
  return [row["step"] for row in read_metrics(path)]


def test_what_is_not_finite_is_null(tmp_path):
  def strict(path):
    """Parses JSON and nothing else: Python's parser would take NaN."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)

  values = {"loss": math.nan, "grad_norm": np.float32(np.inf), "mfu": None}
  expected = {"loss": None, "grad_norm": None, "mfu": None, "steps": 4, "lr": 0.5}
  values |= {"steps": np.int64(4), "lr": np.float32(0.5)}
  with Recorder(tmp_path) as recorder:
    recorder.write(1, values)
  assert strict(tmp_path / "metrics.jsonl") == {"step": 1, **expected}
  write_summary(tmp_path / "summary.json", {**values, "x": {"y": (True, math.nan)}})
  assert strict(tmp_path / "summary.json") == {**expected, "x": {"y": [True, None]}}


@pytest.mark.parametrize("line", ["loss 3.2", "[1]", '{"loss": 1}', '{"step": "a"}'])
def test_a_file_of_something_else_is_refused(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
  with pytest.raises(InputError, match=r"metrics.jsonl, line 2: got .*, expected"):
    Recorder(tmp_path)
  assert line in path.read_text()


def events(directory):
  """Events of all files in the order of their names: length, CRC, payload, CRC."""
  found = []
  for path in sorted(directory.iterdir()):
    content, position = path.read_bytes(), 0
    while position < len(content):
      length = int.from_bytes(content[position : position + 8], "little")
      found.append(Event.FromString(content[position + 12 : position + 12 + length]))
      position += length + 16
  return found


def test_recorder_writes_everywhere_and_resumes_after_a_step(tmp_path, capsys):
  lines, path = [], tmp_path / "metrics.jsonl"
  for resumed_at, written in ((None, range(3, 7)), (4, [5])):
    more = {"resumed_at": resumed_at, "num_steps": 10, "emit": lines.append}
    with Recorder(tmp_path, **more) as recorder:
      for step in written:
        recorder.write(step, {"loss": np.float32(step / 2), "mfu": None})
        recorder.write(step, {"eval/loss": 3.0})
        assert steps(path)[-2:] == [step, step]  # they are on the disk
  assert read_metrics(path)[-2:] == [
    {"step": 5, "loss": 2.5, "mfu": None},
    {"step": 5, "eval/loss": 3.0},
  ]
  assert steps(path) == [3, 3, 4, 5, 5]  # what was due after step 4 comes again
  assert lines[-2:] == ["step  5/10  loss  2.5000", "step  5/10  eval/loss 3"]
  board = events(tmp_path / "tensorboard")
  scalars = {
    (value.tag, event.step, value.simple_value)
    for event in board
    for value in event.summary.value
  }
  assert scalars >= {("train/loss", 5, 2.5), ("eval/loss", 5, 3.0)}
  starts = [e.step for e in board if e.session_log.status == SessionLog.START]
  assert sorted(starts) == [0, 5]  # TensorBoard purges from step 5 on
  # Other processes write nothing.
  with Recorder(tmp_path / "other", process_index=1) as recorder:
    recorder.write(1, {"loss": 1.0})
  assert not (tmp_path / "other").exists()
  assert capsys.readouterr().out == ""


# Writes rows as two starts of a run do: `python -c STARTS WORKDIR`.
STARTS = """
import sys
from pathlib import Path
from phi1_jax.telemetry.writers import Recorder
kept = {"wandb_project": "tests", "config": {"a": 5}}
for first in (0, 2):
  with Recorder(Path(sys.argv[1]), resumed_at=first or None, **kept) as recorder:
    for step in range(first + 1, first + 4):
      recorder.write(step, {"loss": step / 2, "eval/loss": None if step == 2 else 2.5})
"""


def records(path):
  """Of a file of W&B: a header of 7 bytes, then LevelDB's log records."""
  content, position = path.read_bytes(), 7
  while position < len(content):
    length = int.from_bytes(content[position + 4 : position + 6], "little")
    yield content[position + 7 : position + 7 + length]
    position += length + 7


def test_weights_and_biases_without_login_are_refused_before_the_run(monkeypatch):
  import wandb

  answers, settings = [False, wandb.Error("no such user"), True], Mock(mode="online")

  def login(**_):
    answer = answers.pop(0)
    if isinstance(answer, Exception):
      raise answer
    return answer

  monkeypatch.setattr(wandb, "login", login)
  monkeypatch.setattr(wandb, "setup", lambda: Mock(settings=settings))
  for reason in ("no API key", "no such user"):
    with pytest.raises(InputError, match=f"{reason}.*WANDB_MODE=offline"):
      writers.check_wandb("mine")
  writers.check_wandb("mine")
  settings.mode = "offline"
  writers.check_wandb("mine")  # asks nobody
  assert not answers


def test_weights_and_biases_offline(tmp_path):
  """Both starts of a run write to one W&B run; each row has its own step."""
  from wandb.proto.wandb_internal_pb2 import Record

  words = [sys.executable, "-c", STARTS, str(tmp_path / "run")]
  subprocess.run(words, env={**os.environ, "WANDB_MODE": "offline"}, check=True)
  (name,) = (tmp_path / "run" / "wandb_id.txt").read_text().splitlines()
  paths = (tmp_path / "run" / "wandb").glob(f"offline-run-*/run-{name}.wandb")
  rows, configs = [], []
  for record in (Record.FromString(x) for path in sorted(paths) for x in records(path)):
    values = {
      "/".join(item.nested_key) or item.key: json.loads(item.value_json)
      for item in record.history.item
    }
    rows += [{k: v for k, v in values.items() if not k.startswith("_")}] * bool(values)
    configs += [item.value_json for item in record.run.config.update]
  expected = [
    {"train/loss": n / 2, "eval/loss": 2.5, "step": n} for n in (1, 2, 3, 3, 4, 5)
  ]
  del expected[1]["eval/loss"]  # unknown
  assert rows == expected
  assert "5" in configs
