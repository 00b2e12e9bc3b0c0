"""The mesh `data x fsdp x tensor` that a run is laid out on."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from phi1_jax import InputError

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How many devices each mesh axis gets; one axis may be -1: all that are left.

  Attributes:
    data: copies of the model, each with its own part of the batch.
    fsdp: parts that parameters, optimizer state and batch are split into (ZeRO-3).
    tensor: parts that heads, MLP and vocabulary are split into (Megatron).
  """

  data: int = 1
  fsdp: int = -1
  tensor: int = 1

  def __post_init__(self):
    """Refuses sizes that no number of devices satisfies."""
    sizes = {axis: getattr(self, axis) for axis in AXES}
    for axis, size in sizes.items():
      if size < 1 and size != -1:
        raise InputError(f"Mesh.{axis}: got {size}, expected at least 1, or -1 (rest)")
    if list(sizes.values()).count(-1) > 1:
      raise InputError(f"Mesh: got {sizes}, expected at most one axis of -1")

  def shape(self, num_devices: int) -> tuple[int, int, int]:
    """The (data, fsdp, tensor) sizes for `num_devices`, or an InputError."""
    sizes = [self.data, self.fsdp, self.tensor]
    fixed = math.prod(size for size in sizes if size != -1)
    if num_devices % fixed or (-1 not in sizes and fixed != num_devices):
      raise InputError(
        f"Mesh: data={self.data} x fsdp={self.fsdp} x tensor={self.tensor} does not "
        f"divide over {num_devices} devices; change Mesh.* or use -1 for one axis"
      )
    data, fsdp, tensor = (s if s != -1 else num_devices // fixed for s in sizes)
    return data, fsdp, tensor


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """Lays the devices out as `data x fsdp x tensor`.

  The axes are `Auto`: Linen's logical constraints are refused on `Explicit` axes,
  which `jax.make_mesh` would give by default.

  Raises:
    InputError: they do not divide so, or not along the sides of a TPU's network.
  """
  devices = jax.devices() if devices is None else devices
  shape = config.shape(len(devices))
  try:
    return jax.make_mesh(
      shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
    )
  except NotImplementedError:  # an axis that no whole axes of the network make up
    raise InputError(
      f"Mesh: data={shape[0]} x fsdp={shape[1]} x tensor={shape[2]} does not lie along "
      f"the network of these {len(devices)} devices ({devices[0].device_kind}); give "
      "each axis the size of one of its sides, or of several together"
    ) from None
