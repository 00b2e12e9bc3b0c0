"""Every test runs on the CPU with eight simulated devices and without network.

Processes that a test starts inherit all of it but the number of devices.
"""

import asyncio
import atexit
import hashlib
import json
import logging
import os
import re
import runpy
import shutil
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  # Compiling at -O3 would take most of the tests' time; and the newer emitters, which
  # go through MLIR, take twice as long as the older ones.
  + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
  + " --xla_cpu_use_fusion_emitters=false"
)
# Where a test or a command keeps compiled programs, it keeps the small ones too.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# One cache for all processes; the first to read this makes it, and removes it.
if "PHI1_JAX_CACHE" not in os.environ:
  os.environ["PHI1_JAX_CACHE"] = tempfile.mkdtemp(prefix="phi1_jax_tests_")
  atexit.register(shutil.rmtree, os.environ["PHI1_JAX_CACHE"], ignore_errors=True)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax  # after the environment is set
from absl import flags
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)

settings.register_profile("busy", deadline=None)  # a machine may be slow
settings.load_profile("busy")

# Grain and seqio read absl flags, which only absl's own `app.run` would parse.
flags.FLAGS(sys.argv[:1])


# Files that take longest. They go first, so that one process does not end alone.
_LONGEST = (
  *("tpu/colab_test.py", "many_hosts_test.py", "cloud_test.py"),
  *("prepare_test.py", "compile_test.py", "llm/sender_test.py", "docs_test.py"),
  *("curation/engine_test.py", "sandbox/levels_test.py", "installed_test.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Sort the files that take longest to the front."""

  def place(item: pytest.Item) -> int:
    name = item.path.relative_to(Path(__file__).parent).as_posix()
    return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)

  items.sort(key=place)


@pytest.fixture(autouse=True)
def _log_levels():
  """Undo what commands that ran in this process have set."""
  yield
  for name in ("phi1_jax", "phi1_jax.kernels"):
    logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def digests():
  """digests(folder) maps the name of each file to its SHA-256.

  A comparison that fails prints these, and not the files.
  """
  from phi1_jax import storage

  def read(folder):
    place = storage.parse(folder)
    return {
      name: hashlib.sha256(storage.read_bytes(place / name)).hexdigest()
      for name in storage.names(place)
    }

  return read


# A run that compiles in seconds, on a store that `words_store` writes.
_RUN = {
  "Model.vocabulary_size": 320,
  "Model.num_layers": 1,
  "Model.num_heads": 2,
  "Model.head_dim": 4,
  "Model.rotary_dim": 2,
  "Model.embed_dim": 8,
  "Model.mlp_dim": 16,
  "Model.max_length": 16,
  "Model.dtype": "float32",
  "Train.total_steps": 12,
  "Train.batch_size": 4,
  "Train.sequence_length": 16,
  "Optimizer.peak_learning_rate": 1e-2,
  "Optimizer.warmup_steps": 2,
  "Optimizer.weight_decay": 0.1,
  "Data.mixture": "words",
  "Data.store": "store",
  "Data.tokenizer": "train",
  "Data.trained_vocabulary_size": 300,
  "Runtime.compilation_cache": "compiled",
}


@pytest.fixture(scope="session")
def tiny_run():
  """tiny_run({NAME: value}) is the gin file of a tiny run with other values."""

  def text(changes=None):
    values = {**_RUN, **(changes or {})}
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())

  return text


@pytest.fixture(scope="session")
def token_store():
  """token_store(folder, {task: [Encoded]}, tokenizer) writes a token store there.

  `facts` are what the manifest says of the tokenizer otherwise.
  """
  from phi1_jax.data.token_store import finish, write_shard

  def write(folder, documents, tokenizer, *, mixture="words", held_out=0.01, **facts):
    fields = {
      "mixture": mixture,
      "held_out_fraction": held_out,
      "shards_per_task": 8,
      "curated": False,
      "tasks": {task: {"rate": "by_size"} for task in documents},
    }
    names = ("digest", "eos_id", "vocabulary_size")
    own = {"name": "train"} | {name: getattr(tokenizer, name) for name in names}
    shards = [
      write_shard(folder, index, len(documents), task, made)
      for index, (task, made) in enumerate(documents.items())
    ]
    finish(folder, {**fields, "tokenizer": own | facts}, shards)
    tokenizer.save(folder / "tokenizer.json")

  return write


@pytest.fixture(scope="session")
def words_store(token_store):
  """words_store(folder) writes a token store of random words there, for train."""
  from phi1_jax.data.token_store import Encoded
  from phi1_jax.text import tokenizer as tokenizers

  trained = tokenizers.train(["for word in words:\n  print(word, words)\n"] * 2, 300)

  def write(
    folder, *, seed=0, documents=100, held_out_every=20, tasks=("words",), **facts
  ):
    random, encoded = np.random.default_rng(seed), {}
    for task in tasks:
      encoded[task] = []
      for number in range(documents):
        ids = [*random.integers(1, 40, random.integers(5, 40)).tolist(), 0]
        held_out = number % held_out_every == 0
        encoded[task].append(Encoded(ids, 3 * len(ids), held_out))
    token_store(folder, encoded, trained, **{"eos_id": 0, **facts})

  return write


@pytest.fixture(scope="session")
def random_phi():
  """random_phi(folder, config, tokenizer) writes a Hugging Face folder of a Phi there.

  Its weights are random, in float16.
  """
  from phi1_jax.interop import hf_config, layouts, safetensors

  def write(folder, config, tokenizer, scale=1.0):
    shapes = {name: x.shape for name, x in layouts.PHI.tensors(config).items()}
    normal = np.random.default_rng(0).standard_normal
    arrays = ((scale * normal(x)).astype(np.float16) for x in shapes.values())
    safetensors.write(folder, shapes, np.dtype("float16"), arrays, 10**9)
    content = hf_config.from_model_config(config, tokenizer.eos_id, "float16")
    (folder / "config.json").write_text(json.dumps(content))
    tokenizer.save(folder / "tokenizer.json")

  return write


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory):
  """A Google Cloud Storage server on loopback, which this process uses from now on."""
  server = runpy.run_path(str(Path(__file__).with_name("gcs_server.py")))["Gcs"]()
  os.environ |= server.environment
  from gcsfs import retry  # by itself it waits half a minute before it gives up

  retry.asyncio = types.SimpleNamespace(sleep=lambda s: asyncio.sleep(s / 20))
  yield server
  server.close()


@pytest.fixture
def gcs(gcs_server, request, tmp_path, monkeypatch):
  """The server, a folder of this test's own in it, and an empty local cache."""
  monkeypatch.setenv("PHI1_JAX_CACHE", str(tmp_path / "cache"))
  name = re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.nodeid)
  gcs_server.folder = f"{gcs_server.url}/{name}"
  yield gcs_server
  gcs_server.heal()
