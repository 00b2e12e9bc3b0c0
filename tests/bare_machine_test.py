"""On a machine with JAX and little else, a prepared store can be trained on.

GPU images have no TensorFlow, seqio or Grain, and installing them there is not always
possible.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phi1_jax.telemetry.writers import read_metrics

ROOT = Path(__file__).parents[1]
RUN = """
include 'gin/models/micro.gin'
include 'gin/meshes/all_devices.gin'

STEPS = 40  # of which the first start does half
Model.vocabulary_size = 320
Model.num_layers = 1
Model.num_heads = 2
Model.head_dim = 4
Model.rotary_dim = 2
Model.embed_dim = 8
Model.mlp_dim = 16
Train.total_steps = %STEPS
Train.batch_size = 4
Train.sequence_length = 16
Train.log_every = 10
Optimizer.peak_learning_rate = 1e-2
Optimizer.warmup_steps = 20
Optimizer.weight_decay = 0.1
Data.mixture = "words"
Data.store = "store"
Data.tokenizer = "train"
Data.trained_vocabulary_size = 300
Data.rates = {
  "words": 0.7,
  "lines": 0.3,
}
Checkpoint.every = 20
Runtime.compilation_cache = "compiled"
"""
ABSENT = ("tensorflow", "seqio", "tensorflow_datasets", "grain", "torch")
ABSENT += ("transformers", "openai", "genai_prices", "wandb", "clu")

# Importing what is absent fails as if it were not installed.
BARE = f"""
import importlib.metadata, sys

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
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, words_store):
  """A folder with run.gin and a store of two tasks."""
  place = tmp_path_factory.mktemp("bare")
  (place / "run.gin").write_text(RUN)
  words_store(place / "store", tasks=("lines", "words"))
  return place


# Runs `python -m MODULE FLAGS` for each of its arguments, which are JSON.
EACH = """
import json, runpy
for module, *flags in map(json.loads, sys.argv[1:]):
  sys.argv = [module, *flags]
  try:
    runpy.run_module(module, run_name="__main__")
  except SystemExit as ended:
    print("\\nended with", ended.code, flush=True)
"""


def commands(place, *each, bare=True):
  """Runs `python -m MODULE FLAGS` in the place, all in one process.

  Returns:
    Exit code and output of each.
  """
  program = (BARE if bare else "import sys") + EACH
  done = subprocess.run(
    [sys.executable, "-u", "-c", program, *map(json.dumps, each)],
    cwd=place,
    env={**os.environ, "PYTHONPATH": str(ROOT)},  # evals is not installed
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stdout
  *parts, rest = re.split(r"^ended with (\d+)\n", done.stdout, flags=re.MULTILINE)
  assert (len(parts), rest) == (2 * len(each), "")
  return [(int(code), text) for text, code in zip(parts[::2], parts[1::2], strict=True)]


WRONG = {
  "--gin.Modle.num_layers=2": "no configurable has the name 'Modle'",
  "--gin.Train.seed=@Mesh()": "got '@Mesh()'",
  "--gin.Data.store=elsewhere": "Data.modules registers more",
  "--gin.Runtime.wandb_project=x": "wandb is not installed",
}
OTHERS = ("phi1_jax.convert", "phi1_jax.prepare", "evals")
TRAIN = ("phi1_jax.train", "--gin_file=run.gin")
SAMPLE = ("phi1_jax.sample", "--checkpoint=bare", "--prompt=for word in")


@pytest.fixture(scope="module")
def bare(place):
  """Commands on the bare machine: name -> exit code and output."""
  each = {
    "half": (*TRAIN, "--workdir=bare", "--gin.Train.stop_at_step=20"),
    "whole": (*TRAIN, "--workdir=bare"),
    "sample": (*SAMPLE, "--max_new_tokens=4"),
    **{flag: (*TRAIN, "--workdir=wrong", flag) for flag in WRONG},
    **{name: (name, "--help") for name in OTHERS},
  }
  return dict(zip(each, commands(place, *each.values()), strict=True))


def test_a_run_that_was_stopped_is_the_run_that_a_full_machine_makes(place, bare):
  """The same configuration, windows and losses: two loaders, one run."""
  for start in ("half", "whole"):
    assert bare[start][0] == 0, bare[start]
    assert "Traceback" not in bare[start][1]
  assert "going on from step 20" in bare["whole"][1]
  ((code, output),) = commands(place, (*TRAIN, "--workdir=full"), bare=False)
  assert code == 0, output
  runs = [place / "bare", place / "full"]
  configs = {(run / "config.gin").read_text() for run in runs}
  assert len(configs) == 1
  losses = [
    {
      (row["step"], name): row[name]
      for row in read_metrics(run / "metrics.jsonl")
      for name in ("loss", "grad_norm", "eval/loss")
      if name in row and row["step"] in (1, 10, 20, 30, 40)
    }
    for run in runs
  ]
  assert losses[0] == losses[1]
  assert json.loads((runs[0] / "summary.json").read_text())["step"] == 40


@pytest.mark.parametrize(("flag", "named"), WRONG.items())
def test_wrong_input(bare, flag, named):
  code, output = bare[flag]
  assert code == 2, output
  assert named in output
  assert "Traceback" not in output


@pytest.mark.parametrize("name", ["sample", *OTHERS])
def test_other_commands_work(bare, name):
  code, output = bare[name]
  assert code == 0, output
  assert name != "sample" or "for word in" in output
