"""What is wrong is named, in one or two lines, with exit code 2 and no traceback.

The compiler is left out: everything refused here is refused before or without it.
"""

import json
import types

import numpy as np
import pytest

from phi1_jax import InputError, prepare, storage, train
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.data.token_store import ShardWriter, finish
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.training import memory
from phi1_jax.training import state as train_state

RUN = """
Model.vocabulary_size = 320
Model.num_layers = 2
Model.num_heads = 8
Model.head_dim = 4
Model.rotary_dim = 2
Model.embed_dim = 16
Model.mlp_dim = 32
Model.max_length = 16
Model.dtype = "float32"
TOTAL_STEPS = 12
Train.total_steps = %TOTAL_STEPS
Train.batch_size = 16
Train.sequence_length = 16
Optimizer.peak_learning_rate = 1e-2
Optimizer.warmup_steps = 2
Optimizer.weight_decay = 0.1
Data.mixture = "words"
Data.tokenizer = "train"
Data.trained_vocabulary_size = 300
Runtime.compilation_cache = None
"""
# A tokenizer of 300 ids; what the store's tokens mean does not matter here.
WORDS = tokenizers.train(["for word in words:\n  print(word, words)\n"] * 2, 300)
TOKENIZER = {"name": "train", "digest": WORDS.digest, "eos_id": 0}
TOKENIZER["vocabulary_size"] = 300


def write_store(directory, tokens=400, mixture="words", tokenizer=TOKENIZER):
  writer = ShardWriter(directory, 0, 1, "words")
  writer.add(np.arange(tokens) % 300, num_bytes=tokens, held_out=False)
  fields = {
    "mixture": mixture,
    "held_out_fraction": 0.01,
    "shards_per_task": 8,
    "curated": False,
    "tasks": {"words": {"rate": "by_size"}},
    "tokenizer": tokenizer,
  }
  finish(directory, fields, [writer.close()])
  WORDS.save(directory / "tokenizer.json")


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch):
  """A work place: run.gin and a store, in the current directory."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "run.gin").write_text(RUN)
  write_store(tmp_path / "store")
  monkeypatch.setattr(memory, "compile_step", lambda step, setup: None)
  monkeypatch.setattr(
    train_state, "initialise", lambda *_: types.SimpleNamespace(step=np.zeros(()))
  )
  return tmp_path


def complaint(*flags, command=train, files=("run.gin",)):
  """The message with which a command refuses its flags."""
  words = [f"--gin_file={file}" for file in files] + list(flags)
  if "--gin.Data.store" not in "".join(flags):
    words.append("--gin.Data.store=store")
  with pytest.raises(InputError) as error:
    command.main(words)
  message = str(error.value)
  assert message.count("\n") <= 1
  assert len(message) < 500
  return message


@pytest.mark.parametrize(
  ("binding", "named"),
  [
    ("Model.num_layer=2", ["Model.num_layer", "no such parameter", "num_layers"]),
    ("Modle.num_layers=2", ["Modle", "configurable", "Model"]),
    ("TOTL_STEPS=3", ["TOTL_STEPS", "TOTAL_STEPS"]),
    ("Train.total_steps=%gin.REQUIRED", ["Train.total_steps", "required"]),
    ("Train.total_steps=1.5", ["Train.total_steps", "1.5", "an integer"]),
    ("Train.batch_size=12", ["Train.batch_size", "12", "multiple of the 8"]),
    ("Train.sequence_length=32", ["Train.sequence_length", "32", "max_length=16"]),
    ("Mesh.data=3", ["Mesh", "data=3", "8 devices"]),
    ("Model.dtype=float16", ["Model.dtype", "float16", "loss scaling"]),
    ("Optimizer.warmup_steps=12", ["Optimizer.warmup_steps", "12", "fewer"]),
    ("Data.rates={'code': 1.0}", ["rates", "code", "words"]),
    ("Data.trained_vocabulary_size=None", ["Data.trained_vocabulary_size"]),
    ("Runtime.profile_at=12", ["Runtime.profile_at", "12"]),
    ("Checkpoint.init_from=nowhere", ["nowhere", "no checkpoint"]),
    ("Model.vocabulary_size=296", ["Model.vocabulary_size", "296", "300"]),
    ("Data.mixture=other", ["Data.store", "store", "'words'", "'other'"]),
    ("Data.trained_vocabulary_size=295", ["tokenizer", "300 ids", "295 ids"]),
  ],
)
def test_a_binding(binding, named):
  message = complaint(f"--gin.{binding}")
  assert all(word in message for word in named), message


def test_heads_that_tensor_does_not_divide():
  message = complaint(
    "--gin.Model.num_heads=6", "--gin.Mesh.tensor=4", "--gin.Mesh.fsdp=2"
  )
  assert "tensor=4 does not divide 6 in parameter" in message
  assert "layers/attention" in message


def test_a_model_too_large_for_its_device():
  message = complaint(
    "--gin.Model.num_layers=128",
    "--gin.Model.embed_dim=25600",
    "--gin.Model.mlp_dim=102400",
    "--gin.Model.num_heads=6400",
  )
  assert "1,006," in message  # parameters: 12 x 128 x 25600 ** 2 and a little
  assert "too large for one cpu device: state 1406" in message
  assert "GiB exceed its" in message


@pytest.mark.parametrize(
  ("name", "change"),
  [
    ("tokens-00000-of-00001.npy", None),
    ("tokens-00000-of-00001.npy", b"x"),
    ("documents-00000-of-00001.npy", None),
    ("manifest.json", b"{}"),
    ("COMPLETED", b"not json"),
    ("tokenizer.json", None),
  ],
)
def test_a_damaged_store(run, name, change):
  (run / "store" / name).unlink()
  if change is not None:
    (run / "store" / name).write_bytes(change)
  assert name in complaint()


def test_a_store_of_another_tokenizer(run):
  write_store(run / "other", tokenizer={**TOKENIZER, "name": "codegen"})
  message = complaint("--gin.Data.store=other")
  assert "another tokenizer: got 'codegen' with 300 ids" in message


def test_a_work_directory_that_is_a_file(run):
  assert "--workdir: cannot write to run.gin" in complaint("--workdir=run.gin")
  assert "run.gin/a" in complaint("--workdir=run.gin/a")


def test_a_work_directory_in_use(run):
  with storage.Lease(run / "held", "training"):
    assert "another process is training in held" in complaint("--workdir=held")


def write_checkpoint(folder, **changes):
  shape = dict(vocabulary_size=320, num_layers=2, num_heads=8, head_dim=4, embed_dim=16)
  shape |= dict(mlp_dim=32, rotary_dim=2, rope_base=10000.0, param_dtype="float32")
  digest = json.loads((folder.parent / "store" / "COMPLETED").read_text())
  meta = {"model_shape": shape, "tokenizer": WORDS.digest}
  meta["store"] = digest["manifest_sha256"]
  checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig())
  checkpoints.save(4, {"step": np.array([4], np.int32)}, {**meta, **changes})
  checkpoints.close()


@pytest.mark.parametrize(
  "flag",
  ["--workdir={}", "--gin.Checkpoint.resume_from={}", "--gin.Checkpoint.init_from={}"],
)
def test_a_checkpoint_of_another_model(run, flag):
  write_checkpoint(run / "old")
  kept = [run / "old" / name for name in ("config.gin", "tokenizer.json")]
  for path in kept:
    path.write_text("as it was")
  message = complaint(flag.format("old"), "--gin.Model.num_layers=3")
  assert "got num_layers=2, expected num_layers=3" in message
  assert {path.read_text() for path in kept} == {"as it was"}


@pytest.mark.parametrize("part", ["resume_from", "init_from"])
def test_a_checkpoint_that_is_damaged_or_has_no_parameters(run, part):
  write_checkpoint(run / "old")
  start = f"--gin.Checkpoint.{part}=old/checkpoints/4"
  assert "old/checkpoints/4: this checkpoint has no array" in complaint(start)
  (run / "old" / "checkpoints" / "4" / "meta" / "metadata").write_text("{")
  assert "old/checkpoints/4: damaged checkpoint" in complaint(start)


def test_two_places_to_start_from():
  message = complaint("--gin.Checkpoint.init_from=a", "--gin.Checkpoint.resume_from=b")
  assert "resume_from='b'" in message
  assert "init_from='a'" in message


def test_a_tokenizer_that_is_gone():
  flags = ["--gin.Data.tokenizer=gone.json", "--gin.Data.store=new"]
  flags.append("--gin.Data.trained_vocabulary_size=None")
  assert "gone.json" in complaint(*flags, command=prepare)


def test_a_dry_run_reads_what_the_build_would_read(run):
  (run / "wrong.toml").write_text('[task.taxed]\nargs = "p: nat -> float"\nbody = 1\n')
  missing = ["--dry_run", "--gin.Data.store=nope"]
  assert "got 'words'" in complaint(*missing)
  missing.append("--gin.Data.mixture=grammar_exercises")
  assert "gone.toml" in complaint(*missing, "--gin.Data.grammar_tables=('gone.toml',)")
  message = complaint(*missing, "--gin.Data.grammar_tables=('wrong.toml',)")
  assert message.startswith("wrong.toml:")
  files = "--gin.Data.files=('gone/*.txt',)"
  assert "no file matches 'gone/*.txt'" in complaint(*missing, files)
  (run / "rows.jsonl").write_text('{"body": "x"}\n' * 2)
  files = ["--gin.Data.files=('rows.jsonl',)", "--gin.Data.columns=('x',)"]
  assert "(2 no x)" in complaint(*missing, *files)
  small = ["--gin.Data.tokenizer='train'", "--gin.Data.trained_vocabulary_size=900"]
  for dry in ("--dry_run", "--workdir=new"):  # before anything is built
    message = complaint(dry, *missing[1:], *small)
    assert "Model.vocabulary_size" in message
    assert not (run / "nope").exists()
