"""Description of a run, printed before it starts."""

import jax

from phi1_jax.parallel import sharding
from phi1_jax.training.memory import GIB
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import bytes_per_device


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


def devices() -> dict[str, object]:
  """Return the devices of this run, for summary.json."""
  return {
    "devices": jax.device_count(),
    "device_kind": jax.devices()[0].device_kind,
    "processes": jax.process_count(),
  }
