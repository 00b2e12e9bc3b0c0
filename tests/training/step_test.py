import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phi1_jax.parallel import sharding
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.planning import topology
from phi1_jax.training import memory, state, step

NO_DROPOUT = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
MESHES = [
  (data, fsdp, 8 // data // fsdp)
  for data in (1, 2, 4, 8)
  for fsdp in (1, 2, 4, 8)
  if 8 % (data * fsdp) == 0
]


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


@pytest.mark.parametrize("chunks", [None, 2])
def test_loss_by_hand(chunks):
  tokens = np.array([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]])
  weights_BT = np.array([[1, 1, 0, 1], [0, 0.5, 2, 1]], np.float32)
  model = Copy()
  total, weight, _ = step.loss(model, PARAMS, tokens, weights_BT, head_chunks=chunks)
  np.testing.assert_allclose(total, by_hand(tokens, weights_BT), rtol=1e-6)
  assert weight == 6.5
  np.testing.assert_array_equal(model.inputs_BT, tokens[:, :-1])
  total, weight, _ = step.loss(model, PARAMS, tokens, head_chunks=chunks)
  np.testing.assert_allclose(total, by_hand(tokens, np.ones((2, 4))), rtol=1e-6)
  assert weight == 8


def test_a_complement_is_read_but_not_learnt():
  tokens = np.array([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]])
  masked, model = tokens.copy(), Copy()
  masked[0, [0, 2]], masked[1, 4] = ~masked[0, [0, 2]], ~2
  weights_BT = np.array([[1, 0, 1, 1], [1, 1, 1, 0]])
  total, weight, _ = step.loss(model, PARAMS, masked, head_chunks=None, document_end=3)
  np.testing.assert_allclose(total, by_hand(tokens, weights_BT), rtol=1e-6)
  assert weight == 6
  np.testing.assert_array_equal(model.inputs_BT, tokens[:, :-1])
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
  step.loss(model, PARAMS, tokens, head_chunks=None)
  assert model.options["segment_ids_BT"] is None
  assert model.options["deterministic"] is True
  assert model.options["rngs"] is None


def compiled(setup):
  with sharding.layout(setup.mesh):
    function = step.make_train_step(setup, 0)
  return memory.compile_step(function, setup)


def start(setup):
  with sharding.layout(setup.mesh):
    return state.initialise(setup.model, setup.optimizer, setup.mesh, 0)


@pytest.fixture(scope="module")
def initial(tiny):
  """One initial state for every mesh, on the host."""
  return jax.device_get(start(tiny()))


def batches(count):
  return np.random.default_rng(1).integers(0, 64, (count, 16, 17)).astype(np.int32)


def run(setup, initial, count=3):
  """Loss and gradient norm of some steps, and the state behind them."""
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  # A copy of its own: the step consumes the state that it is given.
  now = jax.device_put(jax.tree.map(np.copy, initial), places)
  function, rows = compiled(setup), []
  for tokens in batches(count):
    now, metrics = function(now, sharding.put_batch(tokens, setup.mesh, 16))
    rows.append([float(metrics["loss"]), float(metrics["grad_norm"])])
  return np.array(rows), now


@pytest.fixture(scope="module")
def single(initial, tiny):
  """Three steps with dropout on the first device alone."""
  setup = tiny()
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  with sharding.layout(mesh):
    abstract = state.abstract(setup.model, setup.optimizer, mesh)
  setup = dataclasses.replace(setup, mesh=mesh, abstract_state=abstract)
  return run(setup, initial)[0]


@pytest.mark.parametrize("mesh", MESHES)
def test_every_mesh_computes_what_one_device_does(tiny, initial, single, mesh):
  assert single[0, 0] == pytest.approx(np.log(64), abs=0.1)
  rows, _ = run(tiny(mesh=mesh), initial)
  np.testing.assert_allclose(rows, single, rtol=2e-5)


def test_accumulation_changes_nothing(tiny, initial):
  whole, after = run(tiny(model=NO_DROPOUT, mesh=(2, 2, 2)), initial)
  parts, after_parts = run(
    tiny(model=NO_DROPOUT, mesh=(2, 2, 2), train={"sequences_per_device": 1}), initial
  )
  np.testing.assert_allclose(parts, whole, rtol=2e-5)
  assert tiny(mesh=(2, 2, 2), train={"sequences_per_device": 1}).accumulation_steps == 4
  for one, other in zip(
    jax.tree.leaves(after.params), jax.tree.leaves(after_parts.params), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=2e-4)  # Adam: signs of tiny gradients


def test_an_update_is_optax_on_the_gradient_of_the_mean_loss(tiny, initial):
  """Also: the norm is the one before clipping, and the rate that of the schedule."""
  setup = tiny(model=NO_DROPOUT, optimizer={"clip_norm": 0.05, "warmup_steps": 0})
  (row,), after = run(setup, initial, count=1)

  def mean_loss(params):
    total, weight, _ = step.loss(setup.model, params, batches(1)[0], head_chunks=None)
    return total / weight

  value, gradients = jax.jit(jax.value_and_grad(mean_loss))(initial.params)
  gradients = jax.device_get(gradients)
  norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)))
  np.testing.assert_allclose(row, [value, norm], rtol=1e-5)
  assert norm > 0.1  # so that clipping has something to do
  clipped = jax.tree.map(lambda g: g * 0.05 / norm, gradients)
  mean = jax.tree.leaves(after.optimizer)[1 : 1 + len(jax.tree.leaves(clipped))]
  for got, expected in zip(mean, jax.tree.leaves(clipped), strict=True):
    np.testing.assert_allclose(got, 0.1 * expected, rtol=2e-3, atol=1e-8)
  assert int(after.step) == 1


def test_what_is_not_finite_changes_nothing(tiny, initial):
  setup = tiny(mesh=(8, 1, 1))
  broken = jax.tree.map(np.copy, initial)
  broken.params["final_norm"]["scale"][3] = np.nan
  rows, after = run(setup, broken)
  assert np.isnan(rows).all()
  for before, now in zip(jax.tree.leaves(broken), jax.tree.leaves(after), strict=True):
    np.testing.assert_array_equal(now, before)
  assert int(after.step) == 0


def test_sums_of_bfloat16_gradients_are_float32():
  """In bfloat16, 512 ones would sum to 256."""
  params = {"w": jnp.ones(3, jnp.bfloat16)}

  def part_loss(params, rows, key):
    return jnp.sum(params["w"]) * jnp.mean(rows.astype(jnp.float32)), jnp.ones(())

  tokens = jnp.ones((512, 5), jnp.int32)
  values, gradients = step._accumulate(
    part_loss, params, tokens, jax.random.key(0), 512
  )
  assert values == (3 * 512, 512)
  assert gradients["w"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(gradients["w"], 512)


def masked_batch(fraction=0.6):
  """A batch whose rows have very different numbers of targets."""
  tokens, random = batches(1)[0], np.random.default_rng(2)
  masked = random.random(tokens.shape) < fraction
  masked[:5] = True
  return np.where(masked, ~tokens, tokens)


def one_step(setup, now, tokens):
  """The metrics of a step, and the state behind it, on the host."""
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  now = jax.device_put(jax.tree.map(np.copy, now), places)
  now, metrics = compiled(setup)(now, sharding.put_batch(tokens, setup.mesh, 16))
  return jax.device_get(metrics), jax.device_get(now)


def test_the_mean_is_over_the_targets_of_the_whole_batch(tiny, initial):
  """The same in one part and in four, on one device and on eight."""
  tokens, options = masked_batch(), {"model": NO_DROPOUT, "optimizer": {"clip_norm": 9}}
  options["optimizer"]["warmup_steps"] = 0
  setup = tiny(mesh=(2, 2, 2), **options)

  def mean_loss(params):
    total, weight, _ = step.loss(setup.model, params, tokens, head_chunks=None)
    assert weight.shape == ()
    return total / (tokens[:, 1:] >= 0).sum()

  value, gradients = jax.jit(jax.value_and_grad(mean_loss))(initial.params)
  for changes in ({}, {"sequences_per_device": 1}):
    setup = tiny(mesh=(2, 2, 2), train=changes, **options)
    metrics, after = one_step(setup, initial, tokens)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    mean = after.optimizer[1][0].mu
    jax.tree.map(
      lambda got, want: np.testing.assert_allclose(got, 0.1 * want, atol=1e-7),
      mean,
      jax.device_get(gradients),
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_batch_without_target_only_counts(tiny, name):
  setup = tiny(mesh=(8, 1, 1), optimizer={"name": name, "warmup_steps": 0})
  _, before = one_step(setup, jax.device_get(start(setup)), batches(1)[0])
  metrics, after = one_step(setup, before, ~batches(1)[0])
  assert metrics["loss"] == metrics["grad_norm"] == 0
  assert int(after.step) == 2
  jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
  rates = [
    int(x.count)
    for x in jax.tree.leaves(
      after.optimizer, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState)
    )
    if isinstance(x, optax.ScaleByScheduleState)
  ]
  assert set(rates) == {2}


def test_z_loss_is_reported_beside_the_loss(tiny, initial):
  """At initialisation all logits are near 0, so that log(Z) is log(64)."""
  options = {"mesh": (8, 1, 1), "model": NO_DROPOUT}
  plain, _ = one_step(tiny(**options), initial, batches(1)[0])
  found, _ = one_step(tiny(train={"z_loss": 0.01}, **options), initial, batches(1)[0])
  np.testing.assert_allclose(found["loss"], plain["loss"], rtol=1e-6)
  assert found["z_loss"] == pytest.approx(0.01 * np.log(64) ** 2, rel=0.02)
  assert found["grad_norm"] != plain["grad_norm"]


def test_muon_on_eight_devices_is_muon_on_one(tiny):
  """Orthogonalisation is of whole matrices, although each device holds a part."""
  options = {"model": NO_DROPOUT, "optimizer": {"name": "muon", "warmup_steps": 0}}
  setup = tiny(mesh=(2, 2, 2), **options)
  kernel = setup.abstract_state.params["layers"]["mlp"]["up"]["kernel"]
  assert kernel.sharding.shard_shape(kernel.shape) == (2, 8, 16)
  first = jax.device_get(start(setup))
  rows, after = run(setup, first)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  with sharding.layout(mesh):
    abstract = state.abstract(setup.model, setup.optimizer, mesh)
  alone = dataclasses.replace(setup, mesh=mesh, abstract_state=abstract)
  expected, after_alone = run(alone, first)
  np.testing.assert_allclose(rows, expected, rtol=2e-4)
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=2e-4),
    *(jax.device_get(x.params) for x in (after, after_alone)),
  )


def test_a_skipped_step_counts_and_changes_nothing_else(tiny, initial):
  """The next update has the rate of its step, and resuming is exact."""
  setup = tiny(mesh=(8, 1, 1), train={"skip_nonfinite_steps": 1})
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  function = compiled(setup)

  def go_on(now, count):
    """Some steps from a state on the host, and their metrics."""
    now = jax.device_put(jax.tree.map(np.copy, now), places)
    rows = []
    for tokens in batches(5)[int(now.step) :][:count]:
      now, metrics = function(now, sharding.put_batch(tokens, setup.mesh, 16))
      rows.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(now), rows

  before, rows = go_on(initial, 2)
  assert [row["skipped"] for row in rows] == [0, 0]
  broken = jax.tree.map(np.copy, before)
  broken.params["final_norm"]["scale"][3] = np.nan
  after, (row,) = go_on(broken, 1)
  assert row["skipped"] == 1
  assert np.isnan(row["loss"])
  assert int(after.step) == 3
  (_, (adam_before, *_)), (_, (adam, _, schedule)) = before.optimizer, after.optimizer
  assert int(schedule.count) == 3
  for old, new in ((adam_before, adam), (broken.params, after.params)):
    jax.tree.map(np.testing.assert_array_equal, old, new)

  # The next batch is a good one.
  repaired = dataclasses.replace(after, params=before.params)
  fourth, (row,) = go_on(repaired, 1)
  assert row["learning_rate"] == pytest.approx(float(setup.schedule(3)))
  adam = fourth.optimizer[1][0]
  assert int(adam.count) == 3
  mean, square = (tree["final_norm"]["bias"] for tree in (adam.mu, adam.nu))
  update = mean / (1 - 0.9**3) / (np.sqrt(square / (1 - 0.95**3)) + 1e-8)
  bias = before.params["final_norm"]["bias"] - float(setup.schedule(3)) * update
  np.testing.assert_allclose(fourth.params["final_norm"]["bias"], bias, rtol=1e-5)

  at_once, _ = go_on(repaired, 2)
  jax.tree.map(np.testing.assert_array_equal, go_on(fourth, 1)[0], at_once)


def test_counts_updates_that_a_bfloat16_parameter_loses():
  """Also: between 1 and 2, half a step of 2^-7 or less changes nothing."""
  old = {
    "norm": {"scale": np.array([1.0, 1.0, 1.0, 1.0])},
    "mlp": {"kernel": np.array([0.01, 1.5, 1.5, -1.5])},
  }
  updates = {
    "norm": {"scale": np.array([0.0, 1e-3, -1e-3, 2**-7])},
    "mlp": {"kernel": np.array([1e-3, 1e-3, 0.0, -1e-2])},
  }
  old, updates = jax.tree.map(lambda x: jnp.asarray(x, "bfloat16"), (old, updates))

  def apply(old, updates):
    return step.vanished_updates(old, updates, optax.apply_updates(old, updates))

  assert float(jax.jit(apply)(old, updates)) == pytest.approx(3 / 6)
  assert float(jax.jit(apply)(old, jax.tree.map(jnp.zeros_like, updates))) == 0


def test_a_tpu_compares_what_it_stores():
  """XLA for TPUs adds in float32, and compares that sum unless it has to round."""
  pytest.importorskip("libtpu")
  device = topology.devices(topology.parse("v5e:2x2"))[0]
  place = jax.sharding.SingleDeviceSharding(device)
  tree = {"scale": jax.ShapeDtypeStruct((256,), "bfloat16", sharding=place)}

  def count(old, updates):
    new = optax.apply_updates(old, updates)
    return new, step.vanished_updates(old, updates, new)

  text = jax.jit(count).lower(tree, tree).compile().as_text()
  assert len(re.findall(r"u16\[256\]\S* bitcast-convert\(", text)) == 2
