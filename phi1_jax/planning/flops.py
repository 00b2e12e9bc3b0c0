"""Counts the floating point operations that a traced program executes.

Only matrix products are counted, as everywhere where MFU is spoken of. Unlike
`ModelConfig.flops_per_token`, which says what the model needs, this sees what the
program does: recomputation, and scores above the causal diagonal. XLA's own
`cost_analysis` counts the body of a loop once, so it cannot be used for this.
"""

import math
from collections.abc import Iterator
from typing import Any


def count(jaxpr: Any) -> float:
  """FLOPs of a jaxpr, on all devices together.

  Args:
    jaxpr: a `jax.extend.core.Jaxpr` or `ClosedJaxpr`, such as `jit(f).trace(x).jaxpr`.

  Loops count as often as they turn (a `while` of unknown length: once), branches as
  their costliest one, what runs under `shard_map` once per device.
  """
  return float(sum(_of_equation(eqn) for eqn in _plain(jaxpr).eqns))


def _of_equation(eqn: Any) -> float:
  name, params = eqn.primitive.name, eqn.params
  if name == "dot_general":
    return _of_product(eqn)
  if name == "pallas_call":
    return _of_kernel(params)
  inner = [count(jaxpr) for jaxpr in _inside(params)]
  if name == "scan":
    return params["length"] * sum(inner)
  if name == "cond":
    return max(inner)
  if name == "shard_map":
    return math.prod(params["mesh"].shape.values()) * sum(inner)
  return sum(inner)


def _of_product(eqn: Any) -> float:
  """Twice the size of the result times what is summed over."""
  (contracted, _), _ = eqn.params["dimension_numbers"]
  summed = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
  return 2.0 * math.prod(eqn.outvars[0].aval.shape) * summed


def _of_kernel(params: Any) -> float:
  """What a Pallas kernel says of itself; else its body, for every point of its grid."""
  if params["cost_estimate"] is not None:
    return params["cost_estimate"].flops
  grid = params["grid_mapping"].grid
  flops = math.prod(grid) * count(params["jaxpr"])
  if "splash" in str(params["name"]):
    # Its grid ends in blocks of queries by blocks of keys; those above the diagonal are
    # visited and left again.
    return flops * (grid[-1] + 1) / (2 * grid[-1])
  return flops


def _inside(params: Any) -> Iterator[Any]:
  """The jaxprs among an equation's parameters."""
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(_plain(item), "eqns"):
        yield item


def _plain(jaxpr: Any) -> Any:
  """A closed jaxpr's jaxpr."""
  return getattr(jaxpr, "jaxpr", jaxpr)
