"""The command itself, in processes that can be stopped and killed."""

import argparse
import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from phi1_jax import InputError, storage, train
from phi1_jax.cli import gin_config
from phi1_jax.telemetry.throughput import FIGURES
from phi1_jax.telemetry.writers import read_metrics
from phi1_jax.training import preflight, setup

STEPS = 600
RUN = f"""
Model.vocabulary_size = 320
Model.num_layers = 1
Model.num_heads = 2
Model.head_dim = 4
Model.rotary_dim = 2
Model.embed_dim = 8
Model.mlp_dim = 16
Model.max_length = 16
Model.dtype = "float32"
Train.total_steps = {STEPS}
Train.batch_size = 4
Train.sequence_length = 16
Train.log_every = 20
Train.evaluate_every = 300
Optimizer.peak_learning_rate = 1e-2
Optimizer.warmup_steps = 20
Optimizer.weight_decay = 0.1
Data.mixture = "words"
Data.store = "store"
Data.tokenizer = "train"
Data.trained_vocabulary_size = 300
Checkpoint.every = 150
Runtime.compilation_cache = "compiled"
"""
HEAVY = ("tensorflow", "seqio", "torch", "transformers", "datatrove", "ray")


@pytest.fixture(scope="module")
def place(tmp_path_factory, words_store):
  """A folder with run.gin and a token store."""
  place = tmp_path_factory.mktemp("place")
  (place / "run.gin").write_text(RUN)
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


def test_work_directory(undisturbed):
  workdir, _ = undisturbed
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
  assert {
    "wall_seconds",
    "versions",
    "devices",
    "store",
    "parameters",
  } <= summary.keys()
  parts = summary["goodput"]
  assert parts["starts"] == 1
  assert 0 < parts["training_seconds"] < summary["wall_seconds"]
  steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  assert steps == [450, 600]
  # Of the two evaluated steps, 300 and 600, only the second's checkpoint is kept.
  assert summary["best_checkpoint"] == "undisturbed/checkpoints/600"
  assert "Train.log_every = 20" in (workdir / "config.gin").read_text()
  assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_it_imports_nothing_heavy(undisturbed):
  assert undisturbed[1].splitlines()[-1] == "imported []"


def test_a_finished_run_is_not_trained_again(place, undisturbed):
  workdir, _ = undisturbed
  before = curve(workdir)
  code, output = finished(start(place, "undisturbed"))
  assert code == 0, output
  assert f"going on from step {STEPS}" in output
  assert curve(workdir) == before


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


def interrupted(place, workdir, name):
  """A run that gets a signal between two steps after the first checkpoint."""
  (place / "signals.py").write_text(SIGNALS)
  hooks = f"--gin.Runtime.hooks={{'signals:{name}': 160}}"
  return finished(start(place, workdir, hooks))


def test_a_stop_and_a_kill_leave_no_trace_in_the_curve(place, undisturbed):
  code, output = interrupted(place, "stopped", "stop")
  assert code == 75, output
  assert "stopped after saving" in output
  saved = [int(path.name) for path in (place / "stopped" / "checkpoints").iterdir()]
  assert 0 < max(saved) < STEPS
  code, output = interrupted(place, "stopped", "kill")
  assert code == -signal.SIGKILL, output
  code, output = finished(start(place, "stopped"))
  assert code == 0, output
  going_on = re.search(r"going on from step (\d+)", output)
  assert 150 <= int(going_on.group(1)) < STEPS
  assert curve(place / "stopped") == curve(undisturbed[0])


def test_dry_run_of_phi1(place):
  process = start(
    place, "dry", "--dry_run", "--simulated_devices=8", gin_file="gin/pretrain.gin"
  )
  code, output = finished(process)
  assert code == 0, output
  assert "1,418,270,720 parameters" in output
  assert "fsdp 8" in output
  assert "2,097,152 tokens per step" in output


def test_what_a_run_starts_from_is_trained_first(place):
  """`init_from` may name a gin file: a dry run trains nothing, a start trains once."""
  base = RUN.replace(f"total_steps = {STEPS}", "total_steps = 40")
  (place / "base.gin").write_text(base)
  (place / "tuned.gin").write_text(f'{base}\nCheckpoint.init_from = "base.gin"\n')
  code, output = finished(start(place, "tuned", "--dry_run", gin_file="tuned.gin"))
  assert code == 0, output
  assert re.search(r"^model +6,040 parameters", output, re.MULTILINE), output
  assert "store    store: " in output
  assert "nothing was run" in output
  assert not (place / "tuned").exists()
  assert not (place / "runs" / "base").exists()
  code, output = finished(start(place, "tuned", gin_file="tuned.gin"))
  assert code == 0, output
  assert "this run starts from runs/base, which is trained first" in output
  assert (place / "runs" / "base" / "summary.json").exists()
  first, untrained = (
    next(row["loss"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row)
    for run in (place / "tuned", place / "runs" / "base")
  )
  assert first < untrained - 0.1
  code, output = finished(start(place, "again", gin_file="tuned.gin"))
  assert code == 0, output
  assert "trained first" not in output
  # It was trained for longer meanwhile: the advice can be followed.
  longer = ["--gin.Train.total_steps=44", "--gin.Optimizer.warmup_steps=2"]
  code, output = finished(start(place, "runs/base", *longer, gin_file="base.gin"))
  assert code == 0, output
  code, output = finished(start(place, "longer", gin_file="tuned.gin"))
  assert code == 2
  (advice,) = re.findall(r"--gin\.Checkpoint\.init_from=\S+(?=;)", output)
  code, output = finished(start(place, "longer", advice, gin_file="tuned.gin"))
  assert code == 0, output


def test_a_run_starts_from_the_finished_run_of_a_gin_file_in_the_cloud(
  gcs, tmp_path, monkeypatch
):
  name = f"{gcs.folder}/base.gin"
  storage.write_text(storage.parse(name), RUN)
  (tmp_path / "run.gin").write_text(f'{RUN}\nCheckpoint.init_from = "{name}"\n')
  done = tmp_path / "runs" / "base"
  done.mkdir(parents=True)
  (done / "summary.json").write_text("{}")
  monkeypatch.chdir(tmp_path)
  parts = gin_config.load(["run.gin"], [], setup.CONFIGURABLES)
  (done / "config.gin").write_text(gin_config.text(parts))
  config = setup.RunConfig.from_parts(parts)
  first = preflight.train_first(config, argparse.Namespace(gin_files=["run.gin"]))
  assert first.checkpoint.init_from == "runs/base"


@pytest.fixture
def refused(place, monkeypatch, capfd):
  """refused(gin_file) gives the complaints of a run and of those that it waits for."""

  def refused(gin_file):
    monkeypatch.chdir(place)
    monkeypatch.setenv(preflight.TRAINED_FIRST, "")  # so that it is put back
    with pytest.raises(InputError) as error:
      train.main([f"--gin_file={gin_file}", "--workdir=never"])
    assert not (place / "never").exists()
    return f"{capfd.readouterr().err}{error.value}"

  return refused


def test_a_gin_file_that_is_wrong_is_told_before_this_run_begins(place, refused):
  (place / "wrong.gin").write_text("Train.total_stps = 3\n")
  text = RUN + '\nCheckpoint.init_from = "wrong.gin"\n'
  (place / "tuned.gin").write_text(text)
  output = refused("tuned.gin")
  assert "Train.total_stps: no such parameter" in output
  assert "training wrong.gin is not possible (see above)" in output


def test_a_run_that_starts_from_itself_is_refused(place, refused):
  for name, other in (("one", "two"), ("two", "one"), ("self", "self")):
    text = f'{RUN}\nCheckpoint.init_from = "{other}.gin"\n'
    (place / f"{name}.gin").write_text(text)
  for name in ("one", "self"):
    assert "starts from itself" in refused(f"{name}.gin")


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
