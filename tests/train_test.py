"""The command itself, in processes that can be stopped and killed."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from phi1_jax import InputError, train
from phi1_jax.telemetry.throughput import FIGURES
from phi1_jax.telemetry.writers import read_metrics

STEPS = 600
RUN = {"Train.total_steps": STEPS, "Train.log_every": 20, "Train.evaluate_every": 300}
RUN |= {"Checkpoint.every": 150, "Optimizer.warmup_steps": 20}
SIGNALS = """
import os, signal, threading

def soon(number):
  def run(step, state):  # a signal from outside might come after the last step
    threading.Timer(0.02, os.kill, (os.getpid(), number)).start()
    return ()
  return run

stop = lambda setup, store: soon(signal.SIGTERM)
kill = lambda setup, store: soon(signal.SIGKILL)
"""
HEAVY = ("tensorflow", "seqio", "torch", "transformers", "datatrove", "ray")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_run, words_store):
  """A folder with run.gin, a hook module and a token store."""
  place = tmp_path_factory.mktemp("place")
  (place / "run.gin").write_text(tiny_run(RUN))
  (place / "signals.py").write_text(SIGNALS)
  words_store(place / "store", documents=200)
  return place


def start(place, workdir, *flags, gin_file="run.gin"):
  """Starts the command; it ends with a line that tells what it has imported."""
  program = (
    "import atexit, sys; from phi1_jax import train; from phi1_jax.cli import command;"
    f"tell = lambda: print('imported', [m for m in {HEAVY} if m in sys.modules]);"
    "atexit.register(tell); command.run(train.main)"
  )
  words = [f"--gin_file={gin_file}", f"--workdir={workdir}", *flags]
  return subprocess.Popen(
    [sys.executable, "-u", "-c", program, *words],
    cwd=place,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finished(process):
  """Exit code and output."""
  output, _ = process.communicate(timeout=300)
  return process.returncode, output


@pytest.fixture(scope="module")
def undisturbed(place):
  code, output = finished(start(place, "undisturbed"))
  assert code == 0, output
  return place / "undisturbed", output


def curve(workdir):
  """(step, what) -> row without times; fails if a row is there twice."""
  found = {}
  for row in read_metrics(workdir / "metrics.jsonl"):
    key = row["step"], "eval/loss" in row
    assert key not in found
    names = ("loss", "grad_norm", "learning_rate", "tokens_seen", "eval/loss")
    found[key] = [row.get(name) for name in names]
  return found


def test_a_finished_run(place, undisturbed):
  workdir, output = undisturbed
  assert output.splitlines()[-1] == "imported []"
  names = {"config.gin", "metrics.jsonl", "checkpoints", "tensorboard", "loss.png"}
  names |= {"summary.json", "tokenizer.json"}
  assert names <= {path.name for path in workdir.iterdir()}
  rows = read_metrics(workdir / "metrics.jsonl")
  training = [row for row in rows if "loss" in row]
  assert [row["step"] for row in training] == [1, *range(20, STEPS + 1, 20)]
  fields = {"step", "loss", "grad_norm", "learning_rate", "tokens_seen"}
  fields |= {*FIGURES, "hbm_peak_gib"}
  assert all(row.keys() == fields for row in training)
  evaluations = [row for row in rows if "eval/loss" in row]
  assert [row["step"] for row in evaluations] == [300, 600]
  assert training[-1]["tokens_seen"] == STEPS * 4 * 16
  assert training[0]["loss"] == pytest.approx(np.log(320), abs=0.1)
  assert evaluations[-1]["eval/loss"] < np.log(40) + 0.1  # 39 words are in use
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["loss"] == training[-1]["loss"]
  assert summary["eval/loss"] == evaluations[-1]["eval/loss"]
  expected = {"wall_seconds", "versions", "devices", "store", "parameters"}
  assert expected <= summary.keys()
  assert summary["goodput"]["starts"] == 1
  assert 0 < summary["goodput"]["training_seconds"] < summary["wall_seconds"]
  steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  assert steps == [450, 600]
  # Of the two evaluated steps, 300 and 600, only the second's checkpoint is kept.
  assert summary["best_checkpoint"] == "undisturbed/checkpoints/600"
  assert "Train.log_every = 20" in (workdir / "config.gin").read_text()
  assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
  # It is not trained again.
  before = curve(workdir)
  code, output = finished(start(place, "undisturbed"))
  assert code == 0, output
  assert "compiled the step" not in output
  assert curve(workdir) == before


def test_a_stop_and_a_kill_leave_no_trace_in_the_curve(place, undisturbed):
  """A signal comes between two steps after the first checkpoint of each start."""

  def interrupted(name):
    hooks = f"--gin.Runtime.hooks={{'signals:{name}': 160}}"
    return finished(start(place, "stopped", hooks))

  code, output = interrupted("stop")
  assert code == 75, output
  assert "stopped after saving" in output
  saved = [int(path.name) for path in (place / "stopped" / "checkpoints").iterdir()]
  assert 0 < max(saved) < STEPS
  code, output = interrupted("kill")
  assert code == -signal.SIGKILL, output
  code, output = finished(start(place, "stopped"))
  assert code == 0, output
  going_on = re.search(r"going on from step (\d+)", output)
  assert 150 <= int(going_on.group(1)) < STEPS
  assert curve(place / "stopped") == curve(undisturbed[0])


def test_dry_run_of_phi1(place):
  flags = ("--dry_run", "--simulated_devices=8")
  code, output = finished(start(place, "dry", *flags, gin_file="gin/pretrain.gin"))
  assert code == 0, output
  for text in ("1,418,270,720 parameters", "fsdp 8", "2,097,152 tokens per step"):
    assert text in output


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
def test_a_folder_that_cannot_be_made_ends_the_run_at_its_start(
  place, tmp_path, monkeypatch, name
):
  (tmp_path / name).write_text("a file")
  monkeypatch.chdir(place)
  with pytest.raises(InputError, match=rf"cannot make the folder .*{name}"):
    train.main(
      ["--gin_file=run.gin", f"--workdir={tmp_path}", "--gin.Train.batch_size=8"]
    )
