"""AdamW against torch's, Muon against its formula, schedules by their closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from phi1_jax import InputError
from phi1_jax.optim import optimizer, schedule
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
  values = {"peak_learning_rate": 0.1, "warmup_steps": 3, "weight_decay": 0.3}
  return OptimizerConfig(**{**values, "clip_norm": 0.7, **changes})


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
  "changes", [{}, {"decay": "all", "beta1": 0.8, "epsilon": 1e-3, "clip_norm": 100.0}]
)
def test_equals_torch(changes):
  config = _config(**changes)
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=3e-6),
    _ours(config),
    _torchs(config),
  )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_bfloat16_moments_are_rounded_means(name):
  """The means only: squares stay in float32."""
  exact, coarse = (
    _state(_config(name=name, moment_dtype=dtype, clip_norm=100.0), _tree())
    for dtype in (None, "bfloat16")
  )
  for old, new in zip(jax.tree.leaves(exact), jax.tree.leaves(coarse), strict=True):
    means = [old.astype(jnp.bfloat16), new] if new.dtype == jnp.bfloat16 else [old, new]
    np.testing.assert_array_equal(*means)
  kinds = [leaf.dtype.name for leaf in jax.tree.leaves(coarse) if leaf.ndim > 1]
  assert kinds.count("bfloat16") == 3
  assert kinds.count("float32") == {"adamw": 3, "muon": 2}[name]


def _state(config, params):
  """The state after one gradient."""
  transformation = optimizer.make_optimizer(config, _STEPS, params)
  return transformation.update(_gradient(0), transformation.init(params), params)[1]


def _kernels():
  """Two layers of every matrix that Muon moves, and a head, which it does not."""
  shapes = {
    "qkv": (2, 6, 3, 2, 5),
    "out": (2, 2, 5, 6),
    "up": (2, 6, 11),
    "down": (2, 11, 6),
  }
  keys = jax.random.split(jax.random.key(0), 5)
  layers = {
    name: {"kernel": jax.random.normal(key, shape)}
    for key, (name, shape) in zip(keys, shapes.items(), strict=False)
  }
  return {"layers": layers, "head": {"kernel": jax.random.normal(keys[4], (6, 7))}}


def _muon_by_hand(matrix, gradient, config):
  """The first update of a plain matrix at the peak rate, in float64."""
  x = np.asarray(gradient, np.float64)
  # Nesterov with both biases corrected: after one gradient g, 0.95 of
  # 0.05·g / (1 - 0.95^2) and 0.05 of g / 0.05.
  x = x * (0.95 * 0.05 / (1 - 0.95**2) + 0.05 / (1 - 0.95))
  x /= np.linalg.norm(x)
  for _ in range(5):
    square = x @ x.T
    x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
  x *= 0.2 * np.sqrt(max(x.shape))
  return -config.peak_learning_rate * (x + config.weight_decay * np.asarray(matrix))


def test_muon_moves_each_layer_as_if_it_were_alone():
  config = _config(name="muon", warmup_steps=0, clip_norm=1e9)
  params = _kernels()
  gradients = jax.tree.map(lambda x: jnp.flip(x) * 3, params)
  transformation = optimizer.make_optimizer(config, _STEPS, params)
  updates, _ = transformation.update(gradients, transformation.init(params), params)

  def matrices(tree):
    """Every matrix, plain."""
    layers = {name: leaf["kernel"] for name, leaf in tree["layers"].items()}
    for layer in range(2):
      yield from (layers["qkv"][layer, :, part].reshape(6, 10) for part in range(3))
      yield layers["out"][layer].reshape(10, 6)
      yield from (layers[name][layer] for name in ("up", "down"))

  triples = zip(matrices(updates), matrices(params), matrices(gradients), strict=True)
  for update, matrix, gradient in triples:
    np.testing.assert_allclose(
      update, _muon_by_hand(matrix, gradient, config), atol=3e-6
    )

  config = dataclasses.replace(config, name="adamw")
  adamw = optimizer.make_optimizer(config, _STEPS, params)
  expected, _ = adamw.update(gradients, adamw.init(params), params)
  np.testing.assert_allclose(
    updates["head"]["kernel"], expected["head"]["kernel"], rtol=1e-6
  )


def test_muon_leaves_norms_undecayed():
  """With gradients of zero, decay alone moves parameters."""
  params = _tree()
  config = _config(name="muon", warmup_steps=0)
  transformation = optimizer.make_optimizer(config, _STEPS, params)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = transformation.update(zeros, transformation.init(params), params)
  decayed = jax.tree.map(lambda x: -0.1 * 0.3 * x, params)
  decayed["norm"]["bias"] = zeros["norm"]["bias"]
  jax.tree.map(
    lambda got, want: np.testing.assert_allclose(got, want, atol=1e-7), updates, decayed
  )


def _rates(steps, total, **changes):
  values = {"peak_learning_rate": 1e-3, "warmup_steps": 750, "weight_decay": 0.1}
  config = OptimizerConfig(**{**values, **changes})
  rate = schedule.make_schedule(config, total)
  return [float(rate(step)) for step in steps]


def test_linear_as_in_the_pretraining_of_the_paper():
  steps = [0, 1, 375, 750, 18375, 24000, 36000, 40000]
  expected = [0, 1e-3 / 750, 5e-4, 1e-3, 5e-4, 1e-3 * 12000 / 35250, 0, 0]
  np.testing.assert_allclose(_rates(steps, 36000), expected, rtol=1e-5, atol=1e-10)
  rates = _rates([0, 50, 100], 100, warmup_steps=0, end_learning_rate_fraction=0.2)
  np.testing.assert_allclose(rates, [1e-3, 6e-4, 2e-4], rtol=1e-5)


def test_cosine_by_its_formula():
  steps = np.array([0, 25, 50, 60, 75, 90, 100, 200])
  changes = {"schedule": "cosine", "end_learning_rate_fraction": 0.1}
  rates = _rates(steps, 100, warmup_steps=50, **changes)
  done = np.clip((steps - 50) / 50, 0, 1)
  falling = 0.1 + 0.9 * (1 + np.cos(np.pi * done)) / 2
  expected = 1e-3 * np.where(steps < 50, steps / 50, falling)
  np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("warmup", [0, 10])
def test_wsd_stays_at_the_peak_until_its_decay(warmup):
  steps = np.array([0, 5, 10, 79, 80, 85, 100, 200])
  changes = {"schedule": "wsd", "decay_steps": 20, "end_learning_rate_fraction": 0.5}
  rates = _rates(steps, 100, warmup_steps=warmup, **changes)
  rising = np.minimum(steps / warmup, 1) if warmup else 1
  expected = 1e-3 * rising * (1 - 0.5 * np.clip((steps - 80) / 20, 0, 1))
  np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("total", "changes", "message"),
  [
    (750, {}, "got 750, expected fewer than the run's 750"),
    (800, {"schedule": "wsd", "decay_steps": 51}, "got 51, expected at most the 50"),
  ],
)
def test_refuses_what_does_not_fit_into_the_run(total, changes, message):
  with pytest.raises(InputError, match=message):
    _rates([0], total, **changes)
