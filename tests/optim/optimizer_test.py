"""AdamW against torch's, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from phi1_jax.optim import optimizer
from phi1_jax.optim.config import OptimizerConfig

_STEPS = 9


def _tree():
  keys = jax.random.split(jax.random.key(0), 3)
  return {
    "embedding": {"embedding": jax.random.normal(keys[0], (7, 5))},
    "layers": {"up": {"kernel": jax.random.normal(keys[1], (2, 5, 3))}},
    "norm": {"bias": jax.random.normal(keys[2], (2, 5))},
  }


def _gradient(step):
  """Norms from far below the clipping threshold to far above it."""
  leaves, structure = jax.tree.flatten(_tree())
  keys = jax.random.split(jax.random.key(100 + step), len(leaves))
  gradients = [
    jax.random.normal(key, leaf.shape) * 3.0 ** (step - 5)
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(structure, gradients)


def _config(**changes):
  return OptimizerConfig(
    **{
      "peak_learning_rate": 0.1,
      "warmup_steps": 3,
      "weight_decay": 0.3,
      "clip_norm": 0.7,
      **changes,
    }
  )


def _ours(config):
  params = _tree()
  transformation = optimizer.make_optimizer(config, _STEPS, params)
  state = transformation.init(params)
  for step in range(_STEPS):
    updates, state = transformation.update(_gradient(step), state, params)
    params = optax.apply_updates(params, updates)
  return params


def _torchs(config):
  """One parameter group per leaf, so that each has its own decay."""
  paths = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(_tree())]
  leaves = [
    torch.nn.Parameter(torch.tensor(np.asarray(leaf)))
    for leaf in jax.tree.leaves(_tree())
  ]
  decays = {"matrices": ("embedding", "kernel"), "all": paths}[config.decay]
  groups = [
    {"params": [leaf], "weight_decay": config.weight_decay if path in decays else 0.0}
    for path, leaf in zip(paths, leaves, strict=True)
  ]
  adamw = torch.optim.AdamW(
    groups, betas=(config.beta1, config.beta2), eps=config.epsilon
  )
  for step in range(_STEPS):
    for leaf, gradient in zip(leaves, jax.tree.leaves(_gradient(step)), strict=True):
      leaf.grad = torch.tensor(np.asarray(gradient))
    torch.nn.utils.clip_grad_norm_(leaves, config.clip_norm)
    rate = min(step / 3, 1 - (step - 3) / (_STEPS - 3)) * config.peak_learning_rate
    for group in adamw.param_groups:
      group["lr"] = rate
    adamw.step()
  return jax.tree.unflatten(
    jax.tree.structure(_tree()), [leaf.detach().numpy() for leaf in leaves]
  )


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"decay": "all"},
    {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3},
    {"weight_decay": 0.0, "clip_norm": 100.0},
  ],
)
def test_equals_torch(changes):
  config = _config(**changes)
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=3e-6),
    _ours(config),
    _torchs(config),
  )


def test_mask_goes_by_name():
  mask = optimizer.decay_mask(_config(), _tree())
  assert mask == {
    "embedding": {"embedding": True},
    "layers": {"up": {"kernel": True}},
    "norm": {"bias": False},
  }
  assert all(jax.tree.leaves(optimizer.decay_mask(_config(decay="all"), _tree())))


def test_shapes_are_enough():
  shapes = jax.eval_shape(_tree)
  transformation = optimizer.make_optimizer(_config(), _STEPS, shapes)
  state = jax.eval_shape(transformation.init, shapes)
  sizes = sorted(leaf.size for leaf in jax.tree.leaves(state))
  assert sizes == sorted([1, 1, *[35, 30, 10] * 2])


def test_first_update_fills_the_moments_only():
  params = _tree()
  transformation = optimizer.make_optimizer(_config(), _STEPS, params)
  updates, state = transformation.update(
    _gradient(0), transformation.init(params), params
  )
  assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(updates))
  moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
  assert all(jnp.all(leaf != 0) for leaf in moments)
