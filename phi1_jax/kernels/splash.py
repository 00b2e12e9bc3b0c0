"""JAX's splash attention for TPU v4 and later, which skips blocks above the diagonal.

B batch, T positions, N heads, H head_dim.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import PartitionSpec

from phi1_jax.kernels.grid import WHOLE, Masks, on_mesh

# Blocks of queries and keys; the longest that divides the length is used. MaxText
# trains with 512 by default.
_BLOCKS = (512, 256, 128)
BLOCK = _BLOCKS[-1]


def splash(
  q_BTNH: jax.Array,
  k_BTNH: jax.Array,
  v_BTNH: jax.Array,
  masks: Masks,
  dropout_rate: float,
  *,
  spec: PartitionSpec = WHOLE,
  interpret: bool = False,
) -> jax.Array:
  """Compute causal attention as `flash_tpu.flash` does, without dropout."""
  assert not dropout_rate  # refused by name
  ids_BT = masks.segment_ids_BT
  places = spec, spec, spec, None if ids_BT is None else PartitionSpec(spec[0])
  run = on_mesh(functools.partial(_on_device, interpret), places, spec)
  return run(q_BTNH, k_BTNH, v_BTNH, ids_BT)


def _on_device(interpret: bool, q_BTNH, k_BTNH, v_BTNH, segment_ids_BT) -> jax.Array:
  _, length, heads, head_dim = q_BTNH.shape
  kernel = _kernel(heads, length, interpret)
  q_BNTH, k_BNTH, v_BNTH = (x.swapaxes(1, 2) for x in (q_BTNH, k_BTNH, v_BTNH))
  q_BNTH = q_BNTH * jnp.asarray(head_dim**-0.5, q_BNTH.dtype)  # it does not scale
  ids = None
  if segment_ids_BT is not None:
    segment_ids_BT = segment_ids_BT.astype(jnp.int32)
    ids = splash_attention.SegmentIds(segment_ids_BT, segment_ids_BT)
  context_BNTH: Any = jax.vmap(kernel)(q_BNTH, k_BNTH, v_BNTH, ids)
  return context_BNTH.swapaxes(1, 2).astype(q_BTNH.dtype)


def _kernel(heads: int, length: int, interpret: bool):
  block = next(size for size in _BLOCKS if length % size == 0)
  mask = splash_attention.MultiHeadMask(
    [splash_attention.CausalMask((length, length)) for _ in range(heads)]
  )
  # Not cached: it holds arrays of the trace that it was made in.
  return splash_attention.make_splash_mha(
    mask,
    block_sizes=splash_attention.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      use_fused_bwd_kernel=True,
    ),
    # Policies that save the context save the output and the statistics. On a TPU the
    # output takes twice its size where heads are 64 wide.
    residual_checkpoint_name="context",
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
  )
