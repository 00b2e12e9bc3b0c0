"""Flash attention for TPUs, with dropout on the weights and segment ids.

Splash attention, which comes with JAX, has no dropout on the weights, which the paper
trained with; and where a head is 64 wide, as phi-1's are, its arrays fill half of each
128-lane register and of each tile in memory. Here everything lies transposed, with
positions in the lanes: nothing is padded, and a query's statistics are plain rows.

One program works on one block of queries (or of keys) of one head. All keys and values
of that head are in its VMEM: 768 KiB for 2048 positions of 64, in bfloat16.

  forward   scores_SQ = k_SH · q_HQ; online softmax down the columns;
            out_HQ += v_HS · p_SQ
  backward  p again from the saved log-sum-exp; delta_Q = sum over H of out · d_out;
            d_scores_SQ = p · (keep · (v_SH · d_out_HQ) - delta_Q)

B batch, N heads, H head_dim, T positions; Q a block of queries, S a block of keys.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from phi1_jax.kernels import dropout

# The longest that divides the length is taken. Not tuned: that waits for hardware.
_BLOCKS = (512, 256, 128)
BLOCK = _BLOCKS[-1]

# Keys and values of a head have to fit into VMEM beside the rest, segment ids and
# dropout included: 8192 do on v5e and do not on v4.
MAX_LENGTH = 4096

# How BTNH lies on one device.
WHOLE = PartitionSpec(None, None, None, None)

_MASKED = -1e30


class Extras(NamedTuple):
  """What may narrow the weights down; None where it does not.

  Attributes:
    segment_ids_BT: int32.
    rows_BNT: dropout hashes of the queries, uint32 (see `dropout.row_hashes`).
    columns_T: dropout hashes of the keys.
  """

  segment_ids_BT: jax.Array | None = None
  rows_BNT: jax.Array | None = None
  columns_T: jax.Array | None = None


def flash(
  q_BTNH: jax.Array,
  k_BTNH: jax.Array,
  v_BTNH: jax.Array,
  extras: Extras,
  dropout_rate: float,
  *,
  spec: PartitionSpec = WHOLE,
  interpret: bool = False,
) -> jax.Array:
  """Causal attention.

  Args:
    q_BTNH: queries; T a multiple of `BLOCK`, at most `MAX_LENGTH`.
    k_BTNH: keys.
    v_BTNH: values.
    extras: segment ids and dropout hashes.
    dropout_rate: in [0, 1); 0 without hashes.
    spec: how BTNH lies on the mesh that is set: batch and heads may be split.
    interpret: emulate the kernels, for machines without a TPU.

  Returns:
    BTNH in the dtype of the queries.
  """
  q_BNHT, k_BNHT, v_BNHT = (x.transpose(0, 2, 3, 1) for x in (q_BTNH, k_BTNH, v_BTNH))
  run = _Run(dropout_rate, PartitionSpec(spec[0], spec[2]), interpret)
  out_BNHT: Any = _flash(run, q_BNHT, k_BNHT, v_BNHT, extras)
  return out_BNHT.transpose(0, 3, 1, 2)


class _Run(NamedTuple):
  """What does not change from call to call.

  Attributes:
    rate: of dropout.
    spec: how batch and heads lie on the mesh.
    interpret: emulate the kernels.
  """

  rate: float
  spec: PartitionSpec
  interpret: bool


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(run, q_BNHT, k_BNHT, v_BNHT, extras):
  return _forward(run, q_BNHT, k_BNHT, v_BNHT, extras)[0]


def _forward(run, q_BNHT, k_BNHT, v_BNHT, extras):
  """The output, and what the backward pass needs."""
  out_BNHT, log_z_BN1T = _call(
    _forward_kernel,
    run,
    [(q_BNHT, "HQ"), (k_BNHT.swapaxes(2, 3), "TH"), (v_BNHT, "HT")],
    extras,
    "QT",
    [(q_BNHT.shape, q_BNHT.dtype, "HQ"), (_row(q_BNHT), jnp.float32, "1Q")],
  )
  # Saved by the policies that save the context, so that this never runs twice.
  out_BNHT = checkpoint_name(out_BNHT, "context")
  log_z_BN1T = checkpoint_name(log_z_BN1T, "context")
  return out_BNHT, (q_BNHT, k_BNHT, v_BNHT, extras, out_BNHT, log_z_BN1T)


def _backward(run, residuals, d_out_BNHT):
  q_BNHT, k_BNHT, v_BNHT, extras, out_BNHT, log_z_BN1T = residuals
  product_BNHT = out_BNHT.astype(jnp.float32) * d_out_BNHT.astype(jnp.float32)
  delta_BN1T = jnp.sum(product_BNHT, axis=2, keepdims=True)
  k_BNTH, v_BNTH = k_BNHT.swapaxes(2, 3), v_BNHT.swapaxes(2, 3)
  of_queries = q_BNHT, d_out_BNHT, log_z_BN1T, delta_BN1T
  (d_q_BNHT,) = _call(
    _query_gradient_kernel,
    run,
    [
      *zip(of_queries, ("HQ", "HQ", "1Q", "1Q"), strict=True),
      *((k_BNTH, "TH"), (k_BNHT, "HT"), (v_BNTH, "TH")),
    ],
    extras,
    "QT",
    [(q_BNHT.shape, q_BNHT.dtype, "HQ")],
  )
  d_k_BNHT, d_v_BNHT = _call(
    _key_gradient_kernel,
    run,
    [
      *zip(of_queries, ("HT", "HT", "1T", "1T"), strict=True),
      *((k_BNTH, "QH"), (v_BNTH, "QH")),
    ],
    extras,
    "TQ",
    [(k_BNHT.shape, k_BNHT.dtype, "HQ"), (v_BNHT.shape, v_BNHT.dtype, "HQ")],
  )
  return d_q_BNHT, d_k_BNHT, d_v_BNHT, None


_flash.defvjp(_forward, _backward)


def _call(kernel, run, operands, extras, sides, outputs):
  """One program for each batch row, head and block of the length.

  Args:
    kernel: (`_Work`, a reference per operand, a reference per output).
    run: `_Run`.
    operands: (array, code); the code says what a program gets of the last two dims: H
      and 1 are whole, T is the whole length, Q the program's block of it.
    extras: `Extras`.
    sides: the code for the queries' and for the keys' side of the extras.
    outputs: (shape, dtype, code).
  """
  queries, keys = sides
  operands, packed = list(operands), extras.segment_ids_BT is not None
  if packed:
    ids_BT = extras.segment_ids_BT.astype(jnp.int32)
    operands += [(ids_BT[:, None, :], f"1{queries}"), (ids_BT[:, :, None], f"{keys}1")]
  if run.rate:
    operands += [
      (extras.rows_BNT[:, :, None, :], f"1{queries}"),
      (extras.columns_T[:, None], f"{keys}1"),
    ]
  arrays = [array for array, _ in operands]
  codes = [code for _, code in operands], [code for *_, code in outputs]
  dtypes = [(shape[2:], dtype) for shape, dtype, _ in outputs]
  on_device = functools.partial(_on_device, kernel, run, packed, codes, dtypes)
  if jax.sharding.get_abstract_mesh().empty:
    return on_device(*arrays)
  # The compiler cannot look into a kernel to split it over devices.
  places = tuple(PartitionSpec(*run.spec[: array.ndim - 2]) for array in arrays)
  return jax.shard_map(
    on_device, in_specs=places, out_specs=(run.spec,) * len(outputs), check_vma=False
  )(*arrays)


def _on_device(kernel, run, packed, codes, outputs, *arrays):
  """What `_call` does, on the batch rows and heads of one device.

  Args:
    kernel: as for `_call`.
    run: as for `_call`.
    packed: there are segment ids.
    codes: those of the operands, and those of the outputs.
    outputs: (last two dims, dtype).
    *arrays: the operands.
  """
  batch, heads, head_dim, length = arrays[0].shape
  block = next(size for size in _BLOCKS if length % size == 0)
  blocks = length // block

  def spec(num_dims: int, code: str) -> pl.BlockSpec:
    sizes = {"H": head_dim, "1": 1, "T": length, "Q": block}
    leading = num_dims - len(code)
    return pl.BlockSpec(
      (None,) * leading + tuple(sizes[letter] for letter in code),
      lambda *place: (
        place[:leading] + tuple(place[2] if letter == "Q" else 0 for letter in code)
      ),
    )

  results = [
    jax.ShapeDtypeStruct((batch, heads, *dims), dtype) for dims, dtype in outputs
  ]
  visited = batch * heads * block**2 * blocks * (blocks + 1) // 2  # scores computed
  outputs = pl.pallas_call(
    functools.partial(kernel, _Work(block, head_dim**-0.5, run.rate, packed)),
    grid=(batch, heads, blocks),
    in_specs=[spec(x.ndim, code) for x, code in zip(arrays, codes[0], strict=True)],
    out_specs=[spec(x.ndim, code) for x, code in zip(results, codes[1], strict=True)],
    out_shape=results,
    cost_estimate=pl.CostEstimate(
      flops=2 * _PRODUCTS[kernel] * visited * head_dim,
      transcendentals=visited,
      bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*arrays, *results)),
    ),
    interpret=run.interpret,
    name=kernel.__name__.strip("_"),
  )(*arrays)
  return tuple(outputs)


def _row(q_BNHT: jax.Array) -> tuple[int, ...]:
  """The shape of one number per query."""
  batch, heads, _, length = q_BNHT.shape
  return batch, heads, 1, length


class _Work(NamedTuple):
  """What all kernels share: sizes, and how scores and weights are narrowed down."""

  block: int
  scale: float
  rate: float
  packed: bool

  def extras(self, refs):
    """Splits references into those of the operands and those of the extras."""
    number = 2 * self.packed + 2 * bool(self.rate)
    return refs[: len(refs) - number], refs[len(refs) - number :]

  def part(self, number):
    """The place of a block in the whole length."""
    return pl.ds(pl.multiple_of(number * self.block, self.block), self.block)

  def scores(self, k_SH, q_HQ, diagonal: bool, extra_refs, queries, keys):
    """Scaled and masked, float32; only a diagonal block crosses the causal line."""
    scores_SQ = _dot(k_SH, q_HQ) * self.scale
    allowed = None
    if diagonal:
      key = jax.lax.broadcasted_iota(jnp.int32, scores_SQ.shape, 0)
      query = jax.lax.broadcasted_iota(jnp.int32, scores_SQ.shape, 1)
      allowed = key <= query
    if self.packed:
      queries_1T, keys_T1 = extra_refs[:2]
      same = queries_1T[:, queries] == keys_T1[keys, :]
      allowed = same if allowed is None else allowed & same
    return scores_SQ if allowed is None else jnp.where(allowed, scores_SQ, _MASKED)

  def drop(self, x_SQ, extra_refs, queries, keys):
    """Zeroes what dropout zeroes, and scales the rest."""
    if not self.rate:
      return x_SQ
    rows_1T, columns_T1 = extra_refs[-2:]
    kept = dropout.keep(rows_1T[:, queries], columns_T1[keys, :], self.rate)
    return jnp.where(kept, x_SQ / (1 - self.rate), 0.0)


_ALL = slice(None)


def _forward_kernel(work, *refs):
  (q_HQ, k_TH, v_HT, *refs), (out_HQ, log_z_1Q) = refs[:-2], refs[-2:]
  _, extra_refs = work.extras(refs)
  number, q = pl.program_id(2), q_HQ[...]

  def add(part, carry, diagonal=False):
    out, top_1Q, total_1Q = carry
    keys = work.part(part)
    scores_SQ = work.scores(k_TH[keys, :], q, diagonal, extra_refs, _ALL, keys)
    new_top_1Q = jnp.maximum(top_1Q, jnp.max(scores_SQ, axis=0, keepdims=True))
    weights_SQ = jnp.exp(scores_SQ - new_top_1Q)
    shrink_1Q = jnp.exp(top_1Q - new_top_1Q)
    total_1Q = total_1Q * shrink_1Q + jnp.sum(weights_SQ, axis=0, keepdims=True)
    dropped_SQ = work.drop(weights_SQ, extra_refs, _ALL, keys)
    out = out * shrink_1Q + _dot(v_HT[:, keys], dropped_SQ.astype(q.dtype))
    return out, new_top_1Q, total_1Q

  # The block on the diagonal first: there every query has at least itself to look at,
  # so that a block of other segments, all masked, adds nothing afterwards.
  carry = (
    jnp.zeros(q.shape, jnp.float32),
    jnp.full((1, work.block), _MASKED, jnp.float32),
    jnp.zeros((1, work.block), jnp.float32),
  )
  carry = add(number, carry, diagonal=True)
  out, top_1Q, total_1Q = jax.lax.fori_loop(0, number, add, carry)
  out_HQ[...] = (out / total_1Q).astype(out_HQ.dtype)
  log_z_1Q[...] = top_1Q + jnp.log(total_1Q)


def _query_gradient_kernel(work, *refs):
  refs, d_q_HQ = refs[:-1], refs[-1]
  refs, extra_refs = work.extras(refs)
  q_HQ, d_out_HQ, log_z_1Q, delta_1Q, k_TH, k_HT, v_TH = refs
  number, q, d_out = pl.program_id(2), q_HQ[...], d_out_HQ[...]
  log_z, delta = log_z_1Q[...], delta_1Q[...]

  def add(part, d_q, diagonal=False):
    keys = work.part(part)
    scores_SQ = work.scores(k_TH[keys, :], q, diagonal, extra_refs, _ALL, keys)
    d_weights_SQ = work.drop(_dot(v_TH[keys, :], d_out), extra_refs, _ALL, keys)
    d_scores_SQ = jnp.exp(scores_SQ - log_z) * (d_weights_SQ - delta) * work.scale
    return d_q + _dot(k_HT[:, keys], d_scores_SQ.astype(q.dtype))

  d_q = jax.lax.fori_loop(0, number, add, jnp.zeros(q.shape, jnp.float32))
  d_q_HQ[...] = add(number, d_q, diagonal=True).astype(d_q_HQ.dtype)


def _key_gradient_kernel(work, *refs):
  refs, (d_k_HS, d_v_HS) = refs[:-2], refs[-2:]
  refs, extra_refs = work.extras(refs)
  q_HT, d_out_HT, log_z_1T, delta_1T, k_SH, v_SH = refs
  number, k, v = pl.program_id(2), k_SH[...], v_SH[...]

  def add(part, carry, diagonal=False):
    d_k, d_v = carry
    queries = work.part(part)
    q, d_out = q_HT[:, queries], d_out_HT[:, queries]
    scores_SQ = work.scores(k, q, diagonal, extra_refs, queries, _ALL)
    weights_SQ = jnp.exp(scores_SQ - log_z_1T[:, queries])
    dropped_SQ = work.drop(weights_SQ, extra_refs, queries, _ALL)
    d_v += _dot(d_out, dropped_SQ.astype(q.dtype), transposed=True)
    d_weights_SQ = work.drop(_dot(v, d_out), extra_refs, queries, _ALL)
    d_scores_SQ = weights_SQ * (d_weights_SQ - delta_1T[:, queries]) * work.scale
    d_k += _dot(q, d_scores_SQ.astype(q.dtype), transposed=True)
    return d_k, d_v

  zeros = jnp.zeros((k.shape[1], work.block), jnp.float32)
  carry = add(number, (zeros, zeros), diagonal=True)
  d_k, d_v = jax.lax.fori_loop(number + 1, pl.num_programs(2), add, carry)
  d_k_HS[...], d_v_HS[...] = d_k.astype(d_k_HS.dtype), d_v.astype(d_v_HS.dtype)


def _dot(left, right, *, transposed: bool = False):
  """left · right, or left · right transposed, summed in float32."""
  contracted = ((1,), (1 if transposed else 0,))
  return jax.lax.dot_general(
    left, right, (contracted, ((), ())), preferred_element_type=jnp.float32
  )


# Matrix products of a block of scores in each kernel.
_PRODUCTS = {_forward_kernel: 2, _query_gradient_kernel: 3, _key_gradient_kernel: 4}
