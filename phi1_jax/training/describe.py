"""Description of a run, printed before it starts, and its dry run."""

import time

from phi1_jax import storage
from phi1_jax.data import files
from phi1_jax.data.token_store import TokenStore
from phi1_jax.grammar import rows
from phi1_jax.parallel import hosts, sharding
from phi1_jax.training import loop, memory, preflight
from phi1_jax.training.memory import GIB
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import bytes_per_device
from phi1_jax.training.step import make_train_step


def describe(setup: Setup) -> str:
  """Return model, mesh and batch arithmetic of a run, one aligned line each."""
  model, train = setup.config.model, setup.config.train
  mesh = " x ".join(f"{axis} {size}" for axis, size in setup.mesh.shape.items())
  kind = setup.mesh.devices.flat[0].device_kind
  share = train.batch_size // sharding.batch_shards(setup.mesh)
  at_once = share // setup.accumulation_steps
  run_tokens = train.tokens_per_step * train.last_step
  flops = setup.flops_per_token * train.tokens_per_step
  return "\n".join(
    [
      f"model    {model.num_parameters():,} parameters: {model.num_layers} layers, "
      f"{model.embed_dim} wide, {model.num_heads} heads, "
      f"{model.vocabulary_size:,} tokens; {model.dtype}, {model.attention} attention",
      f"mesh     {mesh} on {setup.mesh.size} x {kind}",
      f"step     {train.batch_size:,} sequences x {train.sequence_length:,} = "
      f"{train.tokens_per_step:,} tokens per step; {at_once} sequences a device at a "
      f"time, {setup.accumulation_steps} times",
      f"run      {train.last_step:,} steps = {run_tokens:,} tokens, "
      f"{flops:.3g} FLOPs a step",
      f"state    {bytes_per_device(setup.abstract_state):,} bytes per device "
      f"({bytes_per_device(setup.abstract_state) / GIB:.2f} GiB), of which parameters "
      f"{bytes_per_device(setup.abstract_state.params):,}",
    ]
  )


def dry_run(run: Setup) -> str:
  """Check everything, compile one step, and return what the run needs.

  Raises:
    InputError: as a start of the run would.
  """
  data = run.config.data
  started = time.perf_counter()
  state = "not there yet"
  with hosts.shared_errors("the dry run", limit=loop.COMPILE_SECONDS):
    preflight.check_start(run)
    if storage.exists(storage.parse(data.store) / "COMPLETED"):
      store = TokenStore.open(data.store, verify=data.verify)
      preflight.check_store(store, run.config)
      preflight.check_current(store, run)
      state = f"{store.manifest['tokens']:,} tokens"
    else:  # what the build would read
      data.refuse_unknown_mixture()
      rows.load(data.grammar_tables)
      if data.files:
        files.FileSource(data.files, data.columns)
    with sharding.layout(run.mesh):
      step = make_train_step(run, document_end=0)
    compiled = memory.compile_step(step, run)
  need, have = memory.step_memory(compiled, run), memory.device_memory()
  seconds = time.perf_counter() - started
  fits = ""
  if have is not None:
    verdict = "fits" if sum(need) <= have else "does NOT fit"
    fits = f"; {verdict} in the {have / GIB:.2f} GiB of this one"
  return "\n".join(
    [
      f"memory   {sum(need) / GIB:.2f} GiB per device: state {need.state / GIB:.2f}, "
      f"temporary {need.temporary / GIB:.2f}{fits}",
      f"store    {data.store}: {state} ({data.origin})",
      f"one step compiled in {seconds:.1f} s; nothing was run",
    ]
  )
