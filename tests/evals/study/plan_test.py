"""The arms and steps of a study: an order, equal steps, and plain commands."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from evals import __main__ as command_line
from evals.study import command, graph, materials, plan
from evals.study.config import StudyConfig
from phi1_jax import InputError, storage
from phi1_jax.cli import gin_config
from phi1_jax.problems import mbpp
from phi1_jax.text import settings_file

RECIPE = "gin/evals/study_recipe.gin"
CONFIG = StudyConfig(
  "recipe.gin", {"1M": "a.gin", "3M": "b.gin"}, 400, 100, seeds=(0, 1, 2)
)
NANO = dataclasses.replace(
  CONFIG, recipe=RECIPE, models={"1M": "gin/models/nano.gin"}, seeds=(0,)
)


def _steps(config=CONFIG, folder=Path("runs/study"), benchmarks=None):
  return plan.Plan(config, folder, benchmarks).steps()


def _bound(step, name):
  found = [re.match(rf"--gin\.{name}=(.*)", word) for word in step.words]
  return next((match[1] for match in found if match), "")


def _begin(folder, config, steps, benchmarks=None):
  settings = command.settings_of(config, steps, benchmarks)
  settings_file.begin(folder / command.SETTINGS, settings)


def test_every_step_comes_after_those_that_it_needs():
  seen = set()
  for step in _steps():
    assert step.name not in seen
    assert seen.issuperset(step.needs), step.name
    seen.add(step.name)


def test_trainings():
  """Of 16 arms, two sizes and three seeds."""
  trainings = [s for s in _steps() if s.words[:1] == ("phi1_jax.train",)]
  places = {w for s in trainings for w in s.words if w.startswith("--workdir=")}
  assert len(places) == 2 * 3 * 16
  words = {s.name: s.words for s in trainings}
  names = {name.removesuffix("-early") for name in words}
  assert names == {f"train_{r.name}" for r in plan.runs(CONFIG)}
  # A text goes on where exercises start from.
  early = [name for name in words if name.endswith("-early")]
  assert len(early) == 2 * 3 * 3
  for name in early:
    whole = words[name.removesuffix("-early")]
    assert words[name] == (*whole, "--gin.Train.stop_at_step=100")
  for step in trainings:
    start = _bound(step, "Checkpoint.init_from")
    if start:  # the text of their own seed and size
      before, _, last = start.strip("'").split("/")[-3:]
      assert last == "100"
      assert before.endswith("-" + step.name.split("-", 1)[1])
      assert f"train_{before}-early" in step.needs
    # Whole arms take the same steps.
    length = 100 * bool(start) + int(_bound(step, "Train.total_steps"))
    assert length == (300 if "exercises_alone" in step.name else 400), step.name


@pytest.mark.parametrize("benchmarks", [None, "/data"])
def test_every_model_is_judged_once_on_all_tiers_at_its_last_checkpoint(benchmarks):
  steps = {step.name: step for step in _steps(NANO, benchmarks=benchmarks)}
  judged = [s for s in steps.values() if s.words[:2] == ("evals", "judge")]
  assert len(judged) == 16
  asked = set()
  for step in judged:
    sets = [w for w in step.words if w.startswith("--task_set=")]
    assert len(sets) == len(set(sets)) >= 5
    asked |= {step.name} if "--task_set=humaneval-164" in sets else set()
    # MBPP is judged only where it is.
    assert ("--task_set=mbpp-full-500" in sets) == (
      "--task_set=humaneval-164" in sets and benchmarks is not None
    )
    run = steps[step.name.replace("judge_", "train_")]
    checkpoint = next(w for w in step.words if w.startswith("--checkpoint="))
    assert Path(checkpoint).name == _bound(run, "Train.total_steps")
    assert run.name in step.needs
  figure = ("raw", "textbooks", "textbooks_exercises")
  assert asked == {f"judge_{arm}-1M-0" for arm in figure}


def test_a_plan_says_what_is_done_and_what_is_left(tmp_path, capsys, monkeypatch):
  monkeypatch.delenv(mbpp.ENVIRONMENT, raising=False)
  file = "gin/evals/study.gin"
  config = gin_config.load([file], [], {"Study": StudyConfig})["Study"]
  steps = _steps(config, tmp_path)
  row = {"step": "ruler", "digest": steps[0].digest, "seconds": 7.2}
  other = {"step": "pool", "digest": "of other settings", "seconds": 1.0}
  lines = [json.dumps(each) + "\n" for each in (row, other)]
  (tmp_path / graph.STEPS).write_text("".join(lines))
  flags = ["study", f"--gin_file={file}", f"--workdir={tmp_path}", "--plan"]
  assert command_line.main(flags) == 0
  shown = capsys.readouterr().out.splitlines()
  assert shown[0].split()[:5] == ["ruler", "done", "in", "7", "s"]
  assert shown[1].split()[:4] == ["pool", "about", "10", "s"]
  total = sum(step.seconds for step in steps[1:])
  assert f"1 done; left: about {total:,} core-seconds" in shown[-1]
  _begin(tmp_path, config, steps)
  with pytest.raises(InputError, match=r"begun with .*steps = 8000, now it is 3200"):
    command_line.main([*flags, "--gin.Study.steps=3200"])


@pytest.mark.parametrize(
  ("bound", "expected"),
  [
    (
      {"Study.steps": 160, "Study.text_steps": 80},
      "raw-1M-0-early: .*warmup_steps.*: got 200",
    ),
    ({"Study.steps": 300, "Study.text_steps": 150}, "raw_exercises-1M-0: .*150 steps"),
    (
      {"Study.models": {"1M": "gin/meshes/v5e_8.gin"}},
      "Model.*: required but not bound",
    ),
    ({"Train.batch_size": 64}, "a study takes"),
    ({"Study.vocabulary_size": 64}, "prepare_vocabulary: .*expected an integer >= 295"),
  ],
)
def test_what_no_training_could_have_is_refused_by_the_plan(bound, expected, tmp_path):
  flags = [f"--gin.{name}={value!r}" for name, value in bound.items()]
  with pytest.raises(InputError, match=expected):
    command_line.main(["study", f"--workdir={tmp_path}", "--plan", *flags])


def test_a_study_resumes_with_more_seeds_and_nothing_else(tmp_path, monkeypatch):
  more = dataclasses.replace(NANO, seeds=(0, 1), jobs=3)
  few, many = (_steps(config, tmp_path) for config in (NANO, more))
  _begin(tmp_path, NANO, few)
  begun = storage.read_json(tmp_path / command.SETTINGS)["settings"]
  included = ("gin/meshes/all_devices.gin", "gin/curate/decontaminate.gin")
  read = (RECIPE, "gin/models/nano.gin", *included)
  assert begun.keys() >= {f"file {name}" for name in read}
  _begin(tmp_path, more, many)
  done, wanted = ({(s.name, s.digest) for s in each} for each in (few, many))
  assert done < wanted
  assert all(name.split("-")[-1] in ("1", "early") for name, _ in wanted - done)
  with pytest.raises(InputError, match="first_seed"):
    _begin(tmp_path, dataclasses.replace(NANO, seeds=(1, 0)), many)
  with pytest.raises(InputError, match="MBPP"):
    _begin(tmp_path, NANO, few, "/data")
  monkeypatch.setattr(materials, "VERSION", materials.VERSION + 1)
  with pytest.raises(InputError, match="materials"):
    _begin(tmp_path, NANO, few)


@pytest.mark.parametrize(
  ("field", "values"),
  [
    ("steps", [350]),
    ("text_steps", [25, 400]),
    ("models", [{}, {"1-M": "a.gin"}]),
    ("seeds", [(), (1, 1)]),
    ("taus", [(0.95, 0.9500001)]),
    ("sampled", [1]),
    ("few", [12_000]),
  ],
)
def test_a_study_of_nothing_is_refused_by_name(field, values):
  for value in values:
    with pytest.raises(InputError, match=f"Study.{field}"):
      dataclasses.replace(CONFIG, **{field: value})
