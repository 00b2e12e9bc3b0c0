"""Machines by name; what libtpu makes of the names."""

import importlib.util

import pytest

from phi1_jax import InputError
from phi1_jax.parallel import compiler, topology

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu (the extra tpu)"
)


@pytest.mark.parametrize(
  ("name", "kind", "grid", "devices"),
  [
    ("v5e:4x4", "TPU v5 lite", (4, 4), 16),
    ("v5e-8", "TPU v5 lite", (2, 4), 8),
    ("v5litepod-16", "TPU v5 lite", (4, 4), 16),
    ("v5e-256", "TPU v5 lite", (16, 16), 256),
    ("v6e-1", "TPU v6 lite", (1, 1), 1),
    ("v4-8", "TPU v4", (2, 2, 1), 4),
    ("v4-32", "TPU v4", (2, 2, 4), 16),
    ("v5p-16", "TPU v5", (2, 2, 2), 8),
    ("v5p:2x2x1", "TPU v5", (2, 2, 1), 4),
    ("v3-8", "TPU v3", (2, 2), 8),
    ("h100-8", "NVIDIA H100 80GB HBM3", (8,), 8),
    ("H200_1", "NVIDIA H200", (1,), 1),
    ("cpu:2", "cpu", (2,), 2),
  ],
)
def test_names(name, kind, grid, devices):
  found = topology.parse(name)
  assert (found.kind, found.grid, found.num_devices) == (kind, grid, devices)
  assert found.simulated == (not kind.startswith("TPU"))


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("v7-8", "got 'v7-8', expected one of v2, v3"),
    ("v5e", "got 'v5e', expected one of"),
    ("", "expected one of"),
    ("v5e-12", "expected v5e:AxB, or v5e-N with N chips, a power of two from 1 on"),
    ("v4-1", "expected v4:AxBxC, or v4-N with N cores, a power of two from 2 on"),
    ("v5e:2x2x2", "expected v5e:AxB"),
    ("v5e:0x4", "expected v5e:AxB"),
    ("h100-0", "got 'h100-0'"),
  ],
)
def test_refused_names(name, message):
  with pytest.raises(InputError, match=message):
    topology.parse(name)


@needs_libtpu
@pytest.mark.parametrize("name", ["v3-8", "v4-8", "v5e-1", "v5e:4x4", "v5p-8", "v6e-8"])
def test_libtpu_knows_them(name):
  found = topology.parse(name)
  devices = topology.devices(found)
  assert len(devices) == found.num_devices
  assert {device.device_kind for device in devices} == {found.kind}


@needs_libtpu
def test_a_layout_that_no_machine_has():
  with pytest.raises(InputError, match="got 'v5e:3x3': INVALID_ARGUMENT"):
    topology.devices(topology.parse("v5e:3x3"))


def test_compiler_options_are_for_their_platform():
  assert "xla_jf_spmd_threshold_for_windowed_einsum_mib" in compiler.options("tpu")
  assert compiler.options("cpu") == {}
