"""Hugging Face's PhiForCausalLM as a twin: logits, gradients, round trips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from phi1_jax import InputError
from phi1_jax.interop import phi
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig

# vocabulary, layers, heads, head_dim, rotary_dim, embed, mlp, length
_SIZES = [
  (97, 3, 2, 11, 6, 13, 31, 19),
  (53, 1, 5, 4, 4, 20, 17, 7),
  (61, 2, 3, 16, 8, 48, 29, 23),
  (31, 5, 1, 7, 2, 7, 11, 5),
]


def _config(sizes, **changes):
  return ModelConfig(*sizes, dtype="float32", initializer_range=0.2, **changes)


def _arrays(model):
  return {name: x.detach().numpy() for name, x in model.state_dict().items()}


def _tokens(config, rows=3):
  generator = np.random.default_rng(1)
  return generator.integers(0, config.vocabulary_size, (rows, config.max_length))


@pytest.mark.parametrize("sizes", _SIZES)
def test_logits_and_every_gradient_equal_the_twin(twins, sizes):
  config = _config(sizes, rope_base=500.0)
  model = twins.phi(config)
  tokens = _tokens(config)
  targets = np.roll(tokens, -1, axis=1)

  def loss(params):
    logits = decoder.Decoder(config).apply({"params": params}, tokens)
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, jnp.asarray(targets)[..., None], -1)
    return -jnp.mean(picked), logits

  params = phi.from_hf(_arrays(model), config)
  (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  their_logits = model(torch.tensor(tokens)).logits
  torch.nn.functional.cross_entropy(
    their_logits.flatten(0, 1), torch.tensor(targets).flatten()
  ).backward()
  np.testing.assert_allclose(logits, their_logits.detach().numpy(), atol=2e-5)
  ours = phi.to_hf(gradients, config)
  theirs = {name: x.grad.numpy() for name, x in model.named_parameters()}
  assert ours.keys() == theirs.keys()
  for name in theirs:
    np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("sizes", _SIZES)
def test_round_trips_are_exact(twins, sizes):
  config = _config(sizes)
  theirs = _arrays(twins.phi(config))
  params = phi.from_hf(theirs, config)
  again = phi.to_hf(params, config)
  assert theirs.keys() == again.keys()
  jax.tree.map(np.testing.assert_array_equal, again, theirs)
  jax.tree.map(np.testing.assert_array_equal, phi.from_hf(again, config), params)


def test_imports_into_the_parameters_dtype(twins):
  config = _config(_SIZES[0], param_dtype="bfloat16")
  halves = {
    name: x.astype(np.float16) for name, x in _arrays(twins.phi(config)).items()
  }
  halves["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(3, np.float16)
  leaves = jax.tree.leaves(phi.from_hf(halves, config))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}


def test_refuses_what_does_not_fit(twins):
  config = _config(_SIZES[0])
  good = _arrays(twins.phi(config))
  given = {name: x for name, x in good.items() if "layers.2.mlp.fc1" not in name}
  given |= {"extra": np.zeros(3), "lm_head.bias": np.zeros(5)}
  with pytest.raises(InputError) as refused:
    phi.from_hf(given, config)
  assert str(refused.value).splitlines()[1:] == [
    "  missing: model.layers.2.mlp.fc1.bias, expected (31,)",
    "  missing: model.layers.2.mlp.fc1.weight, expected (31, 13)",
    "  unknown: extra, got (3,)",
    "  shape: lm_head.bias, got (5,), expected (97,)",
  ]
