"""FLOPs of traced programs, against counting by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from phi1_jax.planning import flops

X = jnp.ones((2, 3, 5))
Y = jnp.ones((2, 5, 7))
PRODUCT = 2 * 2 * 3 * 7 * 5  # X · Y


def product(x, y):
  return jnp.einsum("bij,bjk->bik", x, y)


def counted(f, *arguments):
  return flops.count(jax.jit(f).trace(*arguments).jaxpr)


def test_gradients_and_recomputation():
  """Two products backward for the one forward, and a third where it is done again."""

  def f(x, y):
    return jnp.sum(jnp.sin(product(x, y)))

  gradient = jax.grad(f, argnums=(0, 1))
  assert counted(gradient, X, Y) == 3 * PRODUCT
  again = jax.checkpoint(f, policy=jax.checkpoint_policies.nothing_saveable)
  assert counted(jax.grad(again, argnums=(0, 1)), X, Y) == 4 * PRODUCT


def loop(x, y):
  return jax.lax.scan(lambda c, _: (c + jnp.sum(product(x, y)), None), 0.0, length=11)


def branch(x, y):
  return jax.lax.cond(x[0, 0, 0] > 0, lambda: jnp.sum(product(x, y)), lambda: 0.0)


def spread(x, y):
  mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
  spec = PartitionSpec("data")
  return jax.shard_map(product, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(x, y)


@pytest.mark.parametrize(
  ("f", "products"),
  [
    (product, 1),
    (lambda x, y: jnp.sum(jnp.exp(x) * x), 0),
    (loop, 11),
    (branch, 1),  # the costliest
    (spread, 1),
  ],
)
def test_counts_products_alone_on_all_devices(f, products):
  assert counted(f, X, Y) == products * PRODUCT
