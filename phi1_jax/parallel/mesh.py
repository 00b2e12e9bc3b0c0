"""The device mesh `data x fsdp x tensor` of a run, over several slices or nodes.

A TPU slice or a GPU node is a group of devices with a fast network (ICI, NVLink); a
slower network (DCN) connects the groups. JAX numbers the groups as
`Device.slice_index`: a TPU slice has a number, and so has a GPU node, because the CUDA
client gives one number to all processes that report the same kernel boot id. Eight
processes on one GPU node are therefore one node. CPU devices have no number;
`Mesh.dcn_data=N` makes N simulated nodes of them.
"""

import collections
import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from phi1_jax import InputError
from phi1_jax.settings import PositiveInt, Settings

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig(Settings):
  """Sizes of the mesh axes; -1 means as many as there are.

  `data` lies across slices, `fsdp` and `tensor` lie inside a slice. fsdp=-1 takes all
  devices of a slice, and data=-1 then is the number of slices.

  Attributes:
    data: copies of the model over all slices, each with its own part of the batch.
    fsdp: parts that parameters, optimizer state and batch are split into (ZeRO-3).
    tensor: parts that heads, MLP and vocabulary are split into (Megatron).
    dcn_data: slices that `data` lies across; None means the number found. 1 ignores
      the slow network: `fsdp` and `tensor` may then cross it.
    cpu_devices: devices that a machine's CPU is split into, where nothing else sets
      their number; None leaves that to JAX, which makes one. On two cores the
      quickstart's steps are 1.17 times as fast on two devices (docs/log/study.md).
  """

  data: PositiveInt | Literal[-1] = -1
  fsdp: PositiveInt | Literal[-1] = -1
  tensor: PositiveInt | Literal[-1] = 1
  dcn_data: PositiveInt | None = None
  cpu_devices: PositiveInt | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.fsdp == self.tensor == -1:
      raise InputError("Mesh: got fsdp=-1 and tensor=-1, expected at most one of both")

  def shape(self, num_devices: int, num_slices: int = 1) -> tuple[int, int, int]:
    """Return the sizes (data, fsdp, tensor).

    Args:
      num_devices: devices on all slices.
      num_slices: slices that `data` has to lie across.

    Raises:
      InputError: the axes do not divide so.
    """
    data, fsdp, tensor = self.data, self.fsdp, self.tensor
    if -1 in (fsdp, tensor):
      data = num_slices if data == -1 else data
      rest = num_devices // (data * max(fsdp, 1) * max(tensor, 1))
      fsdp, tensor = (rest if size == -1 else size for size in (fsdp, tensor))
    elif data == -1:
      data = num_devices // (fsdp * tensor)
    if data * fsdp * tensor == num_devices and data % num_slices == 0:
      return data, fsdp, tensor
    axes = " x ".join(f"{axis}={getattr(self, axis)}" for axis in AXES)
    if num_slices == 1:
      raise InputError(
        f"Mesh: {axes} does not divide over {num_devices} devices; change Mesh.*, or "
        "name another mesh file; to check a run for other machines, give "
        "--simulated_devices=N"
      )
    raise InputError(
      f"Mesh: {axes} does not divide over {num_slices} slices or nodes of "
      f"{num_devices // num_slices} devices; set Mesh.data to -1 or a multiple of "
      f"{num_slices}, with fsdp x tensor inside a slice, or Mesh.dcn_data=1 to let "
      "fsdp and tensor cross the slow network"
    )


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """Return the mesh over all devices, or over those given.

  The axes are `Auto`: Linen's logical constraints fail on `Explicit` axes.

  Raises:
    InputError: the axes do not divide so, or not along a TPU's network.
  """
  if devices is None:
    split_cpu(config.cpu_devices)
    devices = jax.devices()
  return Mesh(arrange(config, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def split_cpu(number: int | None) -> None:
  """Split the CPU into devices, unless JAX has used it or something else sets them."""
  flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
  if number is not None and jax.config.values["jax_num_cpu_devices"] < 0 and not flag:
    with contextlib.suppress(RuntimeError):  # JAX has already used its devices
      jax.config.update("jax_num_cpu_devices", number)


def arrange(config: MeshConfig, devices: Sequence[Any]) -> np.ndarray:
  """Return the devices as an array [data, fsdp, tensor]; raises as `make_mesh`."""
  sizes = collections.Counter(getattr(device, "slice_index", 0) for device in devices)
  if len(set(sizes.values())) > 1:
    raise InputError(
      f"Mesh: got slices or nodes of {sorted(sizes.values())} devices, expected the "
      "same number in each"
    )
  num_slices = config.dcn_data or len(sizes)
  if num_slices not in (1, len(sizes)) and devices[0].platform != "cpu":
    raise InputError(
      f"Mesh.dcn_data: got {num_slices}, expected {len(sizes)}, the number of slices "
      "or nodes found, or 1"
    )
  shape = config.shape(len(devices), num_slices)
  across = _factor(len(sizes), shape)
  inside = [size // part for size, part in zip(shape, across, strict=True)]
  # As `jax.make_mesh` does, which refuses devices of several slices.
  v5e = devices[0].device_kind in ("TPU v5 lite", "TPU v5e")
  options = {"allow_split_physical_axes": v5e}
  try:
    if len(sizes) == 1:
      return mesh_utils.create_device_mesh(shape, devices, **options)
    return mesh_utils.create_hybrid_device_mesh(inside, across, devices, **options)
  except NotImplementedError:  # an axis that no whole axes of the network make up
    raise InputError(
      f"Mesh: data={shape[0]} x fsdp={shape[1]} x tensor={shape[2]} does not lie along "
      f"the network of these {len(devices)} devices ({devices[0].device_kind}); give "
      "each axis the size of one of its sides, or of several together"
    ) from None


def _factor(num_slices: int, shape: Sequence[int]) -> list[int]:
  """Return the part of each axis that crosses slices, outermost axis first."""
  across = []
  for size in shape:
    across.append(math.gcd(size, num_slices))
    num_slices //= across[-1]
  return across
