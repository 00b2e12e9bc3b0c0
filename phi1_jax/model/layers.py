"""The layers of a phi block, with logical names on parameters and activations.

B batch, T length, D embed, N heads, H head_dim, F mlp, V vocabulary.

Logical names: "vocab", "embed", "heads", "head_dim", "mlp", "norm" on parameters
("layers" is added where blocks are stacked); "batch", "length", "embed", "heads",
"mlp" on activations. `parallel` maps them to mesh axes.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import (
  logical_to_mesh_axes,
  with_logical_constraint,
  with_logical_partitioning,
)
from jax.ad_checkpoint import checkpoint_name

from phi1_jax.kernels import attention, decode, dropout, grid
from phi1_jax.model import rotary
from phi1_jax.model.config import ModelConfig


def _parameter(
  module: nn.Module,
  name: str,
  initializer: nn.initializers.Initializer,
  shape: tuple[int, ...],
  names: tuple[str | None, ...],
  dtype: str,
) -> jax.Array:
  """Return a parameter of this module, with logical names for its dims."""
  boxed = with_logical_partitioning(initializer, names)
  value: Any = module.param(name, boxed, shape, jnp.dtype(dtype))
  return value


def _saved_as(y_BTNH: jax.Array, name: str) -> jax.Array:
  """Name a value for the rematerialisation policies that save it.

  It is saved as one row per position: on a TPU, a last dim of 64 takes as much memory
  as one of 128.
  """
  flat_BTE = y_BTNH.reshape(*y_BTNH.shape[:2], -1)
  return checkpoint_name(flat_BTE, name).reshape(y_BTNH.shape)


class LayerCache(NamedTuple):
  """A layer's rotated keys and values BNSH, and how many positions each row has."""

  k_BNSH: jax.Array
  v_BNSH: jax.Array
  starts_B: jax.Array


class LayerNorm(nn.Module):
  """Normalisation over the last dim, in float32, with scale and bias."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    """Return BTD in the dtype of the computation."""
    config = self.config
    shape, dtype = x_BTD.shape[-1:], config.param_dtype
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale_D = _parameter(self, "scale", ones, shape, ("norm",), dtype)
    bias_D = _parameter(self, "bias", zeros, shape, ("norm",), dtype)
    x_BTD = x_BTD.astype(jnp.float32)
    centred_BTD = x_BTD - jnp.mean(x_BTD, axis=-1, keepdims=True)
    variance_BT1 = jnp.mean(jnp.square(centred_BTD), axis=-1, keepdims=True)
    normal_BTD = centred_BTD * jax.lax.rsqrt(variance_BT1 + config.layer_norm_epsilon)
    return (normal_BTD * scale_D + bias_D).astype(config.dtype)


class Embedding(nn.Module):
  """Token ids to vectors."""

  config: ModelConfig

  def setup(self):
    """Create the table."""
    config = self.config
    self.embedding = _parameter(
      self,
      "embedding",
      nn.initializers.normal(config.initializer_range),
      (config.vocabulary_size, config.embed_dim),
      ("vocab", "embed"),
      config.param_dtype,
    )

  def __call__(self, tokens_BT: jax.Array) -> jax.Array:
    """Return BTD in the dtype of the computation."""
    x_BTD = _lookup(self.config, self.embedding, tokens_BT)
    return with_logical_constraint(x_BTD, ("batch", "length", "embed"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(config: ModelConfig, embedding_VD, tokens_BT) -> jax.Array:
  """Return the rows of the tokens, BTD; the gradient is summed in float32.

  In bfloat16, a token that occurs often would lose most of its small gradients.
  """
  # Gathered over fsdp before the lookup; else the compiler replicates the result.
  table_VD = with_logical_constraint(embedding_VD.astype(config.dtype), ("vocab", None))
  return jnp.take(table_VD, tokens_BT, axis=0)


def _lookup_forward(config: ModelConfig, embedding_VD, tokens_BT):
  return _lookup(config, embedding_VD, tokens_BT), tokens_BT


def _lookup_backward(config: ModelConfig, tokens_BT, d_x_BTD):
  zeros_VD = jnp.zeros((config.vocabulary_size, config.embed_dim), jnp.float32)
  d_table_VD = zeros_VD.at[tokens_BT].add(d_x_BTD.astype(jnp.float32))
  # Summed where the parameter is; else the whole table is all-reduced over fsdp.
  d_table_VD = with_logical_constraint(d_table_VD, ("vocab", "embed"))
  return d_table_VD.astype(config.param_dtype), None


_lookup.defvjp(_lookup_forward, _lookup_backward)


class Projection(nn.Module):
  """x · kernel + bias.

  Attributes:
    config: the model.
    inputs: sizes of the trailing dims of x that are contracted.
    outputs: sizes of the dims that take their place.
    names: logical names of inputs then outputs.
    output_dtype: dtype of the result; None is the dtype of the computation.
  """

  config: ModelConfig
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  names: tuple[str | None, ...]
  output_dtype: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, kernel: jax.Array | None = None) -> jax.Array:
    """Return [..., *outputs]; a given kernel takes the place of a parameter."""
    config, num_inputs = self.config, len(self.inputs)
    if kernel is None:
      kernel = _parameter(
        self,
        "kernel",
        nn.initializers.normal(config.initializer_range),
        (*self.inputs, *self.outputs),
        self.names,
        config.param_dtype,
      )
    bias = _parameter(
      self,
      "bias",
      nn.initializers.zeros,
      self.outputs,
      self.names[num_inputs:],
      config.param_dtype,
    )
    dtype = self.output_dtype or config.dtype
    product: Any = _product(
      num_inputs, dtype, x.astype(config.dtype), kernel.astype(config.dtype)
    )
    return product + bias.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(num_inputs: int, dtype: str, x, kernel) -> jax.Array:
  """Return x · kernel, summed over the first `num_inputs` dims of the kernel.

  The gradient of the kernel is a product in the layout that XLA for CPUs computes
  fast. That of `jax.lax.dot_general` takes half as long again there. When decoding, at
  a length of one, so is the product itself: its left factor is the kernel.
  """
  lead = x.ndim - num_inputs
  of_x, of_kernel = tuple(range(lead, x.ndim)), tuple(range(num_inputs))
  summed = jnp.dtype(dtype)
  if x.shape[lead - 1] > 1 or grid.device().platform != "cpu":
    dims = (of_x, of_kernel), ((), ())
    return jax.lax.dot_general(x, kernel, dims, preferred_element_type=summed)
  dims = (of_kernel, of_x), ((), ())
  product = jax.lax.dot_general(kernel, x, dims, preferred_element_type=summed)
  # The barrier keeps XLA from exchanging the factors again.
  product, outputs = jax.lax.optimization_barrier(product), kernel.ndim - num_inputs
  return product.transpose(*range(outputs, product.ndim), *range(outputs))


def _product_forward(num_inputs, dtype, x, kernel):
  return _product(num_inputs, dtype, x, kernel), (x, kernel)


def _product_backward(num_inputs, dtype, residuals, d_out):
  x, kernel = residuals
  lead = tuple(range(x.ndim - num_inputs))
  outputs = tuple(range(len(lead), d_out.ndim)), tuple(range(num_inputs, kernel.ndim))
  d_x = jax.lax.dot_general(
    d_out, kernel, (outputs, ((), ())), preferred_element_type=x.dtype
  )
  dims = ((lead, lead), ((), ()))
  # Its wider side is not to be transposed. The barrier keeps XLA from doing so.
  inputs = math.prod(kernel.shape[:num_inputs])
  narrowing = grid.device().platform == "cpu" and inputs**2 > kernel.size
  factors = (d_out, x) if narrowing else (x, d_out)
  d_kernel = jax.lax.dot_general(*factors, dims, preferred_element_type=kernel.dtype)
  if narrowing:
    d_kernel = jax.lax.optimization_barrier(d_kernel)
    split = kernel.ndim - num_inputs
    d_kernel = d_kernel.transpose(*range(split, kernel.ndim), *range(split))
  return d_x, d_kernel


_product.defvjp(_product_forward, _product_backward)


class Attention(nn.Module):
  """Causal self-attention with rotary positions and fused q, k, v."""

  config: ModelConfig

  @nn.compact
  def __call__(
    self,
    x_BTD: jax.Array,
    segment_ids_BT: jax.Array | None,
    deterministic: bool,
    cache: LayerCache | None = None,
  ) -> tuple[jax.Array, LayerCache | None]:
    """Return BTD, and the cache with these T tokens if there is one."""
    config = self.config
    heads = (config.num_heads, config.head_dim)
    qkv_BT3NH = Projection(
      config,
      (config.embed_dim,),
      (3, *heads),
      ("embed", None, "heads", "head_dim"),
      name="qkv",
    )(x_BTD)
    q_BTNH, k_BTNH, v_BTNH = (
      _saved_as(qkv_BT3NH[:, :, part], "qkv") for part in range(3)
    )
    length = x_BTD.shape[1] if cache is None else cache.k_BNSH.shape[2]
    cos, sin = rotary.tables(length, config.rotary_dim, config.rope_base)
    positions_BT = jnp.arange(x_BTD.shape[1])[None]
    if cache is not None:
      positions_BT = cache.starts_B[:, None] + positions_BT
      cos, sin = cos[positions_BT], sin[positions_BT]
    q_BTNH, k_BTNH = (rotary.rotate(y, cos, sin) for y in (q_BTNH, k_BTNH))
    names = ("batch", "length", "heads", "head_dim")
    q_BTNH, k_BTNH, v_BTNH = (
      with_logical_constraint(y, names) for y in (q_BTNH, k_BTNH, v_BTNH)
    )
    if cache is None:
      rate = 0.0 if deterministic else config.attention_dropout_rate
      context_BTNH = attention.attention(
        q_BTNH,
        k_BTNH,
        v_BTNH,
        segment_ids_BT=segment_ids_BT,
        dropout_rate=rate,
        dropout_key=self.make_rng("dropout") if rate else None,
        implementation=config.attention,
        spec=logical_to_mesh_axes(names),
      )
    else:
      cache = LayerCache(
        decode.write(cache.k_BNSH, k_BTNH, cache.starts_B),
        decode.write(cache.v_BNSH, v_BTNH, cache.starts_B),
        cache.starts_B + x_BTD.shape[1],
      )
      context_BTNH = decode.attend(q_BTNH, cache.k_BNSH, cache.v_BNSH, positions_BT)
    out = Projection(
      config,
      heads,
      (config.embed_dim,),
      ("heads", "head_dim", "embed"),
      name="out",
    )
    return out(context_BTNH), cache


class MLP(nn.Module):
  """Two projections with tanh-approximated GELU ("gelu_new") between them."""

  config: ModelConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    """Return BTD."""
    config = self.config
    wide, narrow = (config.mlp_dim,), (config.embed_dim,)
    x_BTF = Projection(config, narrow, wide, ("embed", "mlp"), name="up")(x_BTD)
    x_BTF = with_logical_constraint(x_BTF, ("batch", "length", "mlp"))
    x_BTF = checkpoint_name(x_BTF, "mlp")
    x_BTF = jax.nn.gelu(x_BTF, approximate=True)
    return Projection(config, wide, narrow, ("mlp", "embed"), name="down")(x_BTF)


class Block(nn.Module):
  """x + dropout(attention(n)) + dropout(mlp(n)) with n = norm(x).

  Returns a pair, for a scan over layers: the new x, and the cache, if any.
  """

  config: ModelConfig

  @nn.compact
  def __call__(
    self,
    x_BTD: jax.Array,
    segment_ids_BT: jax.Array | None,
    deterministic: bool,
    cache: LayerCache | None = None,
  ) -> tuple[jax.Array, LayerCache | None]:
    """Return BTD, and the cache with these T tokens if there is one."""
    config = self.config
    normal_BTD = LayerNorm(config, name="norm")(x_BTD)
    attended_BTD, cache = Attention(config, name="attention")(
      normal_BTD, segment_ids_BT, deterministic, cache
    )
    rate = 0.0 if deterministic else config.dropout_rate
    for branch_BTD in (attended_BTD, MLP(config, name="mlp")(normal_BTD)):
      key = self.make_rng("dropout") if rate else None
      x_BTD = x_BTD + dropout.dropout(branch_BTD, rate, key)
    return with_logical_constraint(x_BTD, ("batch", "length", "embed")), cache


def head(config: ModelConfig) -> Projection:
  """Return the projection from BTD to logits BTV, float32."""
  return Projection(
    config,
    (config.embed_dim,),
    (config.vocabulary_size,),
    ("embed", "vocab"),
    output_dtype="float32",
  )


def head_kernel(params: Any) -> jax.Array:
  """Return the head's kernel DV among a model's parameters: its own, or a tied one."""
  own = params["head"].get("kernel")
  return params["embedding"]["embedding"].T if own is None else own
