"""Everything before a run opens its work directory: its checks, a dry run.

What would fail in the middle of the work is refused here.
"""

import itertools
import time

import jax

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.checkpoint import Checkpoint, exists_in
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.training import loop, memory, store
from phi1_jax.training.memory import GIB
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import bytes_per_device
from phi1_jax.training.step import make_train_step


def check_same_config(text: str) -> None:
  """Refuse a host that was started with another configuration than host 0."""
  first = hosts.exchange("comparing configurations", text)[0].splitlines()
  with hosts.shared_errors("the configuration"):
    for ours, theirs in itertools.zip_longest(text.splitlines(), first):
      if ours != theirs:
        raise InputError(
          f"host {hosts.index()} was started with {ours}, host 0 with {theirs}; "
          "expected the same gin files and flags on all hosts"
        )


def check_start(run: Setup) -> None:
  """Refuse a `resume_from` or `init_from` that holds no checkpoint of this model.

  A run that goes on from its own work directory needs neither any more.
  """
  config = run.config.checkpoint
  place = config.resume_from or config.init_from
  if place and not exists_in(run.workdir):
    found = Checkpoint.find(place)
    found.check({"model_shape": run.config.model.shape()})
    if config.resume_from and found.meta.get("store") is None:
      raise InputError(
        f"Checkpoint.resume_from: {found.path} holds no training state, such as one "
        "that `convert` made; use Checkpoint.init_from"
      )


def describe(run: Setup) -> str:
  """Return model, mesh and batch arithmetic of a run, one aligned line each."""
  model, train, parts = run.config.model, run.config.train, run.accumulation_steps
  mesh = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
  at_once = train.batch_size // sharding.batch_shards(run.mesh) // parts
  state, params = map(bytes_per_device, (run.abstract_state, run.abstract_state.params))
  return (
    f"model    {model.num_parameters():,} parameters: {model.num_layers} layers, "
    f"{model.embed_dim} wide, {model.num_heads} heads, "
    f"{model.vocabulary_size:,} tokens; {model.dtype}, {model.attention} attention\n"
    f"mesh     {mesh} on {run.mesh.size} x {run.mesh.devices.flat[0].device_kind}\n"
    f"step     {train.batch_size:,} sequences x {train.sequence_length:,} = "
    f"{train.tokens_per_step:,} tokens per step; {at_once} sequences a device at a "
    f"time, {parts} times\n"
    f"run      {train.last_step:,} steps = "
    f"{train.tokens_per_step * train.last_step:,} tokens, "
    f"{run.flops_per_token * train.tokens_per_step:.3g} FLOPs a step\n"
    f"state    {state:,} bytes per device ({state / GIB:.2f} GiB), of which "
    f"parameters {params:,}"
  )


def dry_run(run: Setup) -> str:
  """Check everything, compile one step, and return what the run needs.

  Raises:
    InputError: as a start of the run would.
  """
  data = run.config.data
  started = time.perf_counter()
  found = "not there yet"
  with hosts.shared_errors("the dry run", limit=loop.COMPILE_SECONDS):
    check_start(run)
    if storage.exists(storage.parse(data.store) / "COMPLETED"):
      tokens = TokenStore.open(data.store, verify=data.verify)
      store.check(tokens, run.config)
      store.check_current(tokens, run)
      found = f"{tokens.manifest['tokens']:,} tokens"
    else:
      data.check_sources()
      store.check_vocabulary(run.config)
    compiled = memory.compile_step(make_train_step(run, document_end=0), run)
  held, temporary = memory.step_memory(compiled, run)
  need, have, count = held + temporary, memory.device_memory(), jax.local_device_count()
  fits = ""
  if have is not None:
    verdict = "fits" if need <= have else "does NOT fit"
    fits = f"; {verdict} in the {have / GIB:.2f} GiB of this one"
    if jax.default_backend() == "cpu" and count > 1:
      fits += f", one of {count} shares of this host's memory; for another machine ask "
      fits += "python -m phi1_jax.compile"
  seconds = time.perf_counter() - started
  return (
    f"memory   {need / GIB:.2f} GiB per device: state {held / GIB:.2f}, "
    f"temporary {temporary / GIB:.2f}{fits}\n"
    f"store    {data.store}: {found} ({data.origin})\n"
    f"one step compiled in {seconds:.1f} s; nothing was run"
  )
