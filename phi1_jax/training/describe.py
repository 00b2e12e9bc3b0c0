"""Description of a run, printed before it starts."""

import jax

from phi1_jax.parallel import sharding
from phi1_jax.telemetry import throughput
from phi1_jax.training.memory import GIB, StepMemory
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import bytes_per_device

# Machines to estimate for: name, JAX's device kind, number of devices.
_ESTIMATED = (
  ("8 x A100", "NVIDIA A100-SXM4-80GB", 8),
  ("8 x H100", "NVIDIA H100 80GB HBM3", 8),
  ("v5e-8", "TPU v5 lite", 8),
  ("v5p-8", "TPU v5", 4),
)
_UTILISATION = 0.5


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


def describe_memory(need: StepMemory, have: int | None) -> str:
  """Return the memory that the compiled step needs of one device, and that it has."""
  line = (
    f"memory   {need.total / GIB:.2f} GiB per device: state {need.state / GIB:.2f}, "
    f"temporary {need.temporary / GIB:.2f}"
  )
  if have is None:
    return line
  verdict = "fits" if need.total <= have else "does NOT fit"
  return f"{line}; {verdict} in the {have / GIB:.2f} GiB of this one"


def estimate(setup: Setup) -> str:
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


def devices() -> dict[str, object]:
  """Return the devices of this run, for summary.json."""
  return {
    "devices": jax.device_count(),
    "device_kind": jax.devices()[0].device_kind,
    "processes": jax.process_count(),
  }
