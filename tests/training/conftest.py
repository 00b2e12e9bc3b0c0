"""A run so small that it compiles in seconds, on tokens that can be learnt."""

import contextlib
import dataclasses
import json

import jax
import pytest

from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.checkpoint.manager import CheckpointConfig
from phi1_jax.data.config import DataConfig
from phi1_jax.data.token_store import TokenStore
from phi1_jax.model.config import ModelConfig
from phi1_jax.optim.config import OptimizerConfig
from phi1_jax.parallel.mesh import MeshConfig
from phi1_jax.training import loop
from phi1_jax.training.config import RuntimeConfig, TrainConfig
from phi1_jax.training.setup import RunConfig, make_setup

LENGTH = 16
MODEL = ModelConfig(*(64, 2, 8, 4, 2, 16, 32, LENGTH), dtype="float32")


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
  """Keeps compiled steps between runs of one session."""
  before = jax.config.jax_compilation_cache_dir
  jax.config.update(
    "jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled"))
  )
  yield
  jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def store(tmp_path_factory, words_store) -> TokenStore:
  """Two tasks of documents that end with 0."""
  directory = tmp_path_factory.mktemp("tokens") / "store"
  words_store(directory, tasks=("code", "text"), documents=120)
  return TokenStore.open(directory)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, store):
  """Makes a tiny setup: `tiny(workdir, mesh, model={...}, train={...}, ...)`."""

  def tiny(workdir=None, mesh=(1, 8, 1), **changes):
    parts = {
      "model": MODEL,
      "data": DataConfig("words", str(store.directory)),
      "mesh": MeshConfig(*mesh),
      "optimizer": OptimizerConfig(1e-2, 2, 0.1),
      "train": TrainConfig(12, 16, LENGTH, log_every=1),
      "checkpoint": CheckpointConfig(every=4),
      "runtime": RuntimeConfig(compilation_cache=None),
    }
    for part, values in changes.items():
      parts[part] = dataclasses.replace(parts[part], **values)
    workdir = workdir or tmp_path_factory.mktemp("run")
    return make_setup(RunConfig(**parts), workdir)

  return tiny


class Stop:
  """Asks to stop at the n-th pass of the loop; None never."""

  interrupting = staticmethod(contextlib.nullcontext)

  def __init__(self, after):
    self.left = after

  def poll(self, **wanted):
    names = {name for name, value in wanted.items() if value}
    if self.left is None:
      return names
    self.left -= 1
    return names | {"stop"} if self.left < 0 else names


@pytest.fixture(scope="session")
def run(store):
  """Trains: `run(setup, hooks, stop_after=None)`; `stop` replaces the signal."""

  def run(setup, hooks=(), stop_after=None, stop=None):
    return loop.train(setup, store, hooks, stop or Stop(stop_after))

  return run


@pytest.fixture
def described():
  """Makes a checkpoint without arrays: `described(step_folder, meta)`."""

  def described(folder, meta):
    for name in ("meta", "state"):
      (folder / name).mkdir(parents=True, exist_ok=True)
    meta = {"step": 0, "fingerprints": {}, "tokenizer": "", **meta}
    (folder / "meta" / "metadata").write_text(json.dumps(meta))
    return Checkpoint(folder)

  return described
