"""The phi decoder of "Textbooks Are All You Need" (Gunasekar et al. 2023).

Parallel blocks with one LayerNorm each, partial rotary positions, biases everywhere,
and a head that is not tied to the embedding, unless `Model.tie_embeddings`.

B batch, T length, D embed, V vocabulary.

The parameters, with L layers stacked on the first axis of everything below "layers":

  embedding/embedding                     V D
  layers/norm/{scale,bias}                L D
  layers/attention/qkv/{kernel,bias}      L D 3 N H    L 3 N H
  layers/attention/out/{kernel,bias}      L N H D      L D
  layers/mlp/up/{kernel,bias}             L D F        L F
  layers/mlp/down/{kernel,bias}           L F D        L D
  final_norm/{scale,bias}                 D
  head/{kernel,bias}                      D V          V     no kernel if tied
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from phi1_jax.kernels import attention
from phi1_jax.model import layers
from phi1_jax.model.config import ModelConfig
from phi1_jax.parallel import sharding

# Segment ids and the dropout switch are the same for every layer.
_BROADCAST: Any = nn.broadcast


def _save(*names: str):
  """Return a policy that saves these names and the results of cuDNN's kernel."""
  by_name = jax.checkpoint_policies.save_only_these_names(*names)
  return jax.checkpoint_policies.save_from_both_policies(by_name, attention.save_cudnn)


_SAVED = {
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "qkv_context": _save("qkv", "context"),
  "matrices": _save("qkv", "context", "mlp"),
}


class Decoder(nn.Module):
  """Tokens in, logits out.

  `init` gives parameters boxed with their logical names; `flax.linen.unbox` makes
  them plain arrays. With `deterministic=False`, `apply` needs `rngs={"dropout": key}`.
  """

  config: ModelConfig

  def setup(self):
    """Create the submodules."""
    config = self.config
    self.embedding = layers.Embedding(config)
    self.layers = _stacked_blocks(config)(config)
    self.final_norm = layers.LayerNorm(config)
    self.head = layers.head(config)

  def __call__(
    self,
    tokens_BT: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    deterministic: bool = True,
  ) -> jax.Array:
    """Return the logits of the next token, BTV float32.

    Args:
      tokens_BT: token ids, integer.
      segment_ids_BT: documents packed in one row; attention stays within equal ids.
      deterministic: no dropout; False in training.
    """
    hidden_BTD = self.hidden(
      tokens_BT, segment_ids_BT=segment_ids_BT, deterministic=deterministic
    )
    tied = self.embedding.embedding.T if self.config.tie_embeddings else None
    return self.head(hidden_BTD, tied)

  def hidden(
    self,
    tokens_BT: jax.Array,
    *,
    segment_ids_BT: jax.Array | None = None,
    deterministic: bool = True,
  ) -> jax.Array:
    """Return the head's input: BTD after the final LayerNorm (see `__call__`)."""
    x_BTD = self.embedding(tokens_BT)
    x_BTD, _ = self.layers(x_BTD, segment_ids_BT, deterministic)
    return self.final_norm(x_BTD)


def parameter_shapes(config: ModelConfig) -> dict:
  """Return the tree of parameters as shapes, without allocating."""
  tokens_BT = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  variables = jax.eval_shape(Decoder(config).init, jax.random.key(0), tokens_BT)
  return nn.unbox(variables)["params"]


def abstract_parameters(config: ModelConfig, mesh: Mesh) -> Any:
  """Return the tree of parameters as shapes with shardings, without allocating.

  Raises:
    InputError: the mesh does not divide a parameter.
  """

  def init() -> Any:  # the key is made in here: the mesh may be of no real devices
    return Decoder(config).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))

  with sharding.layout(mesh):
    boxed = jax.eval_shape(init)["params"]
  return jax.tree.map(
    lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
    sharding.unbox(boxed),
    sharding.shardings(boxed, mesh),
  )


def _stacked_blocks(config: ModelConfig):
  """Return the Block class, rematerialised and repeated as configured."""
  block = layers.Block
  if config.remat != "none":
    block = nn.remat(
      block,
      policy=_SAVED[config.remat],
      # Inside a loop the compiler cannot merge the recomputation with the original.
      prevent_cse=not config.scan_layers,
      static_argnums=(3,),  # deterministic
    )
  return nn.scan(
    block,
    length=config.num_layers,
    # Unrolled is the same loop with as many blocks per turn as there are layers.
    unroll=1 if config.scan_layers else config.num_layers,
    in_axes=_BROADCAST,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    metadata_params={nn.PARTITION_NAME: "layers"},
  )
