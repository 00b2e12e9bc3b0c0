import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phi1_jax.parallel import sharding
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.training import memory, state, step

NO_DROPOUT = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}


class Copy:
  """A model whose hidden state is one-hot of its input; notes how it was called."""

  config = type("Config", (), {"dtype": "float32"})

  def apply(self, variables, inputs_BT, **options):
    self.inputs_BT, self.options = inputs_BT, options
    return jax.nn.one_hot(inputs_BT, 4)


KERNEL = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
PARAMS = {"head": {"kernel": KERNEL, "bias": np.array([0.0, 1.0, -1.0, 0.5])}}


def by_hand(tokens, weights_BT):
  logits = KERNEL[tokens[:, :-1]] + PARAMS["head"]["bias"]
  log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  picked = np.take_along_axis(log_probabilities, tokens[:, 1:, None], -1)[..., 0]
  return -(picked * weights_BT).sum()


TOKENS = np.array([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]])


@pytest.mark.parametrize("chunks", [None, 2])
def test_loss_by_hand(chunks):
  weights_BT, model = np.array([[1, 1, 0, 1], [0, 0.5, 2, 1]], np.float32), Copy()
  loss = functools.partial(step.loss, model, PARAMS, head_chunks=chunks)
  total, weight, _ = loss(TOKENS, weights_BT)
  np.testing.assert_allclose(total, by_hand(TOKENS, weights_BT), rtol=1e-6)
  assert weight == 6.5
  np.testing.assert_array_equal(model.inputs_BT, TOKENS[:, :-1])
  total, weight, _ = loss(TOKENS)
  np.testing.assert_allclose(total, by_hand(TOKENS, np.ones((2, 4))), rtol=1e-6)
  assert weight == 8
  assert model.options["segment_ids_BT"] is model.options["rngs"] is None
  assert model.options["deterministic"] is True


def test_a_complement_is_read_but_not_learnt():
  masked, model = TOKENS.copy(), Copy()
  masked[0, [0, 2]], masked[1, 4] = ~masked[0, [0, 2]], ~2
  weights_BT = np.array([[1, 0, 1, 1], [1, 1, 1, 0]])
  total, weight, _ = step.loss(model, PARAMS, masked, head_chunks=None, document_end=3)
  np.testing.assert_allclose(total, by_hand(TOKENS, weights_BT), rtol=1e-6)
  assert weight == 6
  np.testing.assert_array_equal(model.inputs_BT, TOKENS[:, :-1])
  # Given weights are factors: those of an evaluation.
  doubled = step.loss(model, PARAMS, masked, 2 * np.ones((2, 4)), head_chunks=None)
  assert (doubled.loss, doubled.weight) == (2 * total, 12)


def test_documents_of_a_window():
  """The end of a document belongs to it; what follows is the next one."""
  model = Copy()
  tokens = jnp.array([[1, 3, 1, 2, 3, 3, 0], [3, 0, 0, 0, 0, 0, 0]])
  step.loss(model, PARAMS, tokens, head_chunks=None, document_end=3)
  np.testing.assert_array_equal(
    model.options["segment_ids_BT"],
    #  inputs: 1 3 1 2 3 3, 3 0 0 0 0 0
    [[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]],
  )


def start(setup):
  """The first state of a run, on the host."""
  return jax.device_get(setup.initial_state())


@pytest.fixture(scope="module")
def initial(tiny):
  return start(tiny())


def alone(setup):
  """The same run on the first device alone."""
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  with sharding.layout(mesh):
    abstract = state.abstract(setup.model, setup.optimizer, mesh)
  return dataclasses.replace(setup, mesh=mesh, abstract_state=abstract)


def batches(count):
  return np.random.default_rng(1).integers(0, 64, (count, 16, 17)).astype(np.int32)


STEPS = {}  # id of a setup -> the setup and its compiled step


def compiled(setup):
  if id(setup) not in STEPS:
    with sharding.layout(setup.mesh):
      function = memory.compile_step(step.make_train_step(setup, 0), setup)
    STEPS[id(setup)] = setup, function
  return STEPS[id(setup)][1]


def run(setup, now, tokens):
  """Metrics of each step on the batches, and the state behind them, on the host."""
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  # A copy of its own: the step consumes the state that it is given.
  now, rows = jax.device_put(jax.tree.map(np.copy, now), places), []
  for batch in tokens:
    now, metrics = compiled(setup)(now, sharding.put_batch(batch, setup.mesh, 16))
    rows.append({name: float(value) for name, value in metrics.items()})
  return rows, jax.device_get(now)


def numbers(rows):
  """Loss and gradient norm of each step."""
  return np.array([[row["loss"], row["grad_norm"]] for row in rows])


def assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_close(one, other, **tolerance):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.fixture(scope="module")
def single(initial, tiny):
  """Three steps with dropout on the first device alone."""
  found = numbers(run(alone(tiny()), initial, batches(3))[0])
  assert found[0, 0] == pytest.approx(np.log(64), abs=0.1)
  return found


@pytest.mark.parametrize("mesh", [(1, 1, 8), (1, 8, 1), (8, 1, 1), (2, 2, 2)])
def test_every_mesh_computes_what_one_device_does(tiny, initial, single, mesh):
  rows, _ = run(tiny(mesh=mesh), initial, batches(3))
  np.testing.assert_allclose(numbers(rows), single, rtol=2e-5)


def test_muon_on_eight_devices_is_muon_on_one(tiny):
  """Orthogonalisation is of whole matrices, although each device holds a part."""
  options = {"model": NO_DROPOUT, "optimizer": {"name": "muon", "warmup_steps": 0}}
  setup = tiny(mesh=(2, 2, 2), **options)
  kernel = setup.abstract_state.params["layers"]["mlp"]["up"]["kernel"]
  assert kernel.sharding.shard_shape(kernel.shape) == (2, 8, 16)
  first = start(setup)
  rows, after = run(setup, first, batches(3))
  expected, after_alone = run(alone(setup), first, batches(3))
  np.testing.assert_allclose(numbers(rows), numbers(expected), rtol=2e-4)
  assert_close(after.params, after_alone.params, atol=2e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("train", [{}, {"sequences_per_device": 1}])
def test_an_update_is_optax_on_the_gradient_of_the_mean_loss(
  tiny, initial, masked, train
):
  """The mean is over the targets of the whole batch, which rows share unevenly.

  Also: the norm is the one before clipping.
  """
  tokens = batches(1)[0]
  if masked:
    hidden = np.random.default_rng(2).random(tokens.shape) < 0.6
    hidden[:5] = True
    tokens = np.where(hidden, ~tokens, tokens)
  optimizer = {"clip_norm": 0.05, "warmup_steps": 0}
  setup = tiny(mesh=(2, 2, 2), model=NO_DROPOUT, train=train, optimizer=optimizer)
  (row,), after = run(setup, initial, [tokens])

  def mean_loss(params):
    total, weight, _ = step.loss(setup.model, params, tokens, head_chunks=None)
    assert weight.shape == ()
    return total / (tokens[:, 1:] >= 0).sum()

  value, gradients = jax.jit(jax.value_and_grad(mean_loss))(initial.params)
  gradients = jax.device_get(gradients)
  norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)))
  np.testing.assert_allclose([row["loss"], row["grad_norm"]], [value, norm], rtol=1e-5)
  assert norm > 0.1  # so that clipping has something to do
  mean = jax.tree.map(lambda g: 0.1 * g * 0.05 / norm, gradients)
  assert_close(after.optimizer[1][0].mu, mean, rtol=2e-3, atol=1e-8)
  assert int(after.step) == 1
  assert setup.accumulation_steps == (4 if train else 1)


def test_sums_of_bfloat16_gradients_are_float32():
  """In bfloat16, 512 ones would sum to 256."""
  params = {"w": jnp.ones(3, jnp.bfloat16)}

  def part_loss(params, rows, key):
    return jnp.sum(params["w"]) * jnp.mean(rows.astype(jnp.float32)), jnp.ones(())

  arguments = params, jnp.ones((512, 5), jnp.int32), jax.random.key(0), 512
  values, gradients = step._accumulate(part_loss, *arguments)
  assert values == (3 * 512, 512)
  assert gradients["w"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(gradients["w"], 512)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_batch_without_target_only_counts(tiny, name):
  setup = tiny(mesh=(8, 1, 1), optimizer={"name": name, "warmup_steps": 0})
  _, before = run(setup, start(setup), batches(1))
  (row,), after = run(setup, before, ~batches(1))
  assert row["loss"] == row["grad_norm"] == 0
  assert int(after.step) == 2
  assert_equal(before.params, after.params)
  is_count = lambda x: isinstance(x, optax.ScaleByScheduleState)  # noqa: E731
  counts = filter(is_count, jax.tree.leaves(after.optimizer, is_leaf=is_count))
  assert {int(x.count) for x in counts} == {2}

  one_target = ~batches(1)
  one_target[0, 0, 1] = 5
  _, learnt = run(setup, after, one_target)
  assert not np.array_equal(learnt.params["head"]["bias"], after.params["head"]["bias"])


def test_a_step_donates_the_state_and_not_the_batch(tiny, initial):
  """Memory has room for one state; the caller may read the batch again."""
  setup = tiny(mesh=(8, 1, 1))
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  now = jax.device_put(jax.tree.map(np.copy, initial), places)
  batch = sharding.put_batch(batches(1)[0], setup.mesh, 16)
  compiled(setup)(now, batch)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(now.params))
  assert not batch.is_deleted()


def test_z_loss_is_reported_beside_the_loss(tiny, initial):
  """At initialisation all logits are near 0, so that log(Z) is log(64)."""
  options = {"mesh": (8, 1, 1), "model": NO_DROPOUT}
  (plain,), _ = run(tiny(**options), initial, batches(1))
  (found,), _ = run(tiny(train={"z_loss": 0.01}, **options), initial, batches(1))
  np.testing.assert_allclose(found["loss"], plain["loss"], rtol=1e-6)
  assert found["z_loss"] == pytest.approx(0.01 * np.log(64) ** 2, rel=0.02)
  assert found["grad_norm"] != plain["grad_norm"]


def test_a_step_reports_the_updates_that_bfloat16_parameters_lose(tiny):
  """Almost all updates of Adam's first step are near the learning rate, none is 0."""
  options = {"model": {**NO_DROPOUT, "param_dtype": "bfloat16"}}
  options["optimizer"] = {"peak_learning_rate": 3e-5, "warmup_steps": 0}
  setup = tiny(mesh=(8, 1, 1), **options)
  before = start(setup)
  (row,), after = run(setup, before, batches(1))
  same = jax.tree.map(lambda a, b: (a == b).ravel(), before.params, after.params)
  unchanged = np.concatenate(jax.tree.leaves(same)).mean()
  assert 0.2 < unchanged < 0.8
  assert row["vanished_updates"] == pytest.approx(unchanged, abs=0.02)


@pytest.mark.parametrize("name", NO_DROPOUT)
def test_a_step_drops_with_either_rate(tiny, initial, name):
  (plain,), _ = run(tiny(mesh=(8, 1, 1), model=NO_DROPOUT), initial, batches(1))
  setup = tiny(mesh=(8, 1, 1), model={**NO_DROPOUT, name: 0.5})
  (dropped,), _ = run(setup, initial, batches(1))
  assert abs(dropped["grad_norm"] / plain["grad_norm"] - 1) > 1e-4


def spoilt(now):
  broken = jax.tree.map(np.copy, now)
  broken.params["final_norm"]["scale"][3] = np.nan
  return broken


def test_what_is_not_finite_changes_nothing(tiny, initial):
  rows, after = run(tiny(mesh=(8, 1, 1)), spoilt(initial), batches(2))
  assert np.isnan(numbers(rows)).all()
  assert_equal(after, spoilt(initial))


def test_a_skipped_step_counts_and_changes_nothing_else(tiny, initial):
  """The next update has the rate of its step, and resuming is exact."""
  setup = tiny(mesh=(8, 1, 1), train={"skip_nonfinite_steps": 1})
  tokens = batches(5)
  rows, before = run(setup, initial, tokens[:2])
  assert [row["skipped"] for row in rows] == [0, 0]
  (row,), after = run(setup, spoilt(before), tokens[2:3])
  assert row["skipped"] == 1
  assert np.isnan(row["loss"])
  assert int(after.step) == 3
  (_, (adam_before, *_)), (_, (adam, _, schedule)) = before.optimizer, after.optimizer
  assert int(schedule.count) == 3
  assert_equal((adam_before, spoilt(before).params), (adam, after.params))

  # The next batch is a good one.
  repaired = dataclasses.replace(after, params=before.params)
  (row,), fourth = run(setup, repaired, tokens[3:4])
  assert row["learning_rate"] == pytest.approx(float(setup.schedule(3)))
  adam = fourth.optimizer[1][0]
  assert int(adam.count) == 3
  mean, square = (tree["final_norm"]["bias"] for tree in (adam.mu, adam.nu))
  update = mean / (1 - 0.9**3) / (np.sqrt(square / (1 - 0.95**3)) + 1e-8)
  bias = before.params["final_norm"]["bias"] - float(setup.schedule(3)) * update
  np.testing.assert_allclose(fourth.params["final_norm"]["bias"], bias, rtol=1e-5)
  assert_equal(run(setup, fourth, tokens[4:])[1], run(setup, repaired, tokens[3:])[1])


def test_counts_updates_that_a_bfloat16_parameter_loses():
  """Also: between 1 and 2, half a step of 2^-7 or less changes nothing."""
  old = {
    "norm": {"scale": np.array([1.0, 1.0, 1.0, 1.0, 1.0])},
    "mlp": {"kernel": np.array([0.01, 1.5, 1.5, -1.5])},
  }
  updates = {
    "norm": {"scale": np.array([0.0, 1e-3, -1e-3, 2**-7, 5e-4])},
    "mlp": {"kernel": np.array([1e-3, 1e-3, 0.0, -1e-2])},
  }
  old, updates = jax.tree.map(lambda x: jnp.asarray(x, "bfloat16"), (old, updates))

  def apply(old, updates):
    return step.vanished_updates(old, updates, optax.apply_updates(old, updates))

  assert float(jax.jit(apply)(old, updates)) == pytest.approx(4 / 7)
  assert float(jax.jit(apply)(old, jax.tree.map(jnp.zeros_like, updates))) == 0
