"""Configuration of a phi model: sizes, precision, rematerialisation, attention."""

import dataclasses
from typing import Any, Literal

from phi1_jax.kernels import attention as kernels
from phi1_jax.model import DType
from phi1_jax.settings import Positive, PositiveInt, Settings, Share

# What the forward pass saves for the backward pass, which computes the rest of a block
# again.
#   none         everything
#   full         the input of each block
#   dots         the results of the matrix products that have no batch dimension
#   qkv_context  queries, keys, values, and the attention's output with its statistics,
#                so that no attention kernel runs forward twice
#   matrices     those and the MLP's hidden layer: no matrix product runs twice, since
#                the backward pass does not need the results of "out" and "down"
Remat = Literal["none", "full", "dots", "qkv_context", "matrices"]


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
  """A phi decoder (gin name: `Model`).

  Attributes:
    vocabulary_size: rows of the embedding and columns of the head, padding rows
      included (phi-1: 51200, of which its tokenizer uses 50295).
    num_layers: number of blocks.
    num_heads: attention heads per block.
    head_dim: width of one head.
    rotary_dim: how many leading dims of each head are rotated; even.
    embed_dim: width of the residual stream.
    mlp_dim: width of the MLP's hidden layer.
    max_length: the longest sequence in tokens.
    dropout_rate: dropout on both branches of a block, in training.
    attention_dropout_rate: dropout on the attention weights, in training.
    layer_norm_epsilon: added to the variance.
    rope_base: wavelength base of the rotary embedding.
    initializer_range: standard deviation of initial kernels and embeddings.
    dtype: dtype of the computation.
    param_dtype: dtype of the parameters.
    tie_embeddings: take the embedding for the head's kernel, too. phi-1 does not; small
      models learn sooner to copy names.
    remat: what the backward pass recomputes; one of `Remat`.
    scan_layers: compile one block and loop over it, or compile every block. The
      parameters are the same: stacked over layers.
    attention: an implementation named in `kernels.attention`, or "auto".
  """

  vocabulary_size: PositiveInt
  num_layers: PositiveInt
  num_heads: PositiveInt
  head_dim: PositiveInt
  rotary_dim: PositiveInt
  embed_dim: PositiveInt
  mlp_dim: PositiveInt
  max_length: PositiveInt
  dropout_rate: Share = 0.1
  attention_dropout_rate: Share = 0.1
  layer_norm_epsilon: Positive = 1e-5
  rope_base: Positive = 10000.0
  initializer_range: Positive = 0.02
  dtype: DType = "bfloat16"
  param_dtype: DType = "float32"
  tie_embeddings: bool = False
  remat: Remat = "none"
  scan_layers: bool = True
  attention: kernels.Name = "auto"

  def __post_init__(self):
    super().__post_init__()
    if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
      raise self.wrong("rotary_dim", f"an even number <= head_dim={self.head_dim}")

  def shape(self) -> dict[str, Any]:
    """Return what two models must share to exchange parameters."""
    names = ("vocabulary_size", "num_layers", "num_heads", "head_dim", "embed_dim")
    names += ("mlp_dim", "rotary_dim", "rope_base", "param_dtype")
    # Checkpoints of before there were tied ones do not name it.
    names += ("tie_embeddings",) * self.tie_embeddings
    return {name: getattr(self, name) for name in names}

  def num_parameters(self) -> int:
    """Return the number of trained scalars (phi-1: 1,418,270,720)."""
    heads_dim = self.num_heads * self.head_dim
    biases = 3 * heads_dim + self.embed_dim + self.mlp_dim + self.embed_dim
    norm = 2 * self.embed_dim
    block = self._block_matrices() + biases + norm
    embedding = self.vocabulary_size * self.embed_dim
    head = embedding * (not self.tie_embeddings) + self.vocabulary_size
    return embedding + self.num_layers * block + norm + head

  def flops_per_token(self, sequence_length: int) -> float:
    """Return the floating point operations to train on a token.

    Counts the matrix products forward and backward and, in the attention, the causal
    half: 8.48e9 for phi-1 at 2048 tokens. Recomputation is not counted.
    """
    matrices = self.num_layers * self._block_matrices()
    matrices += self.vocabulary_size * self.embed_dim  # the head
    # Scores and context: 2 products of 2·length·heads·head_dim, halved by causality.
    attended = 2 * sequence_length * self.num_heads * self.head_dim * self.num_layers
    return 3.0 * (2 * matrices + attended)

  def _block_matrices(self) -> int:
    """Return the number of entries in the matrices of a block."""
    attention_entries = 4 * self.embed_dim * self.num_heads * self.head_dim
    return attention_entries + 2 * self.embed_dim * self.mlp_dim
