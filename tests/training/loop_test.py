import json
import logging

import jax
import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.data.loader import held_out_batches
from phi1_jax.parallel import sharding
from phi1_jax.telemetry.throughput import FIGURES
from phi1_jax.telemetry.writers import read_metrics
from phi1_jax.training import hooks, loop, state
from phi1_jax.training import step as train_step
from phi1_jax.training.metrics import DivergedError


class Stop:
  """Asks to stop after a step; None never."""

  def __init__(self, after=None):
    self.after = after

  def requested(self, step):
    return step == self.after


class Silent:
  def skip(self, count):
    self.skipped = count

  def update(self, count):
    pass

  def write(self, line):
    pass


def train(setup, store, stop_after=None, more_hooks=()):
  every = [hooks.held_out_loss(setup, store), hooks.profile(setup), *more_hooks]
  return loop.train(setup, store, every, Stop(stop_after), Silent())


EVALUATES = {"evaluate_every": 4}


@pytest.fixture(scope="module")
def undisturbed(tiny, store):
  """A run of 12 steps; its work directory."""
  setup = tiny(train=EVALUATES)
  assert train(setup, store)
  return setup.workdir


def rows(workdir):
  """(step, what) -> row, without times; fails if a row is there twice."""
  found = {}
  for row in read_metrics(workdir / "metrics.jsonl"):
    key = row["step"], "evaluation" if "eval/loss" in row else "training"
    assert key not in found
    found[key] = {name: x for name, x in row.items() if name not in FIGURES}
  return found


def test_rows_of_a_run(undisturbed):
  found = rows(undisturbed)
  training = {(step, "training") for step in range(1, 13)}
  assert set(found) == training | {(step, "evaluation") for step in (4, 8, 12)}
  assert [found[step, "training"]["tokens_seen"] for step in (1, 12)] == [256, 3072]
  first, last = (found[step, "evaluation"]["eval/loss"] for step in (4, 12))
  assert last < first < np.log(64) + 0.1
  names = {"eval/loss", "eval/code_loss", "eval/text_loss", "eval/bits_per_byte"}
  assert names <= found[12, "evaluation"].keys()


@pytest.mark.parametrize("after", [3, 8])
def test_a_stopped_run_goes_on_bit_by_bit(tiny, store, undisturbed, after):
  setup = tiny(train=EVALUATES)
  assert not train(setup, store, stop_after=after)
  assert (setup.workdir / "checkpoints" / str(after)).is_dir()
  assert max(step for step, _ in rows(setup.workdir)) == after
  assert train(setup, store)
  assert rows(setup.workdir) == rows(undisturbed)


def test_a_finished_run_is_left_as_it_is(tiny, store, undisturbed):
  before = rows(undisturbed)
  assert train(tiny(undisturbed, train=EVALUATES), store)
  assert rows(undisturbed) == before


def test_a_run_past_its_end(tiny, store, undisturbed):
  setup = tiny(undisturbed, train={**EVALUATES, "stop_at_step": 5})
  with pytest.raises(InputError, match="at step 12 already, expected at most 5"):
    train(setup, store)


def test_it_goes_on_on_another_mesh(tiny, store, undisturbed):
  """The same data, dropout and parameters: the same losses up to rounding."""
  setup = tiny(train=EVALUATES)
  train(setup, store, stop_after=8)
  train(tiny(setup.workdir, mesh=(2, 2, 2), train=EVALUATES), store)
  found, expected = rows(setup.workdir), rows(undisturbed)
  assert found.keys() == expected.keys()
  for key in [(step, "training") for step in range(9, 13)]:
    assert found[key]["loss"] == pytest.approx(expected[key]["loss"], rel=1e-4)


def test_resume_from_and_init_from(tiny, store, undisturbed):
  resumed = tiny(
    train=EVALUATES, checkpoint={"resume_from": str(undisturbed / "checkpoints/8")}
  )
  train(resumed, store)
  expected = {k: row for k, row in rows(undisturbed).items() if k[0] > 8}
  assert {k: row for k, row in rows(resumed.workdir).items() if k[0] > 8} == expected
  setup = tiny(checkpoint={"init_from": str(undisturbed)})
  checkpoints = loop.Checkpoints(setup.workdir / "checkpoints", setup.config.checkpoint)
  begun, tokens = loop.restore_or_initialise(setup, store, checkpoints)
  final, _ = loop.manager.restore(
    undisturbed / "checkpoints/12", setup.abstract_state, {}
  )
  assert (int(begun.step), tokens) == (0, 0)
  for got, want in zip(
    jax.tree.leaves(begun.params), jax.tree.leaves(final.params), strict=True
  ):
    np.testing.assert_array_equal(got, want)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(begun.optimizer))
  # Its own checkpoint comes before either.
  checkpoints.save(2, begun.replace(step=begun.step + 2), loop._meta(setup, store, 512))
  checkpoints.wait()
  own, tokens = loop.restore_or_initialise(setup, store, checkpoints)
  checkpoints.close()
  assert (int(own.step), tokens) == (2, 512)


def test_a_run_that_diverges_saves_nothing_more(tiny, store):
  setup = tiny(checkpoint={"every": 1, "keep_latest": 9})

  def spoil(step, now):
    now.params["final_norm"]["scale"] = now.params["final_norm"]["scale"] * np.nan
    return ()

  hook = hooks.Hook("spoil", spoil, steps=(3,))
  with pytest.raises(DivergedError, match="between steps 3 and 4"):
    train(setup, store, more_hooks=[hook])
  kept = sorted(int(p.name) for p in (setup.workdir / "checkpoints").iterdir())
  assert kept == [1, 2, 3]
  last = json.loads((setup.workdir / "metrics.jsonl").read_text().splitlines()[-1])
  assert (last["step"], last["loss"], last["grad_norm"]) == (4, None, None)


def test_a_hook_that_fails_costs_nothing_that_was_trained(tiny, store):
  setup = tiny(checkpoint={"every": 4, "keep_latest": 9})

  def fail(step, now):
    raise InputError("no benchmark there")

  with pytest.raises(InputError, match="no benchmark"):
    train(setup, store, more_hooks=[hooks.Hook("fail", fail, steps=(4,))])
  assert [p.name for p in (setup.workdir / "checkpoints").iterdir()] == ["4"]


def test_held_out_loss_is_laid_out_as_the_mesh_says(tiny, store, monkeypatch):
  """Fused attention is cut over the devices only within the layout it is traced in."""
  setup, seen, loss = tiny(train={"sequences_per_device": 1}), [], train_step.loss

  def spied(*arguments, **named):
    seen.append(jax.sharding.get_abstract_mesh().shape_tuple)
    return loss(*arguments, **named)

  monkeypatch.setattr(train_step, "loss", spied)
  with sharding.layout(setup.mesh):
    begun = state.initialise(setup.model, setup.optimizer, setup.mesh, 0)
  assert dict(hooks.held_out_loss(setup, store).run(0, begun))
  assert set(seen) == {tuple(setup.mesh.shape.items())}


def test_held_out_loss_is_the_mean_over_the_store(tiny, store):
  setup = tiny(train={"sequences_per_device": 1})  # batches of 8
  with sharding.layout(setup.mesh):
    begun = state.initialise(setup.model, setup.optimizer, setup.mesh, 0)
  values = dict(hooks.held_out_loss(setup, store).run(0, begun))
  losses, weights, num_bytes = {}, {}, 0.0
  for task in store.tasks:
    stream = store.stream(task, "held_out")
    tokens, weights_BT = next(
      held_out_batches(store, task, batch_size=64, sequence_length=16)
    )
    logits = jax.jit(setup.model.apply)({"params": begun.params}, tokens[:, :-1])
    logits = np.asarray(logits, np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    picked = np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    losses[task] = ((log_z - picked) * weights_BT).sum()
    weights[task] = len(stream) - 1
    assert weights_BT.sum() == weights[task]
    num_bytes += weights[task] * store.bytes_per_token(task, "held_out")
    expected = losses[task] / weights[task]
    assert values[f"eval/{task}_loss"] == pytest.approx(expected, rel=1e-5)
  total = sum(losses.values())
  assert values["eval/loss"] == pytest.approx(total / sum(weights.values()), rel=1e-5)
  bits = total / num_bytes / np.log(2)
  assert values["eval/bits_per_byte"] == pytest.approx(bits, rel=1e-5)


def test_nothing_held_out(tiny, store, caplog, monkeypatch):
  monkeypatch.setattr(type(store), "stream", lambda *_: ())
  setup = tiny()
  with caplog.at_level(logging.WARNING):
    assert dict(hooks.held_out_loss(setup, store).run(0, None)) == {}
  assert "no held-out text" in caplog.text
