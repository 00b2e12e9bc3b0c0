import dataclasses

import pytest

from phi1_jax import InputError, curate, prepare
from phi1_jax.cli import gin_config
from phi1_jax.data.config import DataConfig
from phi1_jax.training.setup import CONFIGURABLES

RUN = """
STEPS = 40
Train.total_steps = %STEPS
Train.batch_size = 8
Train.sequence_length = 16
Model.vocabulary_size = 64
Model.num_layers = 2
Model.num_heads = 2
Model.head_dim = 4
Model.rotary_dim = 2
Model.embed_dim = 8
Model.mlp_dim = 16
Model.max_length = 16
Optimizer.peak_learning_rate = 1
Optimizer.warmup_steps = 2
Optimizer.weight_decay = 0.1
Data.mixture = "words"
Data.store = "stores/words"
"""


@pytest.fixture
def load(tmp_path):
  """Loads a whole run from lines added to `RUN`, and bindings of the command line."""

  def load(lines="", *bindings):
    path = tmp_path / "run.gin"
    path.write_text(RUN + lines)
    return gin_config.load([str(path)], bindings, CONFIGURABLES)

  return load


def test_builds_every_part(load):
  parts = load("Data.modules = ['a', 'b']\nTrain.stop_at_step = 30\n")
  assert set(parts) == set(CONFIGURABLES)
  assert all(type(parts[name]) is cls for name, cls in CONFIGURABLES.items())
  assert parts["Train"].total_steps == 40
  assert parts["Train"].stop_at_step == 30
  assert parts["Train"].log_every == 10  # a default
  assert parts["Data"].modules == ("a", "b")  # gin's list, made hashable
  assert type(parts["Optimizer"].peak_learning_rate) is float  # from 1


def test_loads_do_not_mix(load):
  assert load("", ("Train.seed", "7"))["Train"].seed == 7
  assert load("")["Train"].seed == 0


def test_later_files_and_flags_win():
  files = ["gin/quickstart.gin", "gin/models/phi1_small.gin"]
  flags = [("TOTAL_STEPS", "7"), ("Model.num_layers", "3"), ("Train.log_every", "1")]
  parts = gin_config.load(files, flags, CONFIGURABLES)
  assert parts["Train"].total_steps == 7
  assert parts["Model"].num_layers == 3  # the flag's, not phi1_small's 20
  assert parts["Model"].embed_dim == 1024


@pytest.mark.parametrize(
  ("lines", "named"),
  [
    ("NAME = 1\nData.store = 'stores/%NAME'", "nothing reads the macro NAME"),
    ("Modle.num_layers = 2", r"line \d+.*'Modle'.*Annotate, Checkpoint, Classifier"),
    ("Model.num_layer = 2", r"line \d+: Model.num_layer: no such parameter.*num_laye"),
    ("STEP = 3", r"run.gin, line \d+: nothing reads the macro STEP; .*: STEPS"),
    ("Train.seed = %SEEED", "%SEEED: the macro is read but never bound"),
    ("Train.seed = %gin.REQUIRED", "^Train.seed: required but not bound"),
    ("S = %gin.REQUIRED\nTrain.seed = %S", "^S: required but not bound.*--gin.S=V"),
    ("A = %gin.REQUIRED\nS = %A\nTrain.seed = %S", "^A: required but not bound"),
    ("A = %B\nB = %A\nTrain.seed = %A", "in a circle"),
    ("Train.seed = True", r"Train.seed \(.*line \d+\): got True, expected"),
    ("Train.seed = -1", r"Train.seed \(.*line \d+\): got -1, expected"),
    ("Model.remat = None", r"Model.remat \(.*\): got None, .*matrices"),
    ("Data.modules = 'a'", r"got 'a', expected .*such as .\('a',\)"),
    ("Data.rates = {'a': True}", r"Data.rates .*got \{'a': True\}"),
    ("a/Train.seed = 3", r"^a/Train.seed: nothing reads a binding with a scope"),
    ("Train.seed = = 3", r"run.gin, line \d+: .*'Train.seed = = 3"),
    ("Data.rates = {'a': 1", r"run.gin: a bracket or quote is never closed"),
    ("include 'gin/nope.gin'", r"^gin/nope.gin: no such gin file"),
    ("Data.modules = 'a', 'b'", r"run.gin, line \d+: .*Data.modules"),
    ("Train.seed 3", r"run.gin, line \d+: .*Train.seed 3"),
    ("Train.seed = @Mesh", r"Train.seed .*got '@Mesh'"),
    ("Train.seed = @Nope()", r"'@Nope\(\)'"),
    ("import nope_module", r"run.gin, line \d+: No module named 'nope_module'"),
    ("Data.modules = (%STEPS, 'a')", r"Data.modules .*expected a tuple"),
    ("Train:\n  seed = 'a'", r"Train.seed \(.*line \d+\): got 'a', expected"),
    ("Data.rates = {[1]: 2.0}", r"run.gin: unhashable"),
  ],
)
def test_refuses(load, lines, named):
  with pytest.raises(InputError, match=named) as error:
    load(lines + "\n")
  assert str(error.value).count("\n") <= 1
  assert "0x" not in str(error.value)  # no addresses of objects


@pytest.mark.parametrize("value", ["@Mesh", "@Mesh()", "(%STEPS, 'a')"])
def test_a_flag_may_read_a_macro_but_no_reference(load, value):
  with pytest.raises(
    InputError, match=r"Data.store \(--gin.Data.store\): got .*expected"
  ):
    load("", ("Data.store", value))


def test_a_parameter_without_default_must_be_bound(tmp_path):
  path = tmp_path / "run.gin"
  path.write_text(RUN.replace("Train.batch_size = 8\n", ""))
  with pytest.raises(InputError, match=r"^Train.batch_size: required but not bound"):
    gin_config.load([str(path)], [], CONFIGURABLES)


@pytest.mark.parametrize(
  ("files", "named"),
  [
    ([], "^got no --gin_file"),
    (["gin/nope.gin"], "^gin/nope.gin: no such gin file"),
    (["gin"], "^gin: no such gin file"),
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
  [
    ("stores/a", "stores/a"),
    ("'stores/a b'", "stores/a b"),
    ('"it\'s"', "it's"),
    ("a = b", "a = b"),
    ("%", "%"),
    ("ünï", "ünï"),
    ("(", "("),
    ("", None),
    ("None", None),
  ],
)
def test_quoting_on_the_command_line(load, text, value):
  if value is None:
    with pytest.raises(InputError, match=r"Data\.store"):
      load("", ("Data.store", text))
  else:
    assert load("", ("Data.store", text))["Data"].store == value


def test_a_value_cannot_smuggle_in_a_binding(load):
  with pytest.raises(InputError, match=r"Train\.seed .*got '3\\nTrain\.batch_size"):
    load("", ("Train.seed", "3\nTrain.batch_size = 16"))


@pytest.mark.parametrize("name", ["a/Train.seed", "", "Train.seed.x", "Train.", "3"])
def test_refuses_names_on_the_command_line(load, name):
  with pytest.raises(InputError, match=r"expected Part\.parameter or MACRO"):
    load("", (name, "3"))


def test_from_another_directory(tmp_path, monkeypatch):
  """Files and their includes are found from the repository root too."""
  monkeypatch.chdir(tmp_path)
  parts = gin_config.load(["gin/quickstart.gin"], [], CONFIGURABLES)
  assert parts["Model"].num_parameters() == 1_056_512


def test_a_command_that_builds_one_part_reads_a_whole_run(tmp_path):
  path = tmp_path / "run.gin"
  path.write_text(RUN)
  parts = gin_config.load([str(path)], [], {"Data": DataConfig})
  assert parts == {"Data": DataConfig("words", "stores/words")}
  path.write_text(RUN + "Modle.x = 1\n")
  with pytest.raises(InputError, match="Modle"):
    gin_config.load([str(path)], [], {"Data": DataConfig})
  # A macro counts as read by a part that this command leaves alone, but not by none.
  path.write_text(RUN + "STPES = 1\n")
  with pytest.raises(InputError, match=r"nothing reads the macro STPES; .*: STEPS"):
    gin_config.load([str(path)], [], {"Data": DataConfig})


def test_text_goes_through_load_again(load, tmp_path):
  parts = load("Data.rates = {'ü\"': 0.5}\nData.modules = ('a',)\nMesh.data = 2\n")
  parts["Checkpoint"] = dataclasses.replace(
    parts["Checkpoint"], resume_from="a'\\\n% = #"
  )
  path = tmp_path / "config.gin"
  path.write_text(gin_config.text(parts))
  assert gin_config.load([str(path)], [], CONFIGURABLES) == parts
  assert "%" not in gin_config.text(load())


def test_parts_are_what_the_commands_register():
  registered = {*CONFIGURABLES, *curate.CONFIGURABLES, "Data", "Evaluation"}
  registered |= {"Grade", "Study"}
  assert "DataConfig" in vars(prepare)
  assert set(gin_config.CONFIGURABLES) == registered


@pytest.mark.parametrize(
  ("lines", "bindings", "expected"),
  [
    # A file that comes later binds what the macro was for.
    (
      "Train.total_steps = 30",
      [("STEPS", "50")],
      r"line \d+ binds Train.total_steps = 30",
    ),
    (
      "OTHER = 3\nTrain.total_steps = %OTHER",
      [("STEPS", "5")],
      r"= %OTHER.*total_steps=5",
    ),
    ("A = 1\nB = %A\nTrain.seed = %B\nTrain.seed = 2", [("A", "5")], None),
    ("", [("Evaluation.num_samples", "6")], "has no effect: this command reads"),
    ("", [("Train.seed", "4"), ("Train.seed", "5")], "twice, with 4 and 5"),
  ],
)
def test_an_override_without_effect_is_refused(load, lines, bindings, expected):
  with pytest.raises(InputError, match=expected) as error:
    load(lines, *bindings)
  assert "--gin." in str(error.value)


@pytest.mark.parametrize(
  ("lines", "bindings"),
  [
    ("A = 1\nB = %A\nTrain.seed = %B", [("A", "5")]),
    ("A = 5\nTrain.seed = %A  # once %B", []),
    ("A = 1\nData.rates = {\n  'x': 1.0,\n}\nTrain.seed = %A", [("A", "5")]),
    ("Train.seed = 4", [("Train.seed", "5")]),
    ("Train.seed = 5", [("STEPS", "40")]),  # the value that it has anyway
  ],
)
def test_an_override_with_effect_is_taken(load, lines, bindings):
  assert load(lines, *bindings)["Train"].seed == 5


def test_overrides_of_other_parts(tmp_path):
  """`prepare` builds one part of a run's file."""
  path = tmp_path / "run.gin"
  path.write_text(RUN)
  only = {"Data": DataConfig}
  for binding in [("Train.seed", "1"), ("STEPS", "9")]:
    with pytest.raises(InputError, match="has no effect: this command reads Data"):
      gin_config.load([str(path)], [binding], only)
    assert gin_config.load([str(path)], [binding], only, partial=True)
