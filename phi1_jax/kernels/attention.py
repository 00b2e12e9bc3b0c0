"""Causal self-attention: one signature, several implementations.

`reference` defines the result. Tests compare every other implementation with it, in
value and in the three gradients. A combination that an implementation cannot compute is
refused; nothing falls back silently.

  reference  every query with every key at once; anywhere
  xla        blocks of queries with the keys up to them; anywhere
  flash      our kernels with dropout and segment ids: TPU v4 and later, and NVIDIA GPUs
             of compute capability 8.0 (A100) and later
  cudnn      NVIDIA's kernel for the same GPUs; no segment ids, no dropout

"auto" takes the first of cudnn, flash and xla that can compute the case.
`kernels.decode` attends to a cache.

B batch, T query positions, S key positions, N heads, H head_dim.
"""

import dataclasses
import functools
import logging
import math
import re
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
from jax.sharding import PartitionSpec

from phi1_jax import InputError
from phi1_jax.kernels import dense, dropout, flash_gpu, flash_tpu, grid

_LOG = logging.getLogger(__name__)

# What `Model.attention` may be.
Name = Literal["auto", "cudnn", "flash", "xla", "reference"]
NAMES = get_args(Name)

# Mosaic has no bfloat16 matrix products there ("Unsupported matmul RHS type").
_TOO_OLD_FOR_MOSAIC = ("TPU v2", "TPU v3")

# cuDNN's fused attention and Triton need compute capability 8.0. The mesh only says
# `device_kind`: these are the names of older NVIDIA GPUs, and those of AMD.
_TOO_OLD_GPU = re.compile(r"Tesla|Quadro|TITAN|GTX|RTX 20\d\d(?! Ada)|NVIDIA T\d|AMD")


@dataclasses.dataclass(frozen=True)
class Case:
  """Properties of a call that decide which implementations can compute it.

  Attributes:
    platform: "cpu", "gpu" or "tpu".
    chip: `jax.Device.device_kind`.
    dtype: dtype of the queries.
    length: T.
    head_dim: H.
    packed: whether there are segment ids.
    drops: whether there is dropout on the weights.
    even: whether the mesh divides the batch and the heads.
  """

  platform: str
  chip: str
  dtype: str
  length: int
  head_dim: int
  packed: bool
  drops: bool
  even: bool = True


def attention(
  q_BTNH: jax.Array,
  k_BSNH: jax.Array,
  v_BSNH: jax.Array,
  *,
  segment_ids_BT: jax.Array | None = None,
  dropout_rate: float = 0.0,
  dropout_key: jax.Array | None = None,
  implementation: str = "auto",
  spec: PartitionSpec | None = None,
) -> jax.Array:
  """Return softmax(q·k / sqrt(H)) · v over each position and those before it.

  Args:
    q_BTNH: queries.
    k_BSNH: keys, S = T.
    v_BSNH: values.
    segment_ids_BT: positions attend within equal ids only; None is one segment.
    dropout_rate: dropout on the attention weights.
    dropout_key: its PRNG key; needed if the rate is positive.
    implementation: one of `NAMES`; "auto" chooses by the chip of the mesh.
    spec: how BTNH lies on the mesh that is set; None for one device.

  Returns:
    The context BTNH in the dtype of the queries; softmax is computed in float32.

  Raises:
    InputError: an unknown implementation, or one that cannot compute this case.
  """
  if q_BTNH.shape[1] == 1 and not dropout_rate:
    return v_BSNH  # initialisation calls this, perhaps on another chip
  spec = spec or grid.WHOLE
  case = _case(q_BTNH, spec, segment_ids_BT is not None, dropout_rate > 0)
  if implementation == "auto":
    implementation = choose(case)
  if refusal := refuse(implementation, case):
    raise InputError(f"attention={implementation!r} {refusal}.")
  if dropout_rate and dropout_key is None:
    raise InputError(f"attention: dropout_rate={dropout_rate} needs a dropout_key.")
  if plain := _PLAIN.get(implementation):
    return plain(q_BTNH, k_BSNH, v_BSNH, segment_ids_BT, dropout_rate, dropout_key)
  masks = grid.Masks(segment_ids_BT)
  if dropout_key is not None and case.drops:
    batch, length, heads, _ = q_BTNH.shape
    masks = grid.Masks(
      segment_ids_BT,
      dropout.row_hashes(dropout_key, (batch, heads, length)),
      dropout.column_hashes(dropout_key, length),
    )
  kernel = _KERNELS[implementation][case.platform]
  return kernel(q_BTNH, k_BSNH, v_BSNH, masks, dropout_rate, spec=spec)


def save_cudnn(primitive: Any, *_, **__) -> bool:
  """Save the results of cuDNN's forward kernel: a policy for `jax.checkpoint`.

  The other kernels name their results "context".
  """
  return primitive.name == "dot_product_attention_fwd_wrapper"


def _case(q_BTNH: jax.Array, spec: PartitionSpec, packed: bool, drops: bool) -> Case:
  mesh, device = jax.sharding.get_abstract_mesh(), grid.device()

  def parts(axes) -> int:
    axes = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape[axis] for axis in axes)

  return Case(
    platform=device.platform,
    chip=device.device_kind,
    dtype=q_BTNH.dtype.name,
    length=q_BTNH.shape[1],
    head_dim=q_BTNH.shape[3],
    packed=packed,
    drops=drops,
    even=all(
      size % parts(axes) == 0 for size, axes in zip(q_BTNH.shape, spec, strict=False)
    ),
  )


@functools.cache  # so that each choice is logged once
def choose(case: Case) -> str:
  """Return the first implementation that can compute the case."""
  name = next(name for name in _PREFERRED if refuse(name, case) is None)
  _LOG.info(
    "attention: %s (%s, %d positions, segment ids %s, dropout %s)",
    *(name, case.chip, case.length, case.packed, case.drops),
  )
  return name


def refuse(name: str, case: Case) -> str | None:
  """Return why this implementation cannot compute the case, or None."""
  if name not in NAMES[1:]:
    return f"is unknown, expected one of {', '.join(NAMES)}"
  if name in _PLAIN:
    return None
  if case.platform not in _KERNELS[name]:
    return f"runs on {' and '.join(_KERNELS[name])}, not on {case.platform}"
  if not case.even:
    return "needs a batch and heads that the mesh divides"
  if name == "cudnn" and case.packed:
    return "does not honour segment ids; use attention='flash' or 'xla'"
  if name == "cudnn" and case.drops:
    return "has no dropout; set Model.attention_dropout_rate to 0"
  if name == "cudnn" and (case.head_dim % 8 or case.head_dim > 128):
    return f"needs a head_dim of at most 128, a multiple of 8, not {case.head_dim}"
  if case.platform == "gpu":
    refusal, block = _refuse_gpu(name, case), flash_gpu.BLOCK
  else:
    refusal, block = _refuse_tpu(case), flash_tpu.BLOCK
  if refusal:
    return refusal
  if name == "flash" and case.length % block:
    return f"needs a length that {block} divides, not {case.length}"
  return None


def _refuse_gpu(name: str, case: Case) -> str | None:
  if name == "flash" and case.head_dim not in flash_gpu.HEAD_DIMS:
    sizes = ", ".join(map(str, flash_gpu.HEAD_DIMS))
    return f"needs a head_dim among {sizes} on a GPU, not {case.head_dim}"
  if _TOO_OLD_GPU.search(case.chip):
    return f"needs an NVIDIA GPU of compute capability 8.0, not {case.chip}; use 'xla'"
  if case.dtype not in ("bfloat16", "float16"):
    return f"computes in bfloat16 or float16, not in {case.dtype}"
  return None


def _refuse_tpu(case: Case) -> str | None:
  if case.length > flash_tpu.MAX_LENGTH:
    return f"holds at most {flash_tpu.MAX_LENGTH} positions in VMEM, not {case.length}"
  if case.chip in _TOO_OLD_FOR_MOSAIC:
    return f"does not compile for {case.chip}, which is older than v4; use 'xla'"
  return None


def _run_cudnn(q_BTNH, k_BTNH, v_BTNH, masks, dropout_rate, *, spec) -> jax.Array:
  del spec  # JAX tells the compiler how this call may be split
  assert masks.segment_ids_BT is None  # refused by name
  assert not dropout_rate
  return jax.nn.dot_product_attention(
    q_BTNH, k_BTNH, v_BTNH, is_causal=True, implementation="cudnn"
  )


# By platform: (q, k, v, `grid.Masks`, dropout rate, spec=) -> BTNH. The compiler does
# not look into them.
_KERNELS: dict[str, dict[str, Callable[..., jax.Array]]] = {
  "cudnn": {"gpu": _run_cudnn},
  "flash": {"tpu": flash_tpu.flash, "gpu": flash_gpu.flash},
}
# (q, k, v, segment ids, dropout rate, dropout key) -> BTNH, on any platform.
_PLAIN: dict[str, Callable[..., jax.Array]] = {
  "xla": dense.blocked,
  "reference": dense.reference,
}
_PREFERRED = (*_KERNELS, "xla")
