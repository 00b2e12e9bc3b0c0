"""The steps of a study: an order, equal steps, and plain commands."""

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


@pytest.fixture(name="steps", scope="module")
def fixture_steps():
  return plan.Plan(CONFIG, Path("runs/study"), None).steps()


def _bound(step, name):
  found = [re.match(rf"--gin\.{name}=(.*)", word) for word in step.words]
  return next((match[1] for match in found if match), "")


def _begin(folder, config, steps, benchmarks):
  settings = command.settings_of(config, steps, benchmarks)
  settings_file.begin(folder / command.SETTINGS, settings)


def test_every_step_comes_after_those_that_it_needs(steps):
  seen = set()
  for step in steps:
    assert step.name not in seen
    assert seen.issuperset(step.needs), step.name
    seen.add(step.name)


def test_every_run_is_a_training_with_a_work_directory_of_its_own(steps):
  trainings = [s for s in steps if s.words[:1] == ("phi1_jax.train",)]
  places = {w for s in trainings for w in s.words if w.startswith("--workdir=")}
  assert len(places) == 2 * 3 * 16
  names = {s.name.removesuffix("-early") for s in trainings}
  assert names == {f"train_{r.name}" for r in plan.runs(CONFIG)}


def test_a_text_goes_on_where_exercises_start_from(steps):
  words = {s.name: s.words for s in steps}
  parts = [name for name in words if name.startswith("train_") and "-early" in name]
  assert len(parts) == 2 * 3 * 3
  for name in parts:
    whole = words[name.removesuffix("-early")]
    assert words[name] == (*whole, "--gin.Train.stop_at_step=100")


def test_all_whole_arms_take_the_same_steps(steps):
  for step in steps:
    if step.words[:1] != ("phi1_jax.train",):
      continue
    length = int(_bound(step, "Train.total_steps"))
    start = _bound(step, "Checkpoint.init_from")
    before = int(start.strip("'").rsplit("/", 1)[1]) if start else 0
    expected = 300 if "exercises_alone" in step.name else 400
    assert before + length == expected, step.name


def test_exercises_start_from_the_text_of_their_own_seed_and_size(steps):
  for step in steps:
    start = _bound(step, "Checkpoint.init_from")
    if start:
      size_and_seed = step.name.split("-", 1)[1]
      assert f"-{size_and_seed}/checkpoints/100'" in start
      before = start.split("/")[-3]
      assert f"train_{before}-early" in step.needs


def test_every_model_is_judged_once_on_all_tiers_at_its_last_checkpoint(steps):
  trained = {s.name: s for s in steps if s.words[:1] == ("phi1_jax.train",)}
  judged = [s for s in steps if s.words[:2] == ("evals", "judge")]
  assert len(judged) == 2 * 3 * 16
  for step in judged:
    sets = [w for w in step.words if w.startswith("--task_set=")]
    assert len(sets) == len(set(sets)) >= 5
    run = trained[step.name.replace("judge_", "train_")]
    checkpoint = next(w for w in step.words if w.startswith("--checkpoint="))
    assert Path(checkpoint).name == _bound(run, "Train.total_steps")
    assert run.name in step.needs


def test_benchmarks_are_asked_of_the_arms_of_the_figure(steps):
  asked = {s.name for s in steps if "--task_set=humaneval-164" in s.words}
  assert asked == {
    f"judge_{arm}-{size}-{seed}"
    for arm in ("raw", "textbooks", "textbooks_exercises")
    for size in ("1M", "3M")
    for seed in (0, 1, 2)
  }


def test_a_plan_says_what_is_done_and_what_is_left(tmp_path, capsys, monkeypatch):
  monkeypatch.delenv(mbpp.ENVIRONMENT, raising=False)
  file = "gin/evals/study.gin"
  config = gin_config.load([file], [], {"Study": StudyConfig})["Study"]
  steps = plan.Plan(config, tmp_path, None).steps()

  def told():
    flags = [f"--gin_file={file}", f"--workdir={tmp_path}", "--plan"]
    assert command_line.main(["study", *flags]) == 0
    return capsys.readouterr().out.splitlines()

  total = sum(s.seconds for s in steps)
  before = told()
  assert before[0].split()[:4] == ["ruler", "about", "10", "s"]
  assert f"0 done; left: about {total:,} core-seconds" in before[-1]
  row = {"step": "ruler", "digest": steps[0].digest, "seconds": 7.2}
  other = {"step": "pool", "digest": "of other settings", "seconds": 1.0}
  lines = [json.dumps(each) + "\n" for each in (row, other)]
  (tmp_path / graph.STEPS).write_text("".join(lines))
  after = told()
  assert after[0].split()[:5] == ["ruler", "done", "in", "7", "s"]
  assert f"1 done; left: about {total - 10:,} core-seconds" in after[-1]


def test_a_plan_is_of_the_study_that_the_folder_holds(tmp_path, monkeypatch):
  monkeypatch.delenv(mbpp.ENVIRONMENT, raising=False)
  flags = ["--gin_file=gin/evals/study.gin", f"--workdir={tmp_path}", "--plan"]
  config = gin_config.load(flags[0].split("=")[1:], [], {"Study": StudyConfig})["Study"]
  _begin(tmp_path, config, plan.Plan(config, tmp_path, None).steps(), None)
  with pytest.raises(InputError, match=r"begun with .*steps = 8000, now it is 3200"):
    command_line.main(["study", *flags, "--gin.Study.steps=3200"])


@pytest.mark.parametrize(
  ("told", "expected"),
  [
    ({"steps": 160, "text_steps": 80}, "raw-1M-0-early: .*warmup_steps: got 200"),
    ({"steps": 300, "text_steps": 150}, "raw_exercises-1M-0: .*the run's 150 steps"),
    ({"models": {"1M": "gin/meshes/v5e_8.gin"}}, "Model.*: required but not bound"),
    ({"vocabulary_size": 64}, "prepare_vocabulary: .*expected an integer >= 295"),
  ],
)
def test_what_no_training_could_have_is_refused_by_the_plan(told, expected, tmp_path):
  flags = [f"--gin.Study.{name}={value!r}" for name, value in told.items()]
  with pytest.raises(InputError, match=expected):
    command_line.main(["study", f"--workdir={tmp_path}", "--plan", *flags])


def test_mbpp_is_judged_only_where_it_is(steps):
  def sets(found):
    return {w for s in found for w in s.words if "mbpp" in w}

  assert sets(steps) == set()
  there = plan.Plan(CONFIG, Path("runs/study"), "/data").steps()
  assert "--task_set=mbpp-full-500" in sets(there)


def test_a_study_goes_on_with_more_seeds(tmp_path):
  config = dataclasses.replace(
    CONFIG, recipe=RECIPE, models={"1M": "gin/models/nano.gin"}, seeds=(0,), jobs=2
  )
  more = dataclasses.replace(config, seeds=(0, 1), jobs=3)
  few, many = (plan.Plan(c, tmp_path, None).steps() for c in (config, more))
  _begin(tmp_path, config, few, None)
  _begin(tmp_path, more, many, None)
  done, wanted = ({(s.name, s.digest) for s in each} for each in (few, many))
  assert done < wanted
  assert all(name.split("-")[-1] in ("1", "early") for name, _ in wanted - done)
  with pytest.raises(InputError, match="first_seed"):
    _begin(tmp_path, dataclasses.replace(config, seeds=(1, 0)), many, None)
  with pytest.raises(InputError, match="MBPP"):
    _begin(tmp_path, config, few, "/data")


def test_a_study_notes_every_gin_file_and_the_version_of_its_materials(
  tmp_path, monkeypatch
):
  config = dataclasses.replace(
    CONFIG, recipe=RECIPE, models={"1M": "gin/models/nano.gin"}
  )
  steps = plan.Plan(config, tmp_path, None).steps()
  _begin(tmp_path, config, steps, None)
  begun = storage.read_json(tmp_path / command.SETTINGS)
  included = "gin/meshes/all_devices.gin"
  read = (RECIPE, included, "gin/models/nano.gin", "gin/curate/decontaminate.gin")
  assert begun["settings"].keys() >= {f"file {name}" for name in read}
  monkeypatch.setattr(materials, "VERSION", materials.VERSION + 1)
  with pytest.raises(InputError, match="materials"):
    _begin(tmp_path, config, steps, None)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("steps", 0),
    ("steps", 350),
    ("text_steps", 0),
    ("text_steps", 25),
    ("text_steps", 400),
    ("models", {}),
    ("seeds", ()),
    ("seeds", (1, 1)),
    ("seeds", (0, -1)),
    ("wrong_share", 1.0),
    ("taus", (1.5,)),
    ("taus", (0.95, 0.9500001)),
    ("sampled", 1),
    ("few", 0),
    ("jobs", -1),
  ],
)
def test_a_study_of_nothing_is_refused_by_name(field, value):
  with pytest.raises(InputError, match=f"Study.{field}"):
    dataclasses.replace(CONFIG, **{field: value})


def test_a_binding_of_the_trainings_is_refused():
  with pytest.raises(InputError, match="a study takes"):
    command_line.main(["study", "--plan", "--gin.Train.batch_size=64"])
