"""Every recipe of gin/ can be read, and its parts built."""

from pathlib import Path

import pytest

from evals.config import EvaluationConfig
from evals.grading.asking import GradeConfig
from evals.study.config import StudyConfig
from phi1_jax import curate
from phi1_jax.cli import gin_config
from phi1_jax.llm.config import LlmConfig
from phi1_jax.training.setup import CONFIGURABLES, RunConfig

GIN = Path(__file__).parents[2] / "gin"
# Batch, steps, peak rate, warmup and weight decay of the paper.
PAPER = {
  "pretrain": (1024, 36_000, 1e-3, 750, 0.1),
  "finetune": (256, 6_000, 1e-4, 50, 0.01),
}
EVALUATIONS = {
  "grade": {"Grade": GradeConfig, "Llm": LlmConfig},
  **{key: {"Study": StudyConfig} for key in ("study", "study_full", "study_smoke")},
}


def names(folder):
  """The recipes of a folder; study_recipe is a part of a run."""
  return sorted(
    path.stem for path in folder.glob("*.gin") if "_recipe" not in path.stem
  )


@pytest.mark.parametrize("name", names(GIN))
def test_a_run(name):
  parts = gin_config.load([f"gin/{name}.gin"], [], CONFIGURABLES)
  config = RunConfig.from_parts(parts)
  assert config.train.sequence_length <= config.model.max_length
  if name in PAPER:
    assert config.model.num_parameters() == 1_418_270_720
    assert config.train.sequence_length == 2048
    train, optimizer = config.train, config.optimizer
    numbers = train.batch_size, train.total_steps, optimizer.peak_learning_rate
    assert (*numbers, optimizer.warmup_steps, optimizer.weight_decay) == PAPER[name]


@pytest.mark.parametrize("name", names(GIN / "evals"))
def test_an_evaluation(name):
  classes = EVALUATIONS.get(name, {"Evaluation": EvaluationConfig})
  assert (
    gin_config.load([f"gin/evals/{name}.gin"], [], classes).keys() == classes.keys()
  )


@pytest.mark.parametrize("name", names(GIN / "curate"))
def test_a_curation(name):
  file = f"gin/curate/{name}.gin"
  bound = {line.split(".")[0] for line in Path(file).read_text().splitlines()}
  classes = {n: c for n, c in curate.CONFIGURABLES.items() if n in bound}
  files = [file]
  if name == curate.ALL:
    classes = {config.gin_name: config for _, config in curate.STAGES.values()}
  elif len(classes) > 1:  # it goes after the file of any stage
    files.insert(0, f"gin/curate/{curate.ALL}.gin")
  assert gin_config.load(files, [], classes).keys() == classes.keys()


def test_gin_is_no_package():
  """An __init__.py there would shadow the library gin."""
  assert not list(GIN.rglob("*.py"))
