"""Flash attention for NVIDIA GPUs, with dropout on the weights and segment ids.

cuDNN's kernel also has dropout, but its seed is a constant of the compiled program:
every step and every device would drop the same weights. Here the mask is the hash of
`kernels.dropout`, so that it follows the key and equals that of `dense.reference`.

Pallas compiles these kernels with Triton. A program works on one block of queries (or
of keys) of one head and reads the other side in steps. The left factor of each product
that accumulates is the one that the program has just computed, so that it can stay in
registers.

  forward         scores_QS = q_QH · k_SH; online softmax along the rows;
                  out_QH += p_QS · v_SH
  query gradient  p again from the saved log-sum-exp;
                  delta_Q = sum over H of out · d_out;
                  d_scores_QS = p · (keep · (d_out_QH · v_SH) - delta_Q)
  key gradient    the same transposed: p_SQ, d_scores_SQ

Exponentials and logarithms are to base 2, which is what the hardware computes.

B batch, N heads, H head_dim, T positions; Q queries, S keys: a block or a step of them.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec

from phi1_jax.kernels import dropout
from phi1_jax.kernels.grid import MASKED, WHOLE, Grid, Masks, call, differentiable, dot

# A program's block, and its step along the other side. Tuning waits for hardware.
BLOCK = 128
_FORWARD_STEP, _BACKWARD_STEP = 64, 32

# Triton takes powers of two, and 16 is the least that a matrix product takes.
HEAD_DIMS = (16, 32, 64, 128)


def flash(
  q_BTNH: jax.Array,
  k_BTNH: jax.Array,
  v_BTNH: jax.Array,
  masks: Masks,
  dropout_rate: float,
  *,
  spec: PartitionSpec = WHOLE,
  interpret: bool = False,
) -> jax.Array:
  """Compute causal attention as `flash_tpu.flash` does.

  `BLOCK` divides the length T, and the head_dim H is one of `HEAD_DIMS`.
  """
  head_dim = q_BTNH.shape[3]
  grid = Grid(
    scale=head_dim**-0.5,
    rate=dropout_rate,
    packed=masks.segment_ids_BT is not None,
    spec=spec,
    interpret=interpret,
    block=BLOCK,
    # Neighbouring programs read the same keys and values, which stay in the L2 cache.
    order="QNB",
    compiler_params=triton.CompilerParams(
      num_warps=4 if head_dim <= 64 else 8, num_stages=2
    ),
  )
  out_BTNH: Any = _flash(grid, q_BTNH, k_BTNH, v_BTNH, masks)
  return out_BTNH


def _forward(grid, q_BTNH, k_BTNH, v_BTNH, masks):
  outputs = [("BQNH", q_BTNH.dtype), ("BNQ", jnp.float32)]
  operands, codes = (q_BTNH, k_BTNH, v_BTNH), "BQNH BTNH BTNH"
  arguments = operands, codes, _coded(masks), outputs
  return call(_forward_kernel, grid, *arguments, products=2)


def _backward(grid, q_BTNH, k_BTNH, v_BTNH, masks, out_BTNH, log_z_BNT, d_out_BTNH):
  product_BTNH = out_BTNH.astype(jnp.float32) * d_out_BTNH.astype(jnp.float32)
  delta_BNT = jnp.sum(product_BTNH, axis=3).swapaxes(1, 2)
  operands = q_BTNH, d_out_BTNH, log_z_BNT, delta_BNT, k_BTNH, v_BTNH
  codes, output = "BQNH BQNH BNQ BNQ BTNH BTNH", ("BQNH", q_BTNH.dtype)
  by_queries = operands, codes, _coded(masks), [output]
  (d_q_BTNH,) = call(_query_gradient_kernel, grid, *by_queries, products=3)
  codes = "BTNH BTNH BNT BNT BQNH BQNH"
  by_keys = operands, codes, _coded(masks), [output, output]
  d_k_BTNH, d_v_BTNH = call(_key_gradient_kernel, grid, *by_keys, products=4)
  return d_q_BTNH, d_k_BTNH, d_v_BTNH


_flash = differentiable(_forward, _backward)


def _coded(masks: Masks) -> list[tuple[jax.Array, str]]:
  """Return the masks that are there, with their codes."""
  codes = ("BT", "BNT", "T")
  return [(x, code) for x, code in zip(masks, codes, strict=True) if x is not None]


class _Side(NamedTuple):
  """Queries or keys, shaped to broadcast: positions, segment ids, dropout hashes."""

  positions: Any
  ids: Any
  hashes: Any


def _sides(grid: Grid, mask_refs):
  """Return functions (start, size, axis) -> `_Side` of the queries and of the keys."""
  ids_T = mask_refs[0] if grid.packed else None
  rows_T, columns_T = mask_refs[-2:] if grid.rate else (None, None)

  def side(hashes_T, start, size: int, axis: int) -> _Side:
    def along(x):
      return x[:, None] if axis == 0 else x[None, :]

    here = pl.ds(start, size)
    return _Side(
      along(start + jax.lax.iota(jnp.int32, size)),
      None if ids_T is None else along(ids_T[here]),
      None if hashes_T is None else along(hashes_T[here]),
    )

  return functools.partial(side, rows_T), functools.partial(side, columns_T)


def _scores(grid: Grid, product, queries: _Side, keys: _Side, diagonal: bool):
  """Return scaled scores to base 2, masked; `diagonal`: they cross the causal line."""
  scores = product * (grid.scale * math.log2(math.e))
  allowed = None
  if diagonal:
    allowed = keys.positions <= queries.positions
  if grid.packed:
    same = queries.ids == keys.ids
    allowed = same if allowed is None else allowed & same
  return scores if allowed is None else jnp.where(allowed, scores, MASKED)


def _drop(grid: Grid, x, queries: _Side, keys: _Side):
  """Zero the dropped elements and scale the others."""
  if not grid.rate:
    return x
  kept = dropout.keep(queries.hashes, keys.hashes, grid.rate)
  return jnp.where(kept, x * (1 / (1 - grid.rate)), 0.0)


def _forward_kernel(grid, q_QH, k_TH, v_TH, *refs):
  mask_refs, (out_QH, log_z_Q) = refs[:-2], refs[-2:]
  step, steps = _FORWARD_STEP, grid.block // _FORWARD_STEP
  queries_at, keys_at = _sides(grid, mask_refs)
  queries = queries_at(pl.program_id(grid.axis) * grid.block, grid.block, 0)
  q = q_QH[...]

  def add(part, carry, diagonal=False):
    out, top_Q, total_Q = carry
    here, keys = pl.ds(part * step, step), keys_at(part * step, step, 1)
    product = dot(q, k_TH[here, :], "11")
    scores_QS = _scores(grid, product, queries, keys, diagonal)
    new_top_Q = jnp.maximum(top_Q, jnp.max(scores_QS, axis=1))
    weights_QS = jnp.exp2(scores_QS - new_top_Q[:, None])
    shrink_Q = jnp.exp2(top_Q - new_top_Q)
    total_Q = total_Q * shrink_Q + jnp.sum(weights_QS, axis=1)
    dropped_QS = _drop(grid, weights_QS, queries, keys)
    out = out * shrink_Q[:, None] + dot(dropped_QS.astype(q.dtype), v_TH[here, :])
    return out, new_top_Q, total_Q

  # Where all keys so far are masked, they count as equals. The first key that is not,
  # at the latest the query's own, shrinks them to nothing.
  carry = (
    jnp.zeros(q.shape, jnp.float32),
    jnp.full((grid.block,), MASKED, jnp.float32),
    jnp.zeros((grid.block,), jnp.float32),
  )
  first = pl.program_id(grid.axis) * steps  # of the steps that cross the diagonal
  carry = jax.lax.fori_loop(0, first, add, carry)
  on_diagonal = functools.partial(add, diagonal=True)
  out, top_Q, total_Q = jax.lax.fori_loop(first, first + steps, on_diagonal, carry)
  out_QH[...] = (out / total_Q[:, None]).astype(out_QH.dtype)
  log_z_Q[...] = top_Q + jnp.log2(total_Q)


def _query_gradient_kernel(grid, q_QH, d_out_QH, log_z_Q, delta_Q, k_TH, v_TH, *refs):
  mask_refs, d_q_QH = refs[:-1], refs[-1]
  step, steps = _BACKWARD_STEP, grid.block // _BACKWARD_STEP
  queries_at, keys_at = _sides(grid, mask_refs)
  queries = queries_at(pl.program_id(grid.axis) * grid.block, grid.block, 0)
  q, d_out, log_z, delta = q_QH[...], d_out_QH[...], log_z_Q[...], delta_Q[...]

  def add(part, d_q, diagonal=False):
    here, keys = pl.ds(part * step, step), keys_at(part * step, step, 1)
    k = k_TH[here, :]
    scores_QS = _scores(grid, dot(q, k, "11"), queries, keys, diagonal)
    d_weights_QS = _drop(grid, dot(d_out, v_TH[here, :], "11"), queries, keys)
    weights_QS = jnp.exp2(scores_QS - log_z[:, None])
    d_scores_QS = weights_QS * (d_weights_QS - delta[:, None])
    return d_q + dot(d_scores_QS.astype(q.dtype), k)

  first = pl.program_id(grid.axis) * steps
  d_q = jax.lax.fori_loop(0, first, add, jnp.zeros(q.shape, jnp.float32))
  on_diagonal = functools.partial(add, diagonal=True)
  d_q = jax.lax.fori_loop(first, first + steps, on_diagonal, d_q)
  d_q_QH[...] = (d_q * grid.scale).astype(d_q_QH.dtype)


def _key_gradient_kernel(grid, q_TH, d_out_TH, log_z_T, delta_T, k_SH, v_SH, *refs):
  mask_refs, (d_k_SH, d_v_SH) = refs[:-2], refs[-2:]
  step, steps = _BACKWARD_STEP, grid.block // _BACKWARD_STEP
  queries_at, keys_at = _sides(grid, mask_refs)
  keys = keys_at(pl.program_id(grid.axis) * grid.block, grid.block, 0)
  k, v = k_SH[...], v_SH[...]

  def add(part, carry, diagonal=False):
    d_k, d_v = carry
    here, queries = pl.ds(part * step, step), queries_at(part * step, step, 1)
    q, d_out = q_TH[here, :], d_out_TH[here, :]
    scores_SQ = _scores(grid, dot(k, q, "11"), queries, keys, diagonal)
    weights_SQ = jnp.exp2(scores_SQ - log_z_T[here][None, :])
    dropped_SQ = _drop(grid, weights_SQ, queries, keys)
    d_v += dot(dropped_SQ.astype(q.dtype), d_out)
    d_weights_SQ = _drop(grid, dot(v, d_out, "11"), queries, keys)
    d_scores_SQ = weights_SQ * (d_weights_SQ - delta_T[here][None, :])
    d_k += dot(d_scores_SQ.astype(q.dtype), q)
    return d_k, d_v

  first = pl.program_id(grid.axis) * steps
  zeros = jnp.zeros(k.shape, jnp.float32)
  on_diagonal = functools.partial(add, diagonal=True)
  carry = jax.lax.fori_loop(first, first + steps, on_diagonal, (zeros, zeros))
  last = pl.num_programs(grid.axis) * steps
  d_k, d_v = jax.lax.fori_loop(first + steps, last, add, carry)
  d_k_SH[...] = (d_k * grid.scale).astype(d_k_SH.dtype)
  d_v_SH[...] = d_v.astype(d_v_SH.dtype)
