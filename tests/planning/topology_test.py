"""Machines by name, and the devices that libtpu returns for them."""

import importlib.util

import jax
import pytest

from phi1_jax import InputError
from phi1_jax.parallel import compiler
from phi1_jax.planning import topology


@pytest.mark.parametrize(
  ("name", "kind", "grid", "slices", "devices"),
  [
    ("v5e:4x4:2", "TPU v5 lite", (4, 4), 2, 32),
    ("v5litepod-16", "TPU v5 lite", (4, 4), 1, 16),
    ("v5e_16x2", "TPU v5 lite", (4, 4), 2, 32),
    ("v4-32x3", "TPU v4", (2, 2, 4), 3, 48),
    ("v5p-16", "TPU v5", (2, 2, 2), 1, 8),
    ("v3-8", "TPU v3", (2, 2), 1, 8),
    ("h100-8x2", "NVIDIA H100 80GB HBM3", (8,), 2, 16),
    ("H200_1", "NVIDIA H200", (1,), 1, 1),
    ("cpu:2", "cpu", (2,), 1, 2),
  ],
)
def test_names(name, kind, grid, slices, devices):
  """Also: libtpu knows the TPUs among them."""
  found = topology.parse(name)
  assert (found.kind, found.grid, found.slices) == (kind, grid, slices)
  assert found.num_devices == devices
  assert found.platform == {"T": "tpu", "N": "gpu", "c": "cpu"}[kind[0]]
  assert found.simulated == (found.platform != "tpu")
  if found.simulated or importlib.util.find_spec("libtpu") is None:
    return
  real = topology.devices(found)
  assert len(real) == devices
  assert {device.device_kind for device in real} == {kind}
  assert len({getattr(device, "slice_index", 0) for device in real}) == slices


@pytest.mark.parametrize(
  "name",
  ["v7-8", "v5e-12", "v4-1", "v5e:2x2x2", "v5e-16x0", "h100-8x0", "h100:2x2", "x"],
)
def test_refused_names(name):
  with pytest.raises(InputError, match=f"got '{name}', expected one of v2, v3"):
    topology.parse(name)


def test_a_layout_that_no_machine_has():
  pytest.importorskip("libtpu")
  with pytest.raises(InputError, match="got 'v5e:3x3': INVALID_ARGUMENT"):
    topology.devices(topology.parse("v5e:3x3"))


def test_xla_knows_the_gpu_options():
  """XLA reads the GPU's options on the CPU too, and refuses names it does not know."""
  lowered = jax.jit(lambda x: x + 1).lower(1.0)
  for name, value in compiler.options("gpu", 8).items():
    lowered.compile(compiler_options={name: value})
  with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
    lowered.compile(compiler_options={"xla_gpu_enable_wishes": True})
