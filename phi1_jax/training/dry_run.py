"""Answers what a run needs, without training."""

import time

from phi1_jax import storage
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.training import loop, memory, preflight
from phi1_jax.training.memory import GIB, StepMemory
from phi1_jax.training.setup import Setup
from phi1_jax.training.step import make_train_step


def dry_run(run: Setup) -> str:
  """Check everything, compile one step, and return what the run needs.

  Raises:
    InputError: as a start of the run would.
  """
  data = run.config.data
  started = time.perf_counter()
  state = "not there yet"
  with hosts.agreed("the dry run", limit=loop.COMPILE_SECONDS):
    preflight.check_start(run)
    if storage.exists(storage.parse(data.store) / "COMPLETED"):
      store = TokenStore.open(data.store, verify=data.verify)
      preflight.check_store(store, run.config)
      preflight.check_current(store, run)
      state = f"{store.manifest['tokens']:,} tokens"
    with sharding.layout(run.mesh):
      step = make_train_step(run, document_end=0)
    compiled = memory.compile_step(step, run)
  need = memory.step_memory(compiled, run)
  seconds = time.perf_counter() - started
  return "\n".join(
    [
      _memory(need, memory.device_memory()),
      f"store    {data.store}: {state} ({data.origin})",
      f"one step compiled in {seconds:.1f} s; nothing was run",
    ]
  )


def _memory(need: StepMemory, have: int | None) -> str:
  """Return the memory that the compiled step needs of one device, and that it has."""
  line = (
    f"memory   {need.total / GIB:.2f} GiB per device: state {need.state / GIB:.2f}, "
    f"temporary {need.temporary / GIB:.2f}"
  )
  if have is None:
    return line
  verdict = "fits" if need.total <= have else "does NOT fit"
  return f"{line}; {verdict} in the {have / GIB:.2f} GiB of this one"
