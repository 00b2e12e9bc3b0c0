"""FLOPs of traced programs, against counting by hand."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from phi1_jax.planning import flops

X = jnp.ones((2, 3, 5))
Y = jnp.ones((2, 5, 7))
PRODUCT = 2 * 2 * 3 * 7 * 5  # X · Y


def product(x, y):
  return jnp.einsum("bij,bjk->bik", x, y)


def counted(f, *arguments):
  return flops.count(jax.jit(f).trace(*arguments).jaxpr)


def test_a_product():
  assert counted(product, X, Y) == PRODUCT


def test_nothing_but_products_counts():
  assert counted(lambda x: jnp.sum(jnp.exp(x) * x), X) == 0


def test_a_loop_counts_each_turn():
  def f(x, y):
    return jax.lax.scan(lambda c, _: (c + jnp.sum(product(x, y)), None), 0.0, length=11)

  assert counted(f, X, Y) == 11 * PRODUCT


def test_a_branch_counts_the_costliest():
  def f(x, y):
    return jax.lax.cond(x[0, 0, 0] > 0, lambda: jnp.sum(product(x, y)), lambda: 0.0)

  assert counted(f, X, Y) == PRODUCT


def test_gradients_and_recomputation():
  """Two products backward for the one forward, and a third where it is done again."""

  def f(x, y):
    return jnp.sum(jnp.sin(product(x, y)))

  gradient = jax.grad(f, argnums=(0, 1))
  assert counted(gradient, X, Y) == 3 * PRODUCT
  again = jax.checkpoint(f, policy=jax.checkpoint_policies.nothing_saveable)
  assert counted(jax.grad(again, argnums=(0, 1)), X, Y) == 4 * PRODUCT


def test_each_device_counts():
  mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
  spec = PartitionSpec("data")
  f = jax.shard_map(product, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
  assert counted(f, X, Y) == PRODUCT
