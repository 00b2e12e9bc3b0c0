"""Flash attention for TPUs, with dropout on the weights and segment ids.

JAX's splash attention has no dropout on the weights, which the paper trained with. It
also stores heads that are 64 wide, as those of phi-1, in half of each 128-lane register
and of each tile in memory. This kernel transposes everything, so that positions lie in
the lanes: nothing is padded, and the statistics of the queries are plain rows.

A program works on one block of queries (or of keys) of one head. All keys and values
of that head are in its VMEM: 768 KiB for 2048 positions of 64, in bfloat16. No two
programs write to the same place, so that they may run on both cores of a chip.

  forward   scores_SQ = k_SH · q_HQ; online softmax down the columns;
            out_HQ += v_HS · p_SQ
  backward  p again from the saved log-sum-exp; delta_Q = sum over H of out · d_out;
            d_scores_SQ = p · (keep · (v_SH · d_out_HQ) - delta_Q)

B batch, N heads, H head_dim, T positions; Q a block of queries, S a block of keys.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from phi1_jax.kernels import dropout
from phi1_jax.kernels.grid import MASKED, WHOLE, Grid, Masks, call, differentiable, dot

# The longest that divides the length is used. Tuning waits for hardware.
_BLOCKS = (512, 256, 128)
BLOCK = _BLOCKS[-1]

# The keys and values of a head must fit into VMEM beside the rest, segment ids and
# dropout included: 8192 positions fit on v5e but not on v4.
MAX_LENGTH = 4096

# The compiler may split a "parallel" dimension of the grid over the two cores of a
# v4 or v5p; its default, "arbitrary", keeps all programs on one core.
_PARAMS = pltpu.CompilerParams(dimension_semantics=("parallel",) * 3)


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
  """Compute causal attention.

  Args:
    q_BTNH: queries; T a multiple of `BLOCK`, at most `MAX_LENGTH`.
    k_BTNH: keys.
    v_BTNH: values.
    masks: segment ids and dropout hashes.
    dropout_rate: in [0, 1); 0 without hashes.
    spec: how BTNH lies on the mesh that is set: batch and heads may be split.
    interpret: emulate the kernels, for machines without a TPU.

  Returns:
    BTNH in the dtype of the queries.
  """
  q_BNHT, k_BNHT, v_BNHT = (x.transpose(0, 2, 3, 1) for x in (q_BTNH, k_BTNH, v_BTNH))
  length, head_dim = q_BTNH.shape[1], q_BTNH.shape[3]
  grid = Grid(
    scale=head_dim**-0.5,
    rate=dropout_rate,
    packed=masks.segment_ids_BT is not None,
    spec=spec,
    interpret=interpret,
    block=next(size for size in _BLOCKS if length % size == 0),
    order="BNQ",
    compiler_params=_PARAMS,
  )
  out_BNHT: Any = _flash(grid, q_BNHT, k_BNHT, v_BNHT, masks)
  return out_BNHT.transpose(0, 3, 1, 2)


def _forward(grid, q_BNHT, k_BNHT, v_BNHT, masks):
  outputs = [("BNHQ", q_BNHT.dtype), ("BN1Q", jnp.float32)]
  operands, codes = (q_BNHT, k_BNHT.swapaxes(2, 3), v_BNHT), "BNHQ BNTH BNHT"
  arguments = operands, codes, _coded(masks, "QT"), outputs
  return call(_forward_kernel, grid, *arguments, products=2)


def _backward(grid, q_BNHT, k_BNHT, v_BNHT, masks, out_BNHT, log_z_BN1T, d_out_BNHT):
  product_BNHT = out_BNHT.astype(jnp.float32) * d_out_BNHT.astype(jnp.float32)
  delta_BN1T = jnp.sum(product_BNHT, axis=2, keepdims=True)
  k_BNTH, v_BNTH = k_BNHT.swapaxes(2, 3), v_BNHT.swapaxes(2, 3)
  operands = q_BNHT, d_out_BNHT, log_z_BN1T, delta_BN1T, k_BNTH, v_BNTH
  codes, output = "BNHQ BNHQ BN1Q BN1Q BNTH BNTH BNHT", ("BNHQ", q_BNHT.dtype)
  by_queries = (*operands, k_BNHT), codes, _coded(masks, "QT"), [output]
  (d_q_BNHT,) = call(_query_gradient_kernel, grid, *by_queries, products=3)
  codes = "BNHT BNHT BN1T BN1T BNQH BNQH"
  by_keys = operands, codes, _coded(masks, "TQ"), [output, output]
  d_k_BNHT, d_v_BNHT = call(_key_gradient_kernel, grid, *by_keys, products=4)
  return d_q_BNHT, d_k_BNHT, d_v_BNHT


_flash = differentiable(_forward, _backward)


def _coded(masks: Masks, sides: str) -> list[tuple[jax.Array, str]]:
  """Return the masks as rows of queries and columns of keys, with their codes.

  Args:
    masks: segment ids and dropout hashes.
    sides: the letters of the queries' and of the keys' positions: Q or T.
  """
  queries, keys = sides
  found = []
  if masks.segment_ids_BT is not None:
    ids_BT = masks.segment_ids_BT.astype(jnp.int32)
    found += [(ids_BT[:, None, :], f"B1{queries}"), (ids_BT[:, :, None], f"B{keys}1")]
  if masks.rows_BNT is not None and masks.columns_T is not None:
    found += [
      (masks.rows_BNT[:, :, None, :], f"BN1{queries}"),
      (masks.columns_T[:, None], f"{keys}1"),
    ]
  return found


def _split(grid: Grid, refs):
  """Split references into those before the masks, and the masks."""
  number = 2 * grid.packed + 2 * bool(grid.rate)
  return refs[: len(refs) - number], refs[len(refs) - number :]


def _part(grid: Grid, number):
  """Return the slice of a block of the whole length."""
  return pl.ds(pl.multiple_of(number * grid.block, grid.block), grid.block)


def _scores(grid: Grid, k_SH, q_HQ, diagonal: bool, mask_refs, queries, keys):
  """Return masked scores; only a diagonal block crosses the causal line."""
  scores_SQ = dot(k_SH, q_HQ) * grid.scale
  allowed = None
  if diagonal:
    key = jax.lax.broadcasted_iota(jnp.int32, scores_SQ.shape, 0)
    query = jax.lax.broadcasted_iota(jnp.int32, scores_SQ.shape, 1)
    allowed = key <= query
  if grid.packed:
    queries_1T, keys_T1 = mask_refs[:2]
    same = queries_1T[:, queries] == keys_T1[keys, :]
    allowed = same if allowed is None else allowed & same
  return scores_SQ if allowed is None else jnp.where(allowed, scores_SQ, MASKED)


def _drop(grid: Grid, x_SQ, mask_refs, queries, keys):
  """Zero the dropped elements and scale the others."""
  if not grid.rate:
    return x_SQ
  rows_1T, columns_T1 = mask_refs[-2:]
  kept = dropout.keep(rows_1T[:, queries], columns_T1[keys, :], grid.rate)
  return jnp.where(kept, x_SQ / (1 - grid.rate), 0.0)


_ALL = slice(None)


def _forward_kernel(grid, *refs):
  (q_HQ, k_TH, v_HT, *refs), (out_HQ, log_z_1Q) = refs[:-2], refs[-2:]
  _, mask_refs = _split(grid, refs)
  number, q = pl.program_id(grid.axis), q_HQ[...]

  def add(part, carry, diagonal=False):
    out, top_1Q, total_1Q = carry
    keys = _part(grid, part)
    scores_SQ = _scores(grid, k_TH[keys, :], q, diagonal, mask_refs, _ALL, keys)
    new_top_1Q = jnp.maximum(top_1Q, jnp.max(scores_SQ, axis=0, keepdims=True))
    weights_SQ = jnp.exp(scores_SQ - new_top_1Q)
    shrink_1Q = jnp.exp(top_1Q - new_top_1Q)
    total_1Q = total_1Q * shrink_1Q + jnp.sum(weights_SQ, axis=0, keepdims=True)
    dropped_SQ = _drop(grid, weights_SQ, mask_refs, _ALL, keys)
    out = out * shrink_1Q + dot(v_HT[:, keys], dropped_SQ.astype(q.dtype))
    return out, new_top_1Q, total_1Q

  # The diagonal block comes first. There each query attends at least to itself, so that
  # a block of other segments, which is masked whole, adds nothing afterwards.
  carry = (
    jnp.zeros(q.shape, jnp.float32),
    jnp.full((1, grid.block), MASKED, jnp.float32),
    jnp.zeros((1, grid.block), jnp.float32),
  )
  carry = add(number, carry, diagonal=True)
  out, top_1Q, total_1Q = jax.lax.fori_loop(0, number, add, carry)
  out_HQ[...] = (out / total_1Q).astype(out_HQ.dtype)
  log_z_1Q[...] = top_1Q + jnp.log(total_1Q)


def _query_gradient_kernel(grid, *refs):
  refs, d_q_HQ = refs[:-1], refs[-1]
  refs, mask_refs = _split(grid, refs)
  q_HQ, d_out_HQ, log_z_1Q, delta_1Q, k_TH, v_TH, k_HT = refs
  number, q, d_out = pl.program_id(grid.axis), q_HQ[...], d_out_HQ[...]
  log_z, delta = log_z_1Q[...], delta_1Q[...]

  def add(part, d_q, diagonal=False):
    keys = _part(grid, part)
    scores_SQ = _scores(grid, k_TH[keys, :], q, diagonal, mask_refs, _ALL, keys)
    d_weights_SQ = _drop(grid, dot(v_TH[keys, :], d_out), mask_refs, _ALL, keys)
    d_scores_SQ = jnp.exp(scores_SQ - log_z) * (d_weights_SQ - delta) * grid.scale
    return d_q + dot(k_HT[:, keys], d_scores_SQ.astype(q.dtype))

  d_q = jax.lax.fori_loop(0, number, add, jnp.zeros(q.shape, jnp.float32))
  d_q_HQ[...] = add(number, d_q, diagonal=True).astype(d_q_HQ.dtype)


def _key_gradient_kernel(grid, *refs):
  refs, (d_k_HS, d_v_HS) = refs[:-2], refs[-2:]
  refs, mask_refs = _split(grid, refs)
  q_HT, d_out_HT, log_z_1T, delta_1T, k_SH, v_SH = refs
  number, k, v = pl.program_id(grid.axis), k_SH[...], v_SH[...]

  def add(part, carry, diagonal=False):
    d_k, d_v = carry
    queries = _part(grid, part)
    q, d_out = q_HT[:, queries], d_out_HT[:, queries]
    scores_SQ = _scores(grid, k, q, diagonal, mask_refs, queries, _ALL)
    weights_SQ = jnp.exp(scores_SQ - log_z_1T[:, queries])
    dropped_SQ = _drop(grid, weights_SQ, mask_refs, queries, _ALL)
    d_v += dot(d_out, dropped_SQ.astype(q.dtype), "11")
    d_weights_SQ = _drop(grid, dot(v, d_out), mask_refs, queries, _ALL)
    d_scores_SQ = weights_SQ * (d_weights_SQ - delta_1T[:, queries]) * grid.scale
    d_k += dot(q, d_scores_SQ.astype(q.dtype), "11")
    return d_k, d_v

  zeros = jnp.zeros((k.shape[1], grid.block), jnp.float32)
  carry = add(number, (zeros, zeros), diagonal=True)
  d_k, d_v = jax.lax.fori_loop(number + 1, pl.num_programs(grid.axis), add, carry)
  d_k_HS[...], d_v_HS[...] = d_k.astype(d_k_HS.dtype), d_v.astype(d_v_HS.dtype)
