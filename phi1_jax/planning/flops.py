"""Floating point operations that a traced program executes.

Only matrix products count, as in every MFU. `ModelConfig.flops_per_token` is what the
model needs; this also sees recomputation and scores above the causal diagonal. XLA's
own `cost_analysis` counts the body of a loop once.
"""

import math
from collections.abc import Iterator
from typing import Any


def count(jaxpr: Any) -> float:
  """Return the FLOPs of a jaxpr, on all devices together.

  Loops count as often as they turn (a `while` of unknown length: once), branches as
  their costliest one, code under `shard_map` once per device.

  Args:
    jaxpr: a `jax.extend.core.Jaxpr` or `ClosedJaxpr`, such as `jit(f).trace(x).jaxpr`.
  """
  return float(sum(_of_equation(eqn) for eqn in _plain(jaxpr).eqns))


def _of_equation(eqn: Any) -> float:
  name, params = eqn.primitive.name, eqn.params
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    summed = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * summed
  if name == "pallas_call":
    return _of_kernel(params)
  inner = [count(jaxpr) for jaxpr in _inside(params)]
  if name == "cond":
    return max(inner)
  times = 1
  if name == "scan":
    times = params["length"]
  elif name == "shard_map":
    times = math.prod(params["mesh"].shape.values())
  return times * sum(inner)


def _of_kernel(params: Any) -> float:
  """Return a Pallas kernel's own estimate, or its body's FLOPs times its grid."""
  if params["cost_estimate"] is not None:
    return params["cost_estimate"].flops
  return math.prod(params["grid_mapping"].grid) * count(params["jaxpr"])


def _inside(params: Any) -> Iterator[Any]:
  """Yield the jaxprs among an equation's parameters."""
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(_plain(item), "eqns"):
        yield item


def _plain(jaxpr: Any) -> Any:
  return getattr(jaxpr, "jaxpr", jaxpr)
