"""The wheel, in a folder without the checkout: all commands and all recipes."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = ("train", "sample", "prepare", "compile", "convert", "curate")
# What Linux alone has is taken away: files in /proc and /sys, and these functions.
ELSEWHERE = """
import os, sys, time
for module, name in (
  (os, "sched_getaffinity"), (os, "sched_setaffinity"), (time, "CLOCK_BOOTTIME")
):
  delattr(module, name)
def refuse(event, arguments):
  if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")):
    raise FileNotFoundError(2, "no such file", arguments[0])
sys.addaudithook(refuse)
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


@pytest.fixture
def run(installed, tmp_path):
  """Runs `python -m WORDS` in an empty folder; returns its exit code and output."""

  def run(*words, elsewhere=False):
    path = [str(installed)]
    if elsewhere:
      (tmp_path / "elsewhere").mkdir()
      (tmp_path / "elsewhere" / "sitecustomize.py").write_text(ELSEWHERE)
      path.insert(0, str(tmp_path / "elsewhere"))
    done = subprocess.run(
      [sys.executable, "-m", *words],
      cwd=tmp_path,
      env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=300,
    )
    return done.returncode, done.stdout

  return run


def test_every_file_is_in_the_wheel(installed):
  """The data files too: recipes, prompts, problems, the page of the evals."""
  kinds = ("py", "txt", "jsonl", "css", "html", "js", "toml", "csv", "gz")

  def files(root, package, kind):
    return {path.relative_to(root) for path in (root / package).rglob(f"*.{kind}")}

  for package in ("phi1_jax", "evals"):
    for kind in kinds:
      assert files(ROOT, package, kind) == files(installed, package, kind)
  recipes = {path.relative_to(ROOT / "gin") for path in (ROOT / "gin").rglob("*.gin")}
  shipped = installed / "phi1_jax" / "recipes"
  assert {path.relative_to(shipped) for path in shipped.rglob("*.gin")} == recipes


def test_every_command_starts(run, tmp_path):
  (tmp_path / "helps.py").write_text(
    "import runpy, sys\nmodules, sys.argv[1:] = sys.argv[1:], ['--help']\n"
    "for module in modules:\n"
    "  try: runpy.run_module(module, run_name='__main__')\n"
    "  except SystemExit as ended: assert not ended.code, module\n"
    "  else: assert False, module\n"
  )
  code, output = run("helps", *(f"phi1_jax.{name}" for name in COMMANDS), "evals")
  assert code == 0, output


def test_a_recipe_from_any_folder(run):
  code, output = run("phi1_jax.train", "--gin_file=quickstart.gin", "--dry_run")
  assert code == 0, output
  assert "nothing was run" in output
  code, output = run("phi1_jax.train", "--gin_file=no_such.gin")
  assert code == 2
  assert "quickstart.gin" in output


def test_a_model_is_trained_and_sampled_on_a_machine_that_is_not_linux(
  run, tmp_path, words_store
):
  words_store(tmp_path / "store", tasks=("lines", "words"))
  (tmp_path / "run.gin").write_text(
    "include 'models/nano.gin'\ninclude 'meshes/all_devices.gin'\n"
    "Model.vocabulary_size = 320\nTrain.total_steps = 3\nTrain.batch_size = 4\n"
    "Train.sequence_length = 16\nOptimizer.peak_learning_rate = 1e-2\n"
    "Optimizer.warmup_steps = 1\nOptimizer.weight_decay = 0.1\n"
    "Data.mixture = 'words'\nData.store = 'store'\nData.tokenizer = 'train'\n"
    "Data.trained_vocabulary_size = 300\n"
    "Data.rates = {'words': 0.7, 'lines': 0.3}\n"
  )
  flags = ("--gin_file=run.gin", "--workdir=out")
  code, output = run("phi1_jax.train", *flags, elsewhere=True)
  assert code == 0, output
  words = ("--checkpoint=out", "--prompt=for", "--max_new_tokens=2")
  code, output = run("phi1_jax.sample", *words)
  assert code == 0, output
