"""The wheel, without a checkout: all commands, all recipes, and on a bare machine.

A bare machine has JAX and little else: GPU images have no TensorFlow or seqio, and
installing them there is not always possible. Nor is it Linux here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from phi1_jax.telemetry.throughput import FIGURES
from phi1_jax.telemetry.writers import read_metrics

ROOT = Path(__file__).parents[1]
COMMANDS = ("train", "sample", "prepare", "compile", "convert", "curate")
MODULES = [*(f"phi1_jax.{name}" for name in COMMANDS), "evals"]
ABSENT = ("tensorflow", "seqio", "tensorflow_datasets", "grain", "torch")
ABSENT += ("transformers", "openai", "genai_prices", "wandb", "clu")

# Importing what is absent fails as if it were not installed. The functions, and the
# files in /proc and /sys, that Linux alone has are taken away.
BARE = f"""
import importlib.metadata, os, sys, time

class Without:
  def __init__(self, finder):
    self.finder = finder
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] not in {ABSENT!r}:
      return self.finder.find_spec(name, path, target)
  def __getattr__(self, name):
    return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
version = importlib.metadata.version
def without(name):
  if name in {ABSENT!r}:
    raise importlib.metadata.PackageNotFoundError(name)
  return version(name)
importlib.metadata.version = without
for module, name in (
  (os, "sched_getaffinity"), (os, "sched_setaffinity"), (time, "CLOCK_BOOTTIME")
):
  delattr(module, name)
def refuse(event, arguments):
  if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")):
    raise FileNotFoundError(2, "no such file", arguments[0])
sys.addaudithook(refuse)
"""
# Runs `python -m MODULE FLAGS` for each of its arguments, which are JSON.
EACH = """
import json, runpy, sys
for module, *flags in map(json.loads, sys.argv[1:]):
  sys.argv = [module, *flags]
  try:
    runpy.run_module(module, run_name="__main__")
  except SystemExit as ended:
    print("\\nended with", ended.code or 0, flush=True)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """A folder with the files of the wheel, as pip would unpack them."""
  place = tmp_path_factory.mktemp("installed")
  source = place / "source"
  for name in ("phi1_jax", "evals", "gin"):
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
  for name in ("pyproject.toml", "README.md"):
    shutil.copy(ROOT / name, source)
  build = "from setuptools import build_meta; build_meta.build_wheel('..')"
  subprocess.run(
    [sys.executable, "-c", build], cwd=source, check=True, capture_output=True
  )
  (wheel,) = place.glob("*.whl")
  with zipfile.ZipFile(wheel) as file:
    file.extractall(place / "site")
  return place / "site"


@pytest.fixture(scope="module")
def ran(installed, tmp_path_factory, tiny_run, words_store):
  """Name of a command -> its exit code and output; and the folder it ran in."""
  place = tmp_path_factory.mktemp("place")
  words_store(place / "store", tasks=("lines", "words"))
  changes = {"Train.total_steps": 20, "Train.log_every": 5, "Train.evaluate_every": 10}
  changes |= {"Checkpoint.every": 5, "Data.rates": {"words": 0.7, "lines": 0.3}}
  text = "include 'meshes/all_devices.gin'\n" + tiny_run(changes)
  (place / "run.gin").write_text(text)
  (place / "bare").mkdir()
  (place / "bare" / "sitecustomize.py").write_text(BARE)

  def run(commands, *path):
    done = subprocess.run(
      [sys.executable, "-u", "-c", EACH, *map(json.dumps, commands.values())],
      cwd=place,
      env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(installed)])},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=300,
    )
    assert done.returncode == 0, done.stdout
    *parts, rest = re.split(r"^ended with (\d+)\n", done.stdout, flags=re.MULTILINE)
    assert (len(parts), rest) == (2 * len(commands), "")
    endings = zip(map(int, parts[1::2]), parts[::2], strict=True)
    return dict(zip(commands, endings, strict=True))

  train = ("phi1_jax.train", "--gin_file=run.gin")
  sample = ("phi1_jax.sample", "--checkpoint=out", "--prompt=for word in")
  bare = {
    "half": (*train, "--workdir=out", "--gin.Train.stop_at_step=10"),
    "whole": (*train, "--workdir=out"),
    "again": (*train, "--workdir=out"),
    "sample": (*sample, "--max_new_tokens=4"),
    **{flag: (*train, "--workdir=wrong", flag) for flag in WRONG},
    **{module: (module, "--help") for module in MODULES},
  }
  dry = ("--dry_run", "--simulated_devices=8", "--workdir=dry")
  whole = {
    "phi1": ("phi1_jax.train", "--gin_file=pretrain.gin", *dry),
    "none": ("phi1_jax.train", "--gin_file=no_such.gin"),
  }
  return run(bare, str(place / "bare")) | run(whole), place


WRONG = {
  "--gin.Train.seed=@Mesh()": "got '@Mesh()'",
  "--gin.Data.store=elsewhere": "Data.modules registers more",
  "--gin.Runtime.wandb_project=x": "wandb is not installed",
}


def test_every_file_is_in_the_wheel(installed):
  """The data files too: recipes, prompts, problems, the page of the evals."""
  kinds = ("py", "txt", "jsonl", "css", "html", "js", "toml", "csv", "gz")

  def files(root, kind):
    return {path.relative_to(root) for path in root.rglob(f"*.{kind}")}

  for package in ("phi1_jax", "evals"):
    for kind in kinds:
      assert files(ROOT / package, kind) == files(installed / package, kind)
  recipes = installed / "phi1_jax" / "recipes"
  assert files(recipes, "gin") == files(ROOT / "gin", "gin")


PHI1 = ["1,418,270,720 parameters", "fsdp 8", "2,097,152 tokens per step"]


@pytest.mark.parametrize(
  ("name", "code", "said"),
  [
    ("half", 0, ["compiled the step"]),
    ("whole", 0, ["going on from step 10"]),
    ("again", 0, ["was done already"]),
    ("sample", 0, ["for word in"]),
    ("phi1", 0, PHI1),
    ("none", 2, ["quickstart.gin"]),
    *((name, 0, []) for name in MODULES),
    *((flag, 2, [named]) for flag, named in WRONG.items()),
  ],
)
def test_a_command_ends_as_it_should(ran, name, code, said):
  found, output = ran[0][name]
  assert found == code, output
  assert "Traceback" not in output
  assert all(text in output for text in said), output
  assert name != "again" or "compiled the step" not in output
  assert not (ran[1] / "dry").exists()


def test_the_work_directory_of_a_run(ran):
  """Of a run that was stopped, went on to its end, and was started again."""
  workdir = ran[1] / "out"
  names = {"config.gin", "metrics.jsonl", "checkpoints", "tensorboard", "loss.png"}
  names |= {"summary.json", "tokenizer.json"}
  assert names <= {path.name for path in workdir.iterdir()}
  rows = read_metrics(workdir / "metrics.jsonl")
  training = [row for row in rows if "loss" in row]
  assert [row["step"] for row in training] == [1, 5, 10, 15, 20]
  fields = {"step", "loss", "grad_norm", "learning_rate", "tokens_seen", *FIGURES}
  assert all(row.keys() == fields | {"hbm_peak_gib"} for row in training)
  evaluations = [row for row in rows if "eval/loss" in row]
  assert [row["step"] for row in evaluations] == [10, 20]
  assert training[-1]["tokens_seen"] == 20 * 4 * 16
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["loss"] == training[-1]["loss"] < np.log(320)
  assert summary["eval/loss"] == evaluations[-1]["eval/loss"]
  assert {"wall_seconds", "versions", "devices", "store"} <= summary.keys()
  assert summary["goodput"]["starts"] == 2
  steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  assert steps == [15, 20]
  # Of the two evaluated steps, 10 and 20, only the second's checkpoint is kept.
  assert summary["best_checkpoint"] == "out/checkpoints/20"
  assert "Train.log_every = 5" in (workdir / "config.gin").read_text()
  assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
