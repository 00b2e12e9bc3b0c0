"""Wrong input is named in one or two lines, with exit code 2 and no traceback.

The compiler is left out: everything refused here is refused before or without it.
"""

import json
import types

import numpy as np
import pytest

from phi1_jax import InputError, prepare, storage, train
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.training import memory
from phi1_jax.training.setup import Setup

RUN = {"Model.num_layers": 2, "Model.num_heads": 8, "Model.embed_dim": 16}
RUN |= {"Train.batch_size": 16, "Runtime.compilation_cache": None}


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch, words_store, tiny_run):
  """A work place: run.gin and a store, in the current directory."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "run.gin").write_text(tiny_run(RUN))
  words_store(tmp_path / "store")
  monkeypatch.setattr(memory, "compile_step", lambda step, setup: None)
  first = types.SimpleNamespace(step=np.zeros(()))
  monkeypatch.setattr(Setup, "initial_state", lambda _: first)
  return tmp_path


def complaint(*flags, command=train):
  """The message with which a command refuses its flags."""
  with pytest.raises(InputError) as error:
    command.main(["--gin_file=run.gin", *flags])
  message = str(error.value)
  assert message.count("\n") <= 1
  assert len(message) < 500
  return message


@pytest.mark.parametrize(
  ("bindings", "named"),
  [
    ("Model.num_layer=2", ["Model.num_layer", "no such parameter", "num_layers"]),
    ("Train.batch_size=12", ["Train.batch_size", "12", "multiple of the 8"]),
    ("Train.sequence_length=32", ["Train.sequence_length", "32", "max_length=16"]),
    ("Mesh.data=3", ["Mesh", "data=3", "8 devices"]),
    ("Model.dtype=float16", ["Model.dtype", "float16", "loss scaling"]),
    ("Optimizer.warmup_steps=12", ["Optimizer.warmup_steps", "12", "fewer"]),
    ("Data.rates={'code':1.0}", ["rates", "code", "words"]),
    ("Data.trained_vocabulary_size=None", ["Data.trained_vocabulary_size"]),
    ("Runtime.profile_at=12", ["Runtime.profile_at", "12"]),
    ("Checkpoint.init_from=nowhere", ["nowhere", "no checkpoint"]),
    ("Model.vocabulary_size=296", ["Model.vocabulary_size", "296", "300"]),
    ("Data.mixture=other", ["Data.store", "store", "'words'", "'other'"]),
    ("Data.trained_vocabulary_size=295", ["tokenizer", "300", "295"]),
    # What does not go together.
    (
      "Model.num_heads=6 Mesh.tensor=4 Mesh.fsdp=2",
      ["tensor=4 does not divide 6 in parameter", "layers/attention"],
    ),
    (  # 12 x 128 x 25600 ** 2 parameters and a little
      "Model.num_layers=128 Model.embed_dim=25600 Model.mlp_dim=102400 "
      "Model.num_heads=6400",
      ["1,006,", "too large for one cpu device: state 1406", "GiB exceed its"],
    ),
    (
      "Checkpoint.init_from=a Checkpoint.resume_from=b",
      ["resume_from='b'", "init_from='a'"],
    ),
  ],
)
def test_bindings(bindings, named):
  message = complaint(*(f"--gin.{binding}" for binding in bindings.split()))
  assert all(word in message for word in named), message


def test_a_store_of_another_tokenizer_or_without_one(run, words_store):
  words_store(run / "other", name="codegen")
  message = complaint("--gin.Data.store=other")
  assert "tokenizer = {'name': 'codegen'" in message
  (run / "store" / "tokenizer.json").unlink()
  assert "tokenizer.json" in complaint()


def test_a_work_directory_that_is_a_file_or_in_use(run):
  assert "--workdir: cannot write to run.gin" in complaint("--workdir=run.gin")
  assert "run.gin/a" in complaint("--workdir=run.gin/a")
  for name in ("checkpoints", "tensorboard"):  # before it trains for hours
    (run / name / "a").mkdir(parents=True)
    (run / name / "a" / name).write_text("a file")
    assert f"cannot make the folder {name}/a/{name}" in complaint(f"--workdir={name}/a")
  with storage.Lease(run / "held", "training"):
    assert "another process is training in held" in complaint("--workdir=held")


@pytest.fixture
def old(run):
  """A work directory whose checkpoint has other arrays than a run's."""
  shape = dict(vocabulary_size=320, num_layers=2, num_heads=8, head_dim=4, embed_dim=16)
  shape |= dict(mlp_dim=16, rotary_dim=2, rope_base=10000.0, param_dtype="float32")
  digest = json.loads((run / "store" / "COMPLETED").read_text())["manifest_sha256"]
  manifest = json.loads((run / "store" / "manifest.json").read_text())
  meta = {"model_shape": shape, "tokenizer": manifest["tokenizer"]["digest"]}
  with Checkpoints(run / "old" / "checkpoints", CheckpointConfig()) as checkpoints:
    state = {"step": np.array([4], np.int32)}
    checkpoints.save(4, state, {**meta, "store": digest})
  return run / "old"


@pytest.mark.parametrize(
  "flag",
  ["--workdir={}", "--gin.Checkpoint.resume_from={}", "--gin.Checkpoint.init_from={}"],
)
def test_a_checkpoint_of_another_model(old, flag):
  kept = [old / name for name in ("config.gin", "tokenizer.json")]
  for path in kept:
    path.write_text("as it was")
  message = complaint(flag.format("old"), "--gin.Model.num_layers=3")
  assert "got num_layers=2, expected num_layers=3" in message
  assert {path.read_text() for path in kept} == {"as it was"}


@pytest.mark.parametrize("part", ["resume_from", "init_from"])
def test_a_checkpoint_that_is_damaged_or_has_no_parameters(old, part):
  start = f"--gin.Checkpoint.{part}=old/checkpoints/4"
  assert "old/checkpoints/4: this checkpoint has no array" in complaint(start)
  (old / "checkpoints" / "4" / "meta" / "metadata").write_text("{")
  assert "old/checkpoints/4: damaged checkpoint" in complaint(start)


def test_a_dry_run_reads_what_the_build_would_read(run):
  gone = ["--gin.Data.tokenizer=gone.json", "--gin.Data.trained_vocabulary_size=None"]
  gone += ["--gin.Data.mixture=grammar_exercises", "--gin.Data.store=new"]
  message = complaint(*gone, command=prepare)
  assert "gone.json" in message
  (run / "wrong.toml").write_text('[task.taxed]\nargs = "p: nat -> float"\nbody = 1\n')
  (run / "rows.jsonl").write_text('{"body": "x"}\n' * 2)
  missing = ["--dry_run", "--gin.Data.store=nope"]
  assert "got 'words'" in complaint(*missing)
  missing.append("--gin.Data.mixture=grammar_exercises")
  for settings, named in (
    (["grammar_tables=('gone.toml',)"], "gone.toml"),
    (["grammar_tables=('wrong.toml',)"], "wrong.toml:"),
    (["files=('gone/*.txt',)"], "no file matches 'gone/*.txt'"),
    (["files=('rows.jsonl',)", "columns=('x',)"], "(2 no x)"),
  ):
    assert named in complaint(*missing, *(f"--gin.Data.{text}" for text in settings))
  files = ["--gin.Data.files=('rows.jsonl',)", "--gin.Data.store=nope"]
  exercises = [*files, "--gin.Data.grammar_exercises=9"]
  for command in (train, prepare):
    message = complaint(*exercises, command=command)
    assert "grammar_exercises=9 has no effect: Data.files takes" in message
  own = complaint(*files, "--gin.Data.grammar_tables=('mine.toml',)", command=prepare)
  assert "grammar_tables: got ('mine.toml',), expected none" in own
  large = "--gin.Data.trained_vocabulary_size=900"
  for dry in ("--dry_run", "--workdir=new"):  # before anything is built
    assert "Model.vocabulary_size" in complaint(dry, *missing[1:], large)
    assert not (run / "nope").exists()
