"""Setup of a run: everything that its loop needs, with nothing allocated yet."""

import dataclasses
import json
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.manager import CheckpointConfig
from phi1_jax.cli import gin_config
from phi1_jax.data.config import DataConfig
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder, parameter_shapes
from phi1_jax.optim.config import OptimizerConfig
from phi1_jax.optim.optimizer import make_optimizer
from phi1_jax.optim.schedule import make_schedule
from phi1_jax.parallel import sharding
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.storage import AnyPath
from phi1_jax.training import state as train_state
from phi1_jax.training.config import HARMLESS, RuntimeConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Everything that gin says about a run, one object per part."""

  model: ModelConfig
  data: DataConfig
  mesh: MeshConfig
  optimizer: OptimizerConfig
  train: TrainConfig
  checkpoint: CheckpointConfig
  runtime: RuntimeConfig

  def __post_init__(self):
    """Refuse combinations that no part can check alone."""
    if self.train.sequence_length > self.model.max_length:
      raise InputError(
        f"Train.sequence_length: got {self.train.sequence_length}, expected at most "
        f"Model.max_length={self.model.max_length}"
      )
    if "float16" in (self.model.dtype, self.model.param_dtype):
      raise InputError(
        "Model.dtype: got 'float16', whose gradients need loss scaling, which this "
        "trainer does not do; expected 'bfloat16' or 'float32'"
      )
    every, evaluated = self.checkpoint.every, self.train.evaluate_every
    if self.checkpoint.keep_best and (not evaluated or evaluated % every):
      raise InputError(
        f"Checkpoint.keep_best: got {self.checkpoint.keep_best} with "
        f"Train.evaluate_every={evaluated}, expected a multiple of "
        f"Checkpoint.every={every}, so that each evaluated step is saved"
      )
    profile_at, last = self.runtime.profile_at, self.train.last_step
    if profile_at and profile_at >= last:
      raise InputError(
        f"Runtime.profile_at: got {profile_at}, expected a step before the run's last, "
        f"{last}"
      )

  @classmethod
  def from_parts(cls, parts: Mapping[str, Any]) -> "RunConfig":
    """Make a config from objects by the names of `CONFIGURABLES`."""
    return cls(**{name.lower(): part for name, part in parts.items()})

  def text(self) -> str:
    """Return all settings as gin text, which config.gin holds."""
    return gin_config.text(
      {name: getattr(self, name.lower()) for name in CONFIGURABLES}
    )

  def differences(self, meta: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that decide a result and differ from a checkpoint's.

    Args:
      meta: of the checkpoint, whose `config` has the settings of its run.

    Returns:
      Name, such as `Train.seed`, -> (the checkpoint's value, ours).
    """
    ours, found = json.loads(json.dumps(dataclasses.asdict(self))), {}
    for part in ("data", "model", "optimizer", "train"):
      for field, theirs in meta.get("config", {}).get(part, {}).items():
        known = field in ours[part] and field not in HARMLESS
        if known and theirs != ours[part][field]:
          found[f"{part.capitalize()}.{field}"] = theirs, ours[part][field]
    return found


# What gin may bind, by name.
CONFIGURABLES = {
  name.capitalize(): part for name, part in typing.get_type_hints(RunConfig).items()
}


@dataclasses.dataclass(frozen=True)
class Setup:
  """A run laid out on its mesh."""

  config: RunConfig
  workdir: AnyPath
  mesh: Mesh
  model: Decoder
  schedule: optax.Schedule  # learning rate of each step
  optimizer: optax.GradientTransformation
  abstract_state: train_state.TrainState  # shapes and shardings
  accumulation_steps: int  # parts that a step cuts its batch into
  mirror: storage.Mirror | None = None  # local copies of files in `workdir` that grow
  began: float = dataclasses.field(default_factory=time.time)  # Unix seconds
  # Returns whether the run is to stop; all hosts must call it alike.
  stop_requested: Callable[[], bool] = lambda: False

  @property
  def local(self) -> Path:
    """The local folder for files that grow; `workdir` itself if that is local."""
    return self.mirror.local if self.mirror else Path(self.workdir)

  def initial_state(self) -> train_state.TrainState:
    """Return the first state; each device makes its own part only."""
    make = jax.jit(
      lambda key: sharding.unbox(train_state.init(self.model, self.optimizer, key)),
      out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state),
    )
    with sharding.layout(self.mesh):
      return make(jax.random.key(self.config.train.seed))

  @property
  def abstract_batch(self) -> jax.ShapeDtypeStruct:
    """The token windows of one step: int32 [B, T + 1]."""
    train = self.config.train
    return jax.ShapeDtypeStruct(
      (train.batch_size, train.sequence_length + 1),
      "int32",
      sharding=sharding.batch_sharding(self.mesh),
    )

  @property
  def flops_per_token(self) -> float:
    """Training FLOPs per token by formula (see `ModelConfig.flops_per_token`)."""
    return self.config.model.flops_per_token(self.config.train.sequence_length)


def make_setup(
  config: RunConfig, workdir: AnyPath, devices: Sequence[Any] | None = None
) -> Setup:
  """Return a run laid out over all devices, or over those given.

  Raises:
    InputError: mesh, batch and model do not divide over the devices.
  """
  mesh = make_mesh(config.mesh, devices)
  model = Decoder(config.model)
  steps = config.train.total_steps
  shapes = parameter_shapes(config.model)
  optimizer = make_optimizer(config.optimizer, steps, shapes, mesh)
  with sharding.layout(mesh):
    abstract_state = train_state.abstract(model, optimizer, mesh)
  return Setup(
    config=config,
    workdir=workdir,
    mesh=mesh,
    model=model,
    schedule=make_schedule(config.optimizer, steps),
    optimizer=optimizer,
    abstract_state=abstract_state,
    accumulation_steps=config.train.accumulation_steps(sharding.batch_shards(mesh)),
  )
