"""A train step on two nodes computes what it computes on one node."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh

from phi1_jax.parallel import sharding
from phi1_jax.parallel.mesh import AXES, MeshConfig, arrange
from phi1_jax.training import memory, state, step


class Node:
  """A CPU device with the number of a node."""

  def __init__(self, device, slice_index):
    self.device, self.slice_index = device, slice_index
    self.platform, self.device_kind = device.platform, device.device_kind


def two_nodes(config: MeshConfig) -> Mesh:
  """A mesh over two nodes: devices with even numbers, and those with odd ones."""
  found = arrange(config, [Node(device, device.id % 2) for device in jax.devices()])
  return Mesh(np.vectorize(lambda node: node.device)(found), AXES)


def updated(setup, mesh):
  """Return the losses of two steps and the parameters after them."""
  with sharding.layout(mesh):
    abstract = state.abstract(setup.model, setup.optimizer, mesh)
    setup = dataclasses.replace(setup, mesh=mesh, abstract_state=abstract)
    now = state.initialise(setup.model, setup.optimizer, mesh, 0)
    function = memory.compile_step(step.make_train_step(setup, 0), setup)
  losses = []
  for tokens in np.random.default_rng(1).integers(0, 64, (2, 16, 17), np.int32):
    now, metrics = function(now, sharding.put_batch(tokens, mesh, 16))
    losses.append(float(metrics["loss"]))
  return losses, jax.device_get(now.params)


def test_loss_and_parameters_are_those_of_one_node(tiny):
  setup = tiny(mesh=(2, 2, 2))
  mesh = two_nodes(MeshConfig(tensor=2))
  assert mesh.shape == setup.mesh.shape
  assert [device.id for device in mesh.devices.flat] == [0, 2, 4, 6, 1, 3, 5, 7]
  losses, parameters = updated(setup, mesh)
  expected_losses, expected = updated(setup, setup.mesh)
  assert losses == expected_losses
  jax.tree.map(np.testing.assert_array_equal, parameters, expected)
