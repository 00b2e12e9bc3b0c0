"""Mesh shapes, where slices and nodes lie in them, and how arrays lie on them."""

import dataclasses
import importlib.util
import os
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import PartitionSpec

from phi1_jax import InputError
from phi1_jax.parallel import hosts, sharding
from phi1_jax.parallel.mesh import MeshConfig, arrange, make_mesh
from phi1_jax.planning import topology

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu (the extra tpu)"
)


@dataclasses.dataclass(frozen=True)
class Gpu:
  """A GPU as JAX shows it: `slice_index` is the node."""

  id: int
  slice_index: int
  process_index: int = 0
  platform: str = "gpu"
  device_kind: str = "NVIDIA H100 80GB HBM3"


def nodes(count, size, processes=1):
  """GPUs of several nodes, each with one or more processes, in an unhelpful order."""
  every = [Gpu(i, i // size, processes * i // size) for i in range(count * size)]
  return every[1::2] + every[::2]


def slices_of(array):
  return np.vectorize(lambda device: device.slice_index)(array)


@pytest.mark.parametrize(
  ("config", "devices", "slices", "shape"),
  [
    (MeshConfig(), 8, 1, (1, 8, 1)),
    (MeshConfig(), 1, 1, (1, 1, 1)),
    (MeshConfig(-1, 2, 2), 8, 1, (2, 2, 2)),
    (MeshConfig(2, 1, -1), 12, 1, (2, 1, 6)),
    (MeshConfig(), 16, 2, (2, 8, 1)),
    (MeshConfig(fsdp=4), 16, 2, (4, 4, 1)),
    (MeshConfig(fsdp=1, tensor=-1), 32, 2, (2, 1, 16)),
  ],
)
def test_shape(config, devices, slices, shape):
  assert config.shape(devices, slices) == shape


@pytest.mark.parametrize(
  ("sizes", "devices", "slices", "message"),
  [
    *((s, 8, 1, "does not divide over 8") for s in [(3, -1, 1), (2, 2, 1), (4, 4, 1)]),
    *((s, 32, 2, "2 slices or nodes of 16") for s in [(1, 16, 1), (1, -1, 1)]),
    *((s, 32, 2, "Mesh.dcn_data=1") for s in [(3, -1, 1), (2, 8, 1), (-1, 32, 1)]),
  ],
)
def test_refuses_what_does_not_divide_or_would_cross_slices(
  sizes, devices, slices, message
):
  with pytest.raises(InputError, match=re.escape(message)):
    MeshConfig(*sizes).shape(devices, slices)


@pytest.mark.parametrize("processes", [1, 8])
def test_gpu_nodes(processes):
  """Node by node along data, whether a node has one process or one for each GPU."""
  found = arrange(MeshConfig(data=4, tensor=2), nodes(2, 8, processes))
  assert found.shape == (4, 2, 2)
  np.testing.assert_array_equal(slices_of(found)[:, 0, 0], [0, 0, 1, 1])
  for group in slices_of(found).reshape(4, 4):
    assert len(set(group)) == 1  # fsdp and tensor stay on a node
  assert [device.id for device in found.flat] == [*range(16)]
  assert arrange(MeshConfig(), nodes(1, 8, processes)).shape == (1, 8, 1)


def test_one_flat_mesh_over_two_nodes():
  found = arrange(MeshConfig(1, -1, 2, dcn_data=1), nodes(2, 8))
  assert found.shape == (1, 8, 2)
  np.testing.assert_array_equal(slices_of(found)[0, :, 0], [0] * 4 + [1] * 4)
  found = arrange(MeshConfig(1, 1, 16, dcn_data=1), nodes(2, 8))
  np.testing.assert_array_equal(slices_of(found)[0, 0], [0] * 8 + [1] * 8)


@pytest.mark.parametrize(
  ("config", "devices", "message"),
  [
    (MeshConfig(dcn_data=2), nodes(4, 2), "dcn_data: got 2, expected 4, the number of"),
    (MeshConfig(), [*nodes(1, 4), Gpu(8, 1), Gpu(9, 1)], r"nodes of \[2, 4\] devices"),
  ],
)
def test_refuses_nodes_that_are_not_as_many_or_as_large_as_meant(
  config, devices, message
):
  with pytest.raises(InputError, match=message):
    arrange(config, devices)


def test_simulated_nodes():
  mesh = make_mesh(MeshConfig(dcn_data=2))
  assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
  assert [*mesh.devices[0].flat] == jax.devices()[:4]
  assert set(mesh.devices.flat) == set(jax.devices())
  with pytest.raises(InputError, match="2 slices or nodes of 4 devices"):
    make_mesh(MeshConfig(1, 8, 1, dcn_data=2))


@needs_libtpu
@pytest.mark.parametrize(
  ("name", "config"),
  [
    ("v5e-16x2", MeshConfig(fsdp=8, tensor=2)),
    ("v4-32x4", MeshConfig()),
  ],
)
def test_tpu_slices(name, config):
  """Each copy of the model has the devices of a single slice."""
  machine = topology.parse(name)
  found = slices_of(arrange(config, topology.devices(machine)))
  copies = found.reshape(found.shape[0], -1)
  assert (copies == copies[:, :1]).all()
  assert copies[:, 0].tolist() == sorted(copies[:, 0])
  assert len(set(copies[:, 0])) == machine.slices


def test_axes_that_do_not_lie_along_a_network(monkeypatch):
  def refuse(*_, **__):
    raise NotImplementedError("Failed to find assignment for logical_axis_index 0")

  monkeypatch.setattr(mesh_utils, "create_device_mesh", refuse)
  with pytest.raises(InputError, match="data=2 x fsdp=4 x tensor=1 does not lie along"):
    make_mesh(MeshConfig(data=2))


@pytest.mark.parametrize(
  ("environment", "number"), [({}, 3), ({"JAX_NUM_CPU_DEVICES": "2"}, 2)]
)
def test_a_cpu_is_split_where_nothing_else_says_how(environment, number):
  code = "from phi1_jax.parallel.mesh import MeshConfig, make_mesh;"
  code += "print(make_mesh(MeshConfig(cpu_devices=3)).size)"
  given = {**os.environ, "XLA_FLAGS": "", **environment}
  done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=given)
  assert int(done.stdout) == number


def boxed(shape, names):
  return nn.Partitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)


@pytest.mark.parametrize(
  ("names", "spec"),
  [
    (("vocab", "embed"), PartitionSpec("tensor", "fsdp")),
    (("embed", "mlp"), PartitionSpec("fsdp", "tensor")),
    (("layers", "embed", "qkv", "heads", "head_dim"), (None, "fsdp", None, "tensor")),
    (("norm",), PartitionSpec(None)),
    # The batch is split over fsdp already, so the activation's width stays whole.
    (("batch", "length", "embed"), (("data", "fsdp"),)),
  ],
)
def test_words_to_axes(names, spec):
  mesh = make_mesh(MeshConfig(2, 2, 2))
  tree = {"x": boxed((8,) * len(names), names)}
  found = sharding.shardings(tree, mesh)["x"].spec
  pad = (None,) * len(names)
  assert (*found, *pad)[: len(names)] == (*spec, *pad)[: len(names)]


def test_what_does_not_divide_is_named():
  mesh = make_mesh(MeshConfig(1, 1, 8))
  tree = {"mlp": {"up": boxed((16, 12), ("embed", "mlp"))}}
  message = "tensor=8 does not divide 12 in parameter mlp/up"
  with pytest.raises(InputError, match=message):
    sharding.shardings(tree, mesh)


class _Elsewhere:
  """A sharding of which this host has the devices of some rows only."""

  def __init__(self, rows):
    self.rows = rows

  def addressable_devices_indices_map(self, shape):
    return {i: (rows,) for i, rows in enumerate(self.rows)}


def test_rows_of_a_host_whose_devices_lie_apart(monkeypatch):
  """The first host of a v5e 4x4: its devices are 0, 1, 6 and 15 of the mesh."""
  rows = [slice(2 * place, 2 * place + 2) for place in (15, 0, 6, 1)]
  monkeypatch.setattr(sharding, "batch_sharding", lambda mesh: _Elsewhere(rows))
  found = sharding.host_rows(None, 32)
  assert found.tolist() == [0, 1, 2, 3, 12, 13, 30, 31]


def test_one_host_meets_nobody():
  assert (hosts.index(), hosts.count(), hosts.is_first()) == (0, 1, True)
  assert hosts.exchange("a", {"b": 1}) == [{"b": 1}]
  with pytest.raises(InputError, match=r"^mine$"), hosts.shared_errors("a"):
    raise InputError("mine")


def test_a_port_that_is_taken():
  with (
    socket.create_server(("", 0)) as server,
    pytest.raises(InputError, match="Address already in use"),
  ):
    hosts._check_port(server.getsockname()[1], "refused")


def test_nobody_to_join():
  """The runtime aborts where the time to join is over: one line, and exit code 1."""
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
  program = (
    f"from phi1_jax.parallel import hosts;hosts.join('localhost:{port}', 2, 1, limit=1)"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
  )
  assert run.returncode == 1, run.stderr
  assert run.stderr.splitlines()[-1].startswith("error: --coordinator_address: cannot")


@pytest.mark.parametrize(
  ("abort", "gone"),
  [
    ("os.abort()", False),
    ("threading.Thread(target=os.abort).start(); time.sleep(9)", False),
    # A thread that Python does not know, as the coordination service's.
    (
      "libc = ctypes.CDLL(None); thread = ctypes.c_ulong();"
      "libc.pthread_create(ctypes.byref(thread), None, libc.abort, None);"
      "time.sleep(9)",
      True,
    ),
  ],
)
def test_an_abort_of_this_process_is_not_taken_for_a_lost_host(abort, gone):
  program = (
    "import ctypes, os, threading, time;from phi1_jax.parallel import hosts;"
    f"hosts._handle_abort();{abort}"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
  )
  assert run.returncode == 1
  assert ("another host is gone" in run.stderr) is gone
  assert run.stderr.splitlines()[-1].startswith("error:")
