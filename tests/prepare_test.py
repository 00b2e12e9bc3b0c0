"""Building a store: nothing lost, the same bytes always, resumable after kill -9."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from phi1_jax import InputError, storage
from phi1_jax.data import shards
from phi1_jax.data.config import DataConfig
from phi1_jax.data.token_store import TokenStore
from phi1_jax.prepare import prepare
from phi1_jax.text import tokenizer as tokenizers

FILES = {
  "a.txt": ["!", "def f():\r\n\treturn '!'\r\n", ""],
  "b.txt": ["text with <|endoftext|> in it\n", "x\n" + " " * 70 + "y\n"],
  "c.txt": [],
  **{f"d{j}.txt": [f"document {i}\n" for i in range(9)] for j in range(9)},
}
FILES |= {f"e{i}.txt": [f"e {i} {j}\n" * 20 for j in range(8)] for i in range(5)}
TEXTS = [text for texts in FILES.values() for text in texts]

MODULE = """
import json
from pathlib import Path
import seqio
import tensorflow as tf
from phi1_jax.data import tasks
print("the module is imported")
ROOT = Path(__file__).parent / "texts"
def read(dataset):
  def row(line):
    text = tf.numpy_function(lambda x: json.loads(x).encode(), [line], tf.string)
    text.set_shape([])
    return {"text": text}
  return dataset.map(row)
for name in ("tiny", "tiny_too"):
  seqio.TaskRegistry.add(
    name,
    source=seqio.TextLineDataSource({"train": f"{ROOT}/*.txt"}),
    preprocessors=[
      read,
      tasks.text_to_targets,
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos,
    ],
    # Any vocabulary: the store's own takes its place.
    output_features={"targets": seqio.Feature(seqio.ByteVocabulary(), add_eos=True)},
    metric_fns=[],
  )
seqio.MixtureRegistry.add("tiny_mixture", [("tiny", 3), ("tiny_too", 1)])
"""


@pytest.fixture(scope="module")
def make(module, tmp_path_factory):
  """make(store, **changes) is a config; its tokenizer of single bytes loads fast."""
  small = tmp_path_factory.mktemp("small") / "tokenizer.json"
  tokenizers.train([], tokenizers.MINIMUM_VOCABULARY_SIZE).save(small)
  fields = {"mixture": "tiny", "modules": (module,), "tokenizer": str(small)}
  fields |= {"held_out_fraction": 0.2, "shards": 3, "processes": 1}
  return lambda store, **changes: DataConfig(store=str(store), **{**fields, **changes})


@pytest.fixture(scope="module")
def module(tmp_path_factory):
  """A user's module on the path; its name is new for every run of the tests."""
  folder = tmp_path_factory.mktemp("user")
  (folder / "tiny_tasks_for_tests.py").write_text(MODULE)
  (folder / "texts").mkdir()
  for name, texts in FILES.items():
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    (folder / "texts" / name).write_text(lines)
  sys.path.insert(0, str(folder))
  yield "tiny_tasks_for_tests"
  sys.path.remove(str(folder))


@pytest.fixture
def config(make, tmp_path):
  return functools.partial(make, tmp_path / "store")


def documents(store: TokenStore, task: str, split: str) -> list[str]:
  tokenizer = tokenizers.load(str(store.directory))
  stream = store.stream(task, split)
  ids = stream.read(0, len(stream))
  *parts, rest = np.split(ids, np.flatnonzero(ids == store.eos_id) + 1)
  assert not len(rest), "the last document has no end"
  return [tokenizer.decode(part[:-1].tolist()) for part in parts]


@pytest.fixture(scope="module")
def finished(make, tmp_path_factory):
  """A finished store, to be copied."""
  folder = tmp_path_factory.mktemp("finished") / "store"
  prepare(make(folder))
  return folder


def test_not_one_token_is_lost(config):
  digest = prepare(config(tokenizer="codegen"))
  store = TokenStore.open(config().store)
  assert store.digest == digest
  train, held_out = (documents(store, "tiny", s) for s in ("train", "held_out"))
  assert sorted([*train, *held_out]) == sorted(text for text in TEXTS if text)
  # Nine texts are in every d file: a hash sends equals to one side.
  assert held_out
  assert not set(train) & set(held_out)
  tokenizer = tokenizers.codegen()
  tokens = sum(len(ids) + 1 for ids in tokenizer.encode_batch([t for t in TEXTS if t]))
  assert store.manifest["tokens"] == tokens
  assert store.manifest["bytes"] == sum(len(text.encode()) for text in TEXTS)
  assert store.manifest["documents"] == len(TEXTS) - 1
  assert store.manifest["dropped"] == {"tiny": {"empty": 1}}
  assert store.manifest["tokenizer"]["digest"] == tokenizer.digest
  assert store.eos_id == 50256


def test_documents_keep_the_sources_order_and_have_offsets(config, tmp_path):
  prepare(config(mixture="tiny_mixture", shards=1, held_out_fraction=0.0))
  store = TokenStore.open(config().store)
  in_order = [text for name in sorted(FILES) for text in FILES[name] if text]
  assert documents(store, "tiny", "train") == in_order
  assert len(store.stream("tiny", "held_out")) == 0
  starts = np.load(Path(config().store) / "documents-00000-of-00002.npy")
  tokenizer = tokenizers.load(config().tokenizer)
  lengths = [len(ids) + 1 for ids in tokenizer.encode_batch(in_order)]
  assert starts.tolist() == np.cumsum([0, *lengths[:-1]]).tolist()
  # The manifest names sources and rates, but no host.
  tasks = store.manifest["tasks"]
  rates = {name: task["rate"] for name, task in tasks.items()}
  assert rates == {"tiny": 3.0, "tiny_too": 1.0}
  (source,) = tasks["tiny"]["sources"]
  assert source["name"] == "TextLineDataSource"
  assert set(source["files"]) == set(FILES)
  assert [shard["task"] for shard in store.manifest["shards"]] == ["tiny", "tiny_too"]
  assert str(tmp_path.parent) not in json.dumps(store.manifest)


def test_a_trained_tokenizer_knows_only_the_training_texts(config):
  made = config(tokenizer="train", trained_vocabulary_size=320, held_out_fraction=0.5)
  prepare(made)
  store = TokenStore.open(made.store)
  again = tokenizers.train(documents(store, "tiny", "train"), 320)
  assert again.digest == store.manifest["tokenizer"]["digest"]
  assert store.vocabulary_size == 320


@pytest.mark.parametrize("remote", [False, True])
def test_finished_shards_are_not_built_again(
  make, finished, gcs, tmp_path, monkeypatch, capsys, remote, digests
):
  """Also by another machine, on the shards in a bucket."""
  folder = f"{gcs.folder}/store" if remote else str(tmp_path / "stopped")
  made, build = [], shards.build

  def counting(unit, *arguments):
    if len(made) == 2:
      raise OSError("no space left on device")
    made.append(unit.shard)
    return build(unit, *arguments)

  monkeypatch.setattr(shards, "build", counting)
  with pytest.raises(OSError, match="no space"):
    prepare(make(folder))
  if remote:
    shutil.rmtree(storage.cache_folder())
  else:
    (tmp_path / "stopped/.tokens-00002-of-00003.npy.partial").write_bytes(b"half")
  made.clear()
  prepare(make(folder), progress=True)
  assert made == [2]
  assert digests(folder) == digests(finished)
  assert f"writing {folder}:" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"held_out_fraction": 0.1}, r"Data.held_out_fraction = 0.2, now it is 0.1"),
    ({"mixture": "tiny_too"}, r"Data.mixture = 'tiny', now it is 'tiny_too'"),
    ({"shards": 4}, r"Data.shards_per_task = 3, now it is 4"),
    (
      {"tokenizer": "train", "trained_vocabulary_size": 300},
      r"Data.tokenizer.name = 'file', now it is 'train'",
    ),
    ({"mixture": "absent"}, 'no mixture or task "absent"'),
    ({"modules": ("no_such_module",)}, "importing no_such_module failed"),
    ({"tokenizer": "/no/such/tokenizer.json"}, "No such file"),
    ({"store": "/proc/store"}, "cannot write to /proc/store"),
    ({"curated_directory": "/no", "mixture": "exercises"}, "/no holds no TFDS"),
  ],
)
def test_another_config_is_refused_by_name(config, finished, changes, message, digests):
  shutil.copytree(finished, config().store)
  before = digests(config().store)
  with pytest.raises(InputError, match=message):
    prepare(dataclasses.replace(config(), **changes))
  assert digests(config().store) == before


def processes_with(variable: str) -> list[int]:
  """Return the processes that have this variable in their environment."""
  found = []
  for path in Path("/proc").glob("[0-9]*/environ"):
    with contextlib.suppress(OSError):  # it has ended, or is another user's
      if variable.encode() in path.read_bytes().split(b"\0"):
        found.append(int(path.parent.name))
  return found


def start(made: DataConfig) -> subprocess.Popen[str]:
  """Start the command on a config, with two workers."""
  names = ["store", "tokenizer", "held_out_fraction", "shards"]
  names += ["files"] if made.files else ["mixture", "modules"]
  flags = [f"--gin.Data.{name}={getattr(made, name)!r}" for name in names]
  words = [sys.executable, "-m", "phi1_jax.prepare", "--gin.Data.processes=2", *flags]
  environment = {"PYTHONPATH": os.pathsep.join(sys.path), "MARKER": made.store}
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return subprocess.Popen(words, env={**os.environ, **environment}, **pipes)


def test_the_command_prints_only_the_digest(config, finished, digests):
  printed, errors = start(config()).communicate()
  assert printed.strip() == TokenStore.open(config().store).digest
  assert digests(config().store) == digests(finished)
  assert errors.startswith("the module is imported\n")
  # TensorFlow and its libraries have said nothing.
  assert not re.search("tensorflow|cuda|absl|WARNING", errors), errors


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_commands_killed_at_any_moment_go_on_to_the_same_bytes(make, tmp_path, digests):
  """And leave no worker behind."""
  rows = tmp_path / "rows.jsonl"
  rows.write_text(
    "".join(json.dumps({"text": f"row {i}\n"}) + "\n" for i in range(600))
  )
  # So many shards that a build takes longer than a look at its folder.
  fields = {"files": (str(rows),), "shards": 200, "mixture": None, "modules": ()}
  made, alone = (make(tmp_path / name, **fields) for name in ("store", "alone"))
  store, stops = Path(made.store), []
  for pause in (0.0, 0.05, 0.2):
    command = start(made)
    # Whatever the speed of this machine: some time after a shard is on its way.
    begun = len(list(store.glob("shard-*.json")))
    while command.poll() is None and len(list(store.glob("shard-*.json"))) <= begun:
      time.sleep(0.002)
    time.sleep(pause)
    command.kill()  # this one process, with SIGKILL
    printed, errors = command.communicate(timeout=300)  # a worker would hold the pipes
    stops.append((store / "COMPLETED").exists())
    assert stops[-1] or printed == "", errors
    deadline = time.monotonic() + 300
    while left := processes_with(f"MARKER={store}"):
      assert time.monotonic() < deadline, f"processes {left} outlive the command"
      time.sleep(0.05)
  assert not stops[0]
  builders = [start(made), start(made)]  # one waits for the other
  printed = [builder.communicate()[0] for builder in builders]
  assert printed == [f"{prepare(alone)}\n"] * 2
  assert digests(store) == digests(alone.store)


def test_a_complete_store_is_tidied_and_left_as_it_is(config, finished, digests):
  store = Path(config().store)
  shutil.copytree(finished, store)
  before = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
  # As left by a build that was killed after its last file.
  for name in ("build.json", "shard-00001-of-00003.json", ".tokens.partial"):
    (store / name).write_text("{}")
  assert prepare(config(processes=2)) == TokenStore.open(finished).digest
  after = {path.name: path.stat().st_mtime_ns for path in store.iterdir()}
  assert before == after
  assert digests(store) == digests(finished)
