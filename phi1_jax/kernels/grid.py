"""Attention by Pallas kernels: a program per batch row, head and block of the length.

A code names the dimensions of an array in order, one letter each. It says which part
of the array a program sees, and how the array lies on the mesh:

  B, N     the program's batch row and head; the program sees neither dimension
  Q        the program's block of the length
  T, H, 1  whole: the length, the head_dim, a dimension of size 1
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

# How BTNH lies on one device.
WHOLE = PartitionSpec(None, None, None, None)

# The score of a query and a key that it must not attend to. It is finite, so that no
# difference of two scores is NaN.
MASKED = -1e30


def device() -> Any:
  """Return a device of the mesh that is set, perhaps of another machine, or of ours."""
  return jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]


class Masks(NamedTuple):
  """Inputs that mask or drop attention weights; None where not used.

  Attributes:
    segment_ids_BT: int32.
    rows_BNT: dropout hashes of the queries, uint32 (see `dropout.row_hashes`).
    columns_T: dropout hashes of the keys.
  """

  segment_ids_BT: jax.Array | None = None
  rows_BNT: jax.Array | None = None
  columns_T: jax.Array | None = None


class Grid(NamedTuple):
  """Static settings of a kernel's programs.

  Attributes:
    scale: factor of the scores.
    rate: dropout rate.
    packed: whether there are segment ids.
    spec: how BTNH lies on the mesh that is set: batch and heads may be split.
    interpret: emulate the kernel.
    block: length of a program's block; it divides the length.
    order: the letters B, N and Q in the order of the grid's dimensions.
    compiler_params: those of Mosaic or Triton.
  """

  scale: float
  rate: float
  packed: bool
  spec: PartitionSpec
  interpret: bool
  block: int
  order: str
  compiler_params: Any

  def place(self, code: str) -> PartitionSpec:
    """Return how an array lies on the mesh."""
    axes = {"B": self.spec[0], "N": self.spec[2]}
    return PartitionSpec(*(axes.get(letter) for letter in code))

  @property
  def axis(self) -> int:
    """The grid's dimension that numbers the blocks."""
    return self.order.index("Q")


def differentiable(forward: Callable[..., Any], backward: Callable[..., Any]):
  """Return a function (grid, q, k, v, masks) -> output with a gradient of its own.

  The output and the statistics are named "context": a policy that saves this name saves
  all that the backward kernels need, so that the forward kernel runs once.

  Args:
    forward: (grid, q, k, v, masks) -> (output, statistics).
    backward: (grid, q, k, v, masks, output, statistics, gradient of the output) ->
      gradients of q, k and v.
  """

  @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
  def attend(grid, q, k, v, masks):
    return forward(grid, q, k, v, masks)[0]

  def save(grid, *operands):
    saved = [checkpoint_name(x, "context") for x in forward(grid, *operands)]
    return saved[0], (*operands, *saved)

  def gradients(grid, residuals, d_out):
    return *backward(grid, *residuals, d_out), None

  attend.defvjp(save, gradients)
  return attend


def call(
  kernel: Callable[..., None],
  grid: Grid,
  operands: Sequence[jax.Array],
  codes: str,
  masks: Sequence[tuple[jax.Array, str]],
  outputs: Sequence[tuple[str, Any]],
  *,
  products: int,
) -> tuple[jax.Array, ...]:
  """Run a kernel on each device's batch rows and heads.

  Args:
    kernel: (`Grid`, a reference per operand, mask and output) -> None.
    grid: its settings.
    operands: arrays; H and T are among the letters of their codes.
    codes: their codes, separated by blanks.
    masks: more operands with their codes.
    outputs: (code, dtype) of each output.
    products: matrix products of a block of scores that the kernel computes.
  """
  pairs = [*zip(operands, codes.split(), strict=True), *masks]
  run = functools.partial(_run, kernel, grid, [c for _, c in pairs], outputs, products)
  places = tuple(grid.place(code) for _, code in pairs)
  results = tuple(grid.place(code) for code, _ in outputs)
  return on_mesh(run, places, results)(*(array for array, _ in pairs))


def on_mesh(function: Callable[..., Any], in_specs, out_specs) -> Callable[..., Any]:
  """Run a function on each device's part of its arguments, if a mesh is set.

  The compiler cannot look into a kernel to split it over devices.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return function
  return jax.shard_map(
    function, in_specs=in_specs, out_specs=out_specs, check_vma=False
  )


def dot(left: jax.Array, right: jax.Array, contracted: str = "10") -> jax.Array:
  """Return a product of two matrices, summed in float32.

  Args:
    left: a matrix.
    right: a matrix.
    contracted: the dimension of each that is summed over.
  """
  dims = ((int(contracted[0]),), (int(contracted[1]),)), ((), ())
  return jax.lax.dot_general(left, right, dims, preferred_element_type=jnp.float32)


def _run(kernel, grid, codes, outputs, products, *arrays):
  """Run a kernel on one device; arguments as for `call`."""
  sizes = {"1": 1}
  for array, code in zip(arrays, codes, strict=True):
    sizes.update(zip(code, array.shape, strict=True))
  batch, heads, length, head_dim = (sizes[letter] for letter in "BNTH")
  programs = {"B": batch, "N": heads, "Q": length // grid.block}

  def spec(code: str) -> pl.BlockSpec:
    seen = {**sizes, "B": None, "N": None, "Q": grid.block}
    return pl.BlockSpec(
      tuple(seen[letter] for letter in code),
      lambda *place: tuple(
        place[grid.order.index(letter)] if letter in grid.order else 0
        for letter in code
      ),
    )

  results = [
    jax.ShapeDtypeStruct(tuple(sizes[letter] for letter in code), dtype)
    for code, dtype in outputs
  ]
  scores = batch * heads * length * (length + grid.block) // 2
  run = pl.pallas_call(
    functools.partial(kernel, grid),
    grid=tuple(programs[letter] for letter in grid.order),
    in_specs=[spec(code) for code in codes],
    out_specs=[spec(code) for code, _ in outputs],
    out_shape=results,
    cost_estimate=pl.CostEstimate(
      flops=2 * products * scores * head_dim,
      transcendentals=scores,
      bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*arrays, *results)),
    ),
    compiler_params=grid.compiler_params,
    interpret=grid.interpret,
    name=kernel.__name__.strip("_"),
  )
  return tuple(run(*arrays))
