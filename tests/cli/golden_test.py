"""What every run of gin/ comes to when its includes and macros are resolved."""

import os
from pathlib import Path

import pytest

from evals.config import EvaluationConfig
from evals.grading.asking import GradeConfig
from evals.study.config import StudyConfig
from phi1_jax import curate
from phi1_jax.cli import gin_config
from phi1_jax.llm.config import LlmConfig
from phi1_jax.training.setup import CONFIGURABLES, RunConfig

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
RUNS = sorted(path.stem for path in (ROOT / "gin").glob("*.gin"))
EVALUATIONS = sorted(path.stem for path in (ROOT / "gin" / "evals").glob("*.gin"))
EVALUATIONS.remove("study_recipe")  # a part of a run; the study adds the rest
_OTHER_EVALUATIONS = {
  "grade": {"Grade": GradeConfig, "Llm": LlmConfig},
  "study": {"Study": StudyConfig},
  "study_full": {"Study": StudyConfig},
  "study_smoke": {"Study": StudyConfig},
}
CURATIONS = sorted(path.stem for path in (ROOT / "gin" / "curate").glob("*.gin"))
UPDATE = "UPDATE_GOLDEN=1 python -m pytest tests/cli/golden_test.py"


@pytest.mark.parametrize("name", RUNS)
def test_run_composes_to_its_golden_file(name):
  parts = gin_config.load([f"gin/{name}.gin"], [], CONFIGURABLES)
  RunConfig(**{name.lower(): part for name, part in parts.items()})  # it builds
  _compare(name, gin_config.text(parts))


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation_composes_to_its_golden_file(name):
  classes = _OTHER_EVALUATIONS.get(name, {"Evaluation": EvaluationConfig})
  parts = gin_config.load([f"gin/evals/{name}.gin"], [], classes)
  _compare(f"evals/{name}", gin_config.text(parts))


@pytest.mark.parametrize("name", CURATIONS)
def test_curation_composes_to_its_golden_file(name):
  file = f"gin/curate/{name}.gin"
  bound = {line.split(".")[0] for line in (ROOT / file).read_text().splitlines()}
  classes = {n: c for n, c in curate.CONFIGURABLES.items() if n in bound}
  files = [file]
  if name == curate.ALL:
    classes = {config.gin_name: config for _, config in curate.STAGES.values()}
  elif len(classes) > 1:  # it goes after the file of any stage
    files.insert(0, f"gin/curate/{curate.ALL}.gin")
  _compare(f"curate/{name}", gin_config.text(gin_config.load(files, [], classes)))


def _compare(name, text):
  path = GOLDEN / f"{name}.gin"
  if os.environ.get("UPDATE_GOLDEN"):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
  golden = path.read_text() if path.exists() else ""
  assert text == golden, f"gin/{name}.gin has changed; if that is meant: {UPDATE}"


def test_no_golden_file_without_a_run():
  assert sorted(path.stem for path in GOLDEN.glob("*.gin")) == RUNS
  assert sorted(path.stem for path in GOLDEN.glob("evals/*.gin")) == EVALUATIONS
  assert sorted(path.stem for path in GOLDEN.glob("curate/*.gin")) == CURATIONS


def test_gin_is_no_package():
  """An __init__.py there would shadow the library gin."""
  assert not list((ROOT / "gin").rglob("*.py"))
