import jax
import pytest

from phi1_jax import InputError
from phi1_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize(
  ("config", "devices", "shape"),
  [
    (MeshConfig(), 8, (1, 8, 1)),
    (MeshConfig(), 1, (1, 1, 1)),
    (MeshConfig(-1, 2, 2), 8, (2, 2, 2)),
    (MeshConfig(2, 1, -1), 12, (2, 1, 6)),
    (MeshConfig(2, 2, 3), 12, (2, 2, 3)),
  ],
)
def test_shape(config, devices, shape):
  assert config.shape(devices) == shape


@pytest.mark.parametrize(
  ("sizes", "devices"),
  [((3, -1, 1), 8), ((2, 2, 1), 8), ((4, 4, 1), 8), ((16, -1, 1), 8), ((1, 1, 1), 8)],
)
def test_refuses_what_does_not_divide(sizes, devices):
  with pytest.raises(InputError) as error:
    MeshConfig(*sizes).shape(devices)
  data, fsdp, tensor = sizes
  named = f"Mesh: data={data} x fsdp={fsdp} x tensor={tensor} does not divide over 8"
  assert named in str(error.value)


@pytest.mark.parametrize(
  ("sizes", "named"),
  [
    ((0, -1, 1), r"Mesh\.data: got 0"),
    ((1, -2, 1), r"Mesh\.fsdp: got -2"),
    ((-1, -1, 1), "at most one axis of -1"),
  ],
)
def test_refuses_sizes(sizes, named):
  with pytest.raises(InputError, match=named):
    MeshConfig(*sizes)


def test_mesh_holds_every_device_once():
  mesh = make_mesh(MeshConfig(2, 2, 2))
  assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
  assert set(mesh.devices.flat) == set(jax.devices())
  assert make_mesh(MeshConfig(), jax.devices()[:3]).shape["fsdp"] == 3


def test_what_does_not_lie_along_a_network_is_refused(monkeypatch):
  def refuse(*_, **__):
    raise NotImplementedError("Failed to find assignment for logical_axis_index 0")

  monkeypatch.setattr(jax, "make_mesh", refuse)
  with pytest.raises(InputError, match="data=2 x fsdp=4 x tensor=1 does not lie along"):
    make_mesh(MeshConfig(data=2))
