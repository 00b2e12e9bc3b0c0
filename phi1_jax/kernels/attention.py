"""Causal self-attention: one signature, several implementations.

`reference` is the definition; every other implementation is tested against it in
value and in its three gradients. An implementation says what it cannot do, and a
combination that it cannot do is refused: nothing falls back in silence.

  reference  every query with every key, at once; anywhere
  xla        blocks of queries with the keys up to them; anywhere
  splash     JAX's kernel for TPU v4 and later; no dropout on the weights
  flash      our kernel for TPU v4 and later, with dropout and less memory
  cudnn      NVIDIA's fused kernel; no segment ids, no dropout on the weights

Decoding with a cache is another operation: `kernels.decode`.

B batch, T query positions, S key positions, N heads, H head_dim.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from phi1_jax import InputError
from phi1_jax.kernels import dense, dropout, flash, splash

_LOG = logging.getLogger(__name__)

# Mosaic has no bfloat16 matrix products there ("Unsupported matmul RHS type").
_TOO_OLD_FOR_MOSAIC = ("TPU v2", "TPU v3")


@dataclasses.dataclass(frozen=True)
class Case:
  """What an implementation is asked to do.

  Attributes:
    platform: "cpu", "gpu" or "tpu".
    chip: `jax.Device.device_kind`.
    dtype: of the queries.
    length: T.
    head_dim: H.
    packed: there are segment ids.
    drops: there is dropout on the weights.
    even: every device gets as many sequences and heads as every other.
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
  """softmax(q·k / sqrt(H)) · v over the positions up to and including one's own.

  Args:
    q_BTNH: queries.
    k_BSNH: keys, S = T.
    v_BSNH: values.
    segment_ids_BT: positions attend within equal ids only; None is one segment.
    dropout_rate: dropout on the attention weights.
    dropout_key: its PRNG key; needed if the rate is positive.
    implementation: one of `NAMES`; "auto" takes what suits the chip of the mesh.
    spec: how BTNH lies on the mesh that is set; None is on one device.

  Returns:
    The context BTNH in the dtype of the queries; softmax is computed in float32.

  Raises:
    InputError: an unknown implementation, or one that cannot do what is asked.
  """
  if q_BTNH.shape[1] == 1 and not dropout_rate:
    return v_BSNH  # as initialisation asks, which may happen on another chip
  spec = spec or flash.WHOLE
  case = _case(q_BTNH, spec, segment_ids_BT is not None, dropout_rate > 0)
  if implementation == "auto":
    implementation = choose(case)
  if refusal := refuse(implementation, case):
    raise InputError(f"attention={implementation!r} {refusal}.")
  if dropout_rate and dropout_key is None:
    raise InputError(f"attention: dropout_rate={dropout_rate} needs a dropout_key.")
  entry = IMPLEMENTATIONS[implementation]
  if not entry.fused:
    return entry.run(q_BTNH, k_BSNH, v_BSNH, segment_ids_BT, dropout_rate, dropout_key)
  extras = flash.Extras(segment_ids_BT)
  if dropout_key is not None and case.drops:
    batch, length, heads, _ = q_BTNH.shape
    extras = flash.Extras(
      segment_ids_BT,
      dropout.row_hashes(dropout_key, (batch, heads, length)),
      dropout.column_hashes(dropout_key, length),
    )
  return entry.run(q_BTNH, k_BSNH, v_BSNH, extras, dropout_rate, spec=spec)


def _case(q_BTNH: jax.Array, spec: PartitionSpec, packed: bool, drops: bool) -> Case:
  mesh = jax.sharding.get_abstract_mesh()
  device = mesh.abstract_device or jax.devices()[0]

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
  """The first implementation that can do what is asked."""
  name = next(name for name in IMPLEMENTATIONS if refuse(name, case) is None)
  _LOG.info(
    "attention: %s (%s, %d positions, segment ids %s, dropout %s)",
    *(name, case.chip, case.length, case.packed, case.drops),
  )
  return name


def refuse(name: str, case: Case) -> str | None:
  """Why this implementation cannot do this, or None."""
  if name not in IMPLEMENTATIONS:
    return f"is unknown, expected one of {', '.join(NAMES)}"
  entry = IMPLEMENTATIONS[name]
  if entry.platform and case.platform != entry.platform:
    return f"runs on {entry.platform}, not on {case.platform}"
  if entry.fused and not case.even:
    return "needs a batch and heads that the mesh divides"
  return entry.refuse(case)


_NO_DROPOUT = "has no dropout; set Model.attention_dropout_rate to 0"


def _refuse_cudnn(case: Case) -> str | None:
  if case.packed:
    return "does not honour segment ids; use attention='xla'"
  if case.drops:
    return _NO_DROPOUT
  if case.dtype not in ("bfloat16", "float16"):
    return f"computes in bfloat16 or float16, not in {case.dtype}"
  if case.head_dim % 8 or case.head_dim > 128:
    return f"needs a head_dim of at most 128, a multiple of 8, not {case.head_dim}"
  return None


def _refuse_splash(case: Case) -> str | None:
  return _refuse_mosaic(splash.BLOCK, case) or (_NO_DROPOUT if case.drops else None)


def _refuse_flash(case: Case) -> str | None:
  if case.length > flash.MAX_LENGTH:
    return f"holds at most {flash.MAX_LENGTH} positions in VMEM, not {case.length}"
  return _refuse_mosaic(flash.BLOCK, case)


def _refuse_mosaic(block: int, case: Case) -> str | None:
  if case.chip in _TOO_OLD_FOR_MOSAIC:
    return f"does not compile for {case.chip}, which is older than v4; use 'xla'"
  if case.length % block:
    return f"needs a length that {block} divides, not {case.length}"
  return None


def _run_splash(q_BTNH, k_BTNH, v_BTNH, extras, dropout_rate, *, spec) -> jax.Array:
  assert not dropout_rate  # refused by name
  places: tuple = (spec, spec, spec, None)
  if extras.segment_ids_BT is not None:
    places = (spec, spec, spec, PartitionSpec(spec[0]))
  run = splash.splash
  if not jax.sharding.get_abstract_mesh().empty:
    # The compiler cannot look into a kernel to split it over devices.
    run = jax.shard_map(run, in_specs=places, out_specs=spec, check_vma=False)
  return run(q_BTNH, k_BTNH, v_BTNH, extras.segment_ids_BT)


def _run_cudnn(q_BTNH, k_BTNH, v_BTNH, extras, dropout_rate, *, spec) -> jax.Array:
  del spec  # it tells the compiler itself how it may be split
  assert extras.segment_ids_BT is None  # refused by name
  assert not dropout_rate
  return jax.nn.dot_product_attention(
    q_BTNH, k_BTNH, v_BTNH, is_causal=True, implementation="cudnn"
  )


@dataclasses.dataclass(frozen=True)
class Implementation:
  """What runs, and what it cannot do.

  Attributes:
    run: (q, k, v, segment ids, dropout rate, dropout key) -> BTNH; fused: (q, k, v,
      `flash.Extras`, dropout rate, spec=).
    refuse: why it cannot do a case, or None.
    platform: the only one it runs on; None is all.
    fused: a kernel of its own, which the compiler does not look into.
  """

  run: Callable[..., jax.Array]
  refuse: Callable[[Case], str | None] = lambda case: None
  platform: str | None = None
  fused: bool = False


# In the order in which "auto" prefers them.
IMPLEMENTATIONS = {
  "splash": Implementation(_run_splash, _refuse_splash, "tpu", fused=True),
  "flash": Implementation(flash.flash, _refuse_flash, "tpu", fused=True),
  "cudnn": Implementation(_run_cudnn, _refuse_cudnn, "gpu", fused=True),
  "xla": Implementation(dense.blocked),
  "reference": Implementation(dense.reference),
}
NAMES = ("auto", *IMPLEMENTATIONS)
