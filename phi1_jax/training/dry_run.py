"""Answers what a run needs, without training."""

import time

from phi1_jax import storage
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.telemetry import throughput
from phi1_jax.training import loop, memory, preflight
from phi1_jax.training.memory import GIB, StepMemory
from phi1_jax.training.setup import Setup
from phi1_jax.training.step import make_train_step

# Machines to estimate for: name, JAX's device kind, number of devices.
_ESTIMATED = (
  ("8 x A100", "NVIDIA A100-SXM4-80GB", 8),
  ("8 x H100", "NVIDIA H100 80GB HBM3", 8),
  ("v5e-8", "TPU v5 lite", 8),
  ("v5p-8", "TPU v5", 4),
)
_UTILISATION = 0.5


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
      _estimate(run),
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


def _estimate(setup: Setup) -> str:
  """Return an estimate of seconds per step and hours per run on other machines.

  FLOPs by formula at half of each chip's peak: arithmetic, not a measurement.
  """
  train = setup.config.train
  flops = setup.flops_per_token * train.tokens_per_step
  parts = []
  for name, kind, count in _ESTIMATED:
    peak = count * throughput.DEVICES[kind].peak_flops
    seconds = flops / (peak * _UTILISATION)
    parts.append(f"{name} {seconds:.3g} s ({seconds * train.last_step / 3600:,.0f} h)")
  return f"time     a step (a run) at {_UTILISATION:.0%} of peak: " + ", ".join(parts)
