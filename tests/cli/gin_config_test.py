"""Gin files and overrides; every recipe can be read, and its parts built."""

import dataclasses
from pathlib import Path

import pytest

from evals.config import EvaluationConfig
from evals.grade import GradeConfig
from evals.study.config import StudyConfig
from phi1_jax import InputError, curate
from phi1_jax.cli import gin_config
from phi1_jax.data.config import DataConfig
from phi1_jax.llm.config import LlmConfig
from phi1_jax.training import hooks
from phi1_jax.training.setup import CONFIGURABLES, RunConfig

GIN = Path(__file__).parents[2] / "gin"


@pytest.fixture
def run(tiny_run):
  """A whole run, with a macro."""
  return tiny_run({"Train.total_steps": 1}) + "STEPS = 40\nTrain.total_steps = %STEPS\n"


@pytest.fixture
def load(tmp_path, run):
  """Loads a whole run from lines added to it, and bindings of the command line."""

  def load(lines="", *bindings, parts=CONFIGURABLES, text=run, **named):
    path = tmp_path / "run.gin"
    path.write_text(text + lines)
    return gin_config.load([str(path)], bindings, parts, **named)

  return load


@pytest.mark.parametrize(
  ("lines", "named"),
  [
    ("Modle.num_layers = 2", r"line \d+.*'Modle'.*Annotate, Checkpoint, Classifier"),
    ("Model.num_layer = 2", r"line \d+: Model.num_layer: no such parameter.*num_laye"),
    ("STEP = 3", r"run.gin, line \d+: nothing reads the macro STEP; .*: STEPS"),
    ("Train.seed = %SEEED", "%SEEED: the macro is read but never bound"),
    ("Train.seed = %gin.REQUIRED", "^Train.seed: required but not bound"),
    ("S = %gin.REQUIRED\nTrain.seed = %S", "^S: required but not bound.*--gin.S=V"),
    ("A = %B\nB = %A\nTrain.seed = %A", "in a circle"),
    ("Train.seed = True", r"Train.seed \(.*line \d+\): got True, expected"),
    ("Model.remat = None", r"Model.remat \(.*\): got None, .*matrices"),
    ("Data.modules = 'a'", r"got 'a', expected .*such as .\('a',\)"),
    ("a/Train.seed = 3", r"^a/Train.seed: nothing reads a binding with a scope"),
    ("Train.seed = = 3", r"run.gin, line \d+: .*'Train.seed = = 3"),
    ("include 'gin/nope.gin'", r"^gin/nope.gin: no such gin file"),
    ("Train.seed = @Mesh", r"Train.seed .*got '@Mesh'"),
    ("import nope_module", r"run.gin, line \d+: No module named 'nope_module'"),
    ("Data.modules = (%STEPS, 'a')", r"Data.modules .*expected a tuple"),
    ("Data.rates = {[1]: 2.0}", r"run.gin: unhashable"),
  ],
)
def test_refuses(load, lines, named):
  with pytest.raises(InputError, match=named) as error:
    load(lines + "\n")
  assert str(error.value).count("\n") <= 1
  assert "0x" not in str(error.value)  # no addresses of objects


@pytest.mark.parametrize(
  ("files", "named"),
  [
    ([], "^got no --gin_file"),
    (["gin/nope.gin"], "^gin/nope.gin: no such gin file"),
    (["gin"], "^gin: no such gin file"),
    (["meshes/h100.gin"], "no such gin file.* meshes/h100_8.gin"),
    ([str(GIN / "typo.gin")], "such gin file.* quickstart.gin"),
    (["binary.gin"], "^binary.gin: not a text file"),
    (["itself.gin"], "includes itself"),
  ],
)
def test_refuses_files(tmp_path, monkeypatch, files, named):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "binary.gin").write_bytes(bytes(range(256)))
  (tmp_path / "itself.gin").write_text("include 'itself.gin'\n")
  with pytest.raises(InputError, match=named):
    gin_config.load(files, [], CONFIGURABLES)


@pytest.mark.parametrize(
  ("text", "value"),
  [("stores/a", "stores/a"), ('"it\'s"', "it's"), ("a = b", "a = b"), ("(", "(")],
)
def test_quoting_on_the_command_line(load, text, value):
  assert load("", ("Data.store", text))["Data"].store == value


_NAME = r"expected Part\.parameter or MACRO"
_STORE = r"Data.store \(--gin.Data.store\): got .*expected"
_LATER = "OTHER = 3\nTrain.total_steps = %OTHER"
_TWICE = "A = 1\nB = %A\nTrain.seed = %B\nTrain.seed = 2"


@pytest.mark.parametrize(
  ("lines", "bindings", "named"),
  [
    # A file that comes later binds what the macro was for.
    (
      "Train.total_steps = 30",
      [("STEPS", "50")],
      r"line \d+ binds Train.total_steps = ",
    ),
    (_LATER, [("STEPS", "5")], r"= %OTHER.*--gin.*total_steps=5"),
    (_TWICE, [("A", "5")], "--gin.A"),
    ("", [("Evaluation.num_samples", "6")], "has no effect: this command reads"),
    ("", [("Train.seed", "4"), ("Train.seed", "5")], "twice, with 4 and 5"),
    # What is no value, or no name.
    *(("", [("Data.store", x)], _STORE) for x in ("@Mesh", "@Mesh()", "(%STEPS, 'a')")),
    ("", [("Data.store", "")], r"Data\.store"),
    ("", [("Train.seed", "3\nTrain.batch_size = 16")], r"'3\\nTrain\.batch_size"),
    *(
      ("", [(name, "3")], _NAME)
      for name in ("a/Train.seed", "", "Train.seed.x", "Train.", "3")
    ),
  ],
)
def test_refuses_on_the_command_line(load, lines, bindings, named):
  with pytest.raises(InputError, match=named):
    load(lines, *bindings)


@pytest.mark.parametrize(
  ("lines", "bindings"),
  [
    ("A = 1\nB = %A\nTrain.seed = %B", [("A", "5")]),
    ("A = 5\nTrain.seed = %A  # once %B", []),
    ("Train.seed = 5", [("STEPS", "40")]),  # the value that it has anyway
  ],
)
def test_an_override_with_effect_is_taken(load, lines, bindings):
  assert load(lines, *bindings)["Train"].seed == 5


def test_builds_every_part_and_text_goes_through_load_again(load):
  lines = "Data.modules = ['a', 'b']\nTrain.stop_at_step = 30\nMesh.data = 2\n"
  parts = load(
    f"{lines}Data.rates = {{'ü\"': 0.5}}\nOptimizer.peak_learning_rate = 1\n"
  )
  assert all(type(parts[name]) is cls for name, cls in CONFIGURABLES.items())
  assert (parts["Train"].total_steps, parts["Train"].stop_at_step) == (40, 30)
  assert parts["Data"].modules == ("a", "b")  # gin's list, made hashable
  assert type(parts["Optimizer"].peak_learning_rate) is float
  odd = "a'\\\n% = #"
  parts["Checkpoint"] = dataclasses.replace(parts["Checkpoint"], resume_from=odd)
  assert load(text=gin_config.text(parts)) == parts
  assert "%" not in gin_config.text(load())


def test_later_files_and_flags_win(tmp_path, monkeypatch):
  """Files and their includes are found from another folder too."""
  monkeypatch.chdir(tmp_path)
  files = ["gin/quickstart.gin", "gin/models/phi1_small.gin"]
  flags = [("TOTAL_STEPS", "7"), ("Model.num_layers", "3"), ("Train.log_every", "1")]
  parts = gin_config.load(files, flags, CONFIGURABLES)
  assert parts["Train"].total_steps == 7
  assert parts["Model"].num_layers == 3  # the flag's, not phi1_small's 20
  assert parts["Model"].embed_dim == 1024


def test_a_command_that_builds_one_part_reads_a_whole_run(load, run):
  only = {"Data": DataConfig}
  parts = load(parts=only)
  assert parts["Data"].mixture == "words"
  assert len(parts) == 1
  with pytest.raises(InputError, match="Modle"):
    load("Modle.x = 1\n", parts=only)
  # A macro counts as read by a part that this command leaves alone, but not by none.
  with pytest.raises(InputError, match=r"nothing reads the macro STPES; .*: STEPS"):
    load("STPES = 1\n", parts=only)
  for binding in [("Train.seed", "1"), ("STEPS", "9")]:
    with pytest.raises(InputError, match="has no effect: this command reads Data"):
      load("", binding, parts=only)
    assert load("", binding, parts=only, partial=True)
  with pytest.raises(InputError, match=r"^Train.batch_size: required but not bound"):
    load(text=run.replace("Train.batch_size = 4\n", ""))


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
  assert hooks.find(config.runtime).keys() == config.runtime.hooks.keys()
  if name in PAPER:
    assert config.model.num_parameters() == 1_418_270_720
    assert config.train.sequence_length == 2048
    train, optimizer = config.train, config.optimizer
    numbers = train.batch_size, train.total_steps, optimizer.peak_learning_rate
    assert (*numbers, optimizer.warmup_steps, optimizer.weight_decay) == PAPER[name]


@pytest.mark.parametrize("name", names(GIN / "evals"))
def test_an_evaluation(name):
  classes = EVALUATIONS.get(name, {"Evaluation": EvaluationConfig})
  parts = gin_config.load([f"gin/evals/{name}.gin"], [], classes)
  assert parts.keys() == classes.keys()


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
