import contextlib
import dataclasses
import errno
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from phi1_jax import InputError, storage
from phi1_jax.checkpoint import manager
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.data.loader import ORDER, held_out_batches
from phi1_jax.parallel.mesh import MeshConfig
from phi1_jax.telemetry import goodput
from phi1_jax.telemetry.throughput import FIGURES
from phi1_jax.telemetry.writers import read_metrics
from phi1_jax.training import hooks, loop, preflight
from phi1_jax.training import step as train_step
from phi1_jax.training import store as stores
from phi1_jax.training.metrics import NOTHING, DivergedError
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.setup import make_setup

EVALUATES = {"evaluate_every": 4}


@pytest.fixture(scope="module")
def train(run, store):
  """Trains with the hooks of the command, and others."""

  def train(setup, stop_after=None, more_hooks=()):
    every = [hooks.held_out_loss(setup, store), hooks.profile(setup), *more_hooks]
    return run(setup, every, stop_after)

  return train


@pytest.fixture(scope="module")
def undisturbed(tiny, train):
  """A run of 12 steps; its work directory."""
  setup = tiny(train=EVALUATES)
  assert train(setup)
  return setup.workdir


def rows(workdir):
  """(step, what) -> row, without times; fails if a row is there twice."""
  found = {}
  for row in read_metrics(workdir / "metrics.jsonl"):
    key = row["step"], "evaluation" if "eval/loss" in row else "training"
    assert key not in found
    found[key] = {name: x for name, x in row.items() if name not in FIGURES}
  return found


def saved(setup):
  """The steps with a checkpoint."""
  return sorted(int(path.name) for path in (setup.workdir / "checkpoints").iterdir())


def test_rows_of_a_run(tiny, undisturbed, train):
  found = rows(undisturbed)
  training = {(step, "training") for step in range(1, 13)}
  assert set(found) == training | {(step, "evaluation") for step in (4, 8, 12)}
  assert [found[step, "training"]["tokens_seen"] for step in (1, 12)] == [256, 3072]
  first, last = (found[step, "evaluation"]["eval/loss"] for step in (4, 12))
  assert last < first < np.log(64) + 0.1
  names = {"eval/loss", "eval/code_loss", "eval/text_loss", "eval/bits_per_byte"}
  assert names <= found[12, "evaluation"].keys()
  # A finished run is left as it is; one past its end is refused.
  assert train(tiny(undisturbed, train=EVALUATES))
  starts = (undisturbed / goodput.FILE_NAME).read_text()
  with pytest.raises(InputError, match="at step 12 already, expected at most 5"):
    train(tiny(undisturbed, train={**EVALUATES, "stop_at_step": 5}))
  assert (undisturbed / goodput.FILE_NAME).read_text() == starts
  assert rows(undisturbed) == found


@pytest.mark.parametrize("after", [3, 8])
def test_a_stopped_run_goes_on_bit_by_bit(tiny, undisturbed, after, train):
  setup = tiny(train=EVALUATES)
  assert not train(setup, stop_after=after)
  assert after in saved(setup)
  assert max(step for step, _ in rows(setup.workdir)) == after
  assert train(setup)
  assert rows(setup.workdir) == rows(undisturbed)


def test_it_goes_on_on_another_mesh(tiny, undisturbed, train):
  """The same data, dropout and parameters: the same losses up to rounding."""
  setup = tiny(train=EVALUATES)
  train(setup, stop_after=8)
  train(tiny(setup.workdir, mesh=(2, 2, 2), train=EVALUATES))
  found, expected = rows(setup.workdir), rows(undisturbed)
  assert found.keys() == expected.keys()
  for key in [(step, "training") for step in range(9, 13)]:
    assert found[key]["loss"] == pytest.approx(expected[key]["loss"], rel=1e-4)


def test_resume_from_and_init_from(tiny, store, undisturbed, train):
  start = {"resume_from": str(undisturbed / "checkpoints/8")}
  resumed = tiny(train=EVALUATES, checkpoint=start)
  train(resumed)
  found, expected = (
    {key: row for key, row in rows(run).items() if key[0] > 8}
    for run in (resumed.workdir, undisturbed)
  )
  assert found == expected
  setup = tiny(checkpoint={"init_from": str(undisturbed)})
  with loop.Checkpoints(setup.workdir / "checkpoints", setup.config.checkpoint) as kept:
    begun, seen = loop.restore_or_initialise(setup, store, kept)
    last = undisturbed / "checkpoints/12"
    final = Checkpoint(last).restore(setup.abstract_state, {})
    assert (int(begun.step), seen) == (0, NOTHING)
    jax.tree.map(np.testing.assert_array_equal, begun.params, final.params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(begun.optimizer))
    # Its own checkpoint comes before either.
    counts = {"tokens_seen": 512, "samples_seen": 32, "skipped_steps": 1}
    meta = {**loop._belongings(setup, store), "order": ORDER, **counts}
    now = begun.replace(step=begun.step + 2)
    kept.save(2, now, meta)
    kept.finish(2, now, meta)
    own, seen = loop.restore_or_initialise(setup, store, kept)
  assert (int(own.step), seen) == (2, counts)


@pytest.mark.parametrize(
  ("name", "changes", "said"),
  [
    ("init_from", {}, [1, 1, 0]),
    ("resume_from", {"optimizer": {"beta2": 0.9}}, [1, 1, 1]),
  ],
)
def test_differences_from_a_checkpoint_are_logged(
  tiny, store, undisturbed, caplog, name, changes, said
):
  model = {"layer_norm_epsilon": 1e-6, "dropout_rate": 0.0}
  setup = tiny(checkpoint={name: str(undisturbed)}, model=model, **changes)
  with loop.Checkpoints(setup.workdir / "c", setup.config.checkpoint) as checkpoints:
    loop.restore_or_initialise(setup, store, checkpoints)
  lines = [record.getMessage() for record in caplog.records]
  names = ("layer_norm_epsilon", "dropout_rate", "Optimizer.beta2")
  assert [sum(name in line for line in lines) for name in names] == said


def test_another_order_of_windows_or_another_model_is_refused(
  tiny, store, undisturbed, monkeypatch, described, tmp_path
):
  """Checkpoints of earlier versions do not say their order, which was another."""

  def seen(**meta):
    return loop._seen(described(tmp_path / "3", meta), tiny())["samples_seen"]

  with pytest.raises(InputError, match=r"order 1 .*--gin\.Checkpoint\.init_from="):
    seen(step=3, samples_seen=24)
  assert seen(step=3, samples_seen=24, order=ORDER) == 24
  assert seen(step=0, samples_seen=0) == 0
  setup = tiny(checkpoint={"init_from": str(undisturbed)}, model={"mlp_dim": 24})
  with pytest.raises(InputError, match="another model_shape: got mlp_dim"):
    preflight.check_start(setup)  # before anything is built
  setup = tiny(checkpoint={"init_from": str(undisturbed)})
  monkeypatch.setitem(store.manifest["tokenizer"], "digest", "another")
  with (
    loop.Checkpoints(setup.workdir / "checkpoints", setup.config.checkpoint) as kept,
    pytest.raises(InputError, match="another tokenizer"),
  ):
    loop.restore_or_initialise(setup, store, kept)


def test_a_run_that_diverges_saves_nothing_more(tiny, train):
  setup = tiny(checkpoint={"every": 1, "keep_latest": 9})

  def spoil(step, now):
    now.params["final_norm"]["scale"] = now.params["final_norm"]["scale"] * np.nan
    return ()

  with pytest.raises(DivergedError, match="between steps 3 and 4"):
    train(setup, more_hooks=[hooks.Hook(spoil, steps=(3,))])
  assert saved(setup) == [1, 2, 3]
  last = json.loads((setup.workdir / "metrics.jsonl").read_text().splitlines()[-1])
  assert (last["step"], last["loss"], last["grad_norm"]) == (4, None, None)


@pytest.mark.parametrize("step", [4, 6])  # one is saved in any case
def test_a_hook_that_fails_costs_nothing_that_was_trained(tiny, train, step):
  setup = tiny(checkpoint={"every": 4, "keep_latest": 9})

  def fail(step, now):
    raise InputError("no benchmark there")

  with pytest.raises(InputError, match="no benchmark"):
    train(setup, more_hooks=[hooks.Hook(fail, steps=(step,))])
  assert saved(setup)[-1] == step


def test_held_out_loss_is_the_mean_over_the_store(tiny, store, monkeypatch):
  """Also: fused attention is cut over the devices only in the mesh's layout."""
  setup, layouts, loss = tiny(train={"sequences_per_device": 1}), set(), train_step.loss

  def spied(*arguments, **named):
    layouts.add(jax.sharding.get_abstract_mesh().shape_tuple)
    return loss(*arguments, **named)

  monkeypatch.setattr(train_step, "loss", spied)
  begun = setup.initial_state()
  values = dict(hooks.held_out_loss(setup, store).run(0, begun))  # batches of 8
  assert layouts == {tuple(setup.mesh.shape.items())}
  losses, weights, num_bytes = {}, {}, 0.0
  for task in store.tasks:
    windows = held_out_batches(store, task, batch_size=64, sequence_length=16)
    tokens, weights_BT = next(windows)
    logits = jax.jit(setup.model.apply)({"params": begun.params}, tokens[:, :-1])
    logits = np.asarray(logits, np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    picked = np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    losses[task] = ((log_z - picked) * weights_BT).sum()
    weights[task] = len(store.stream(task, "held_out")) - 1
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
  assert dict(hooks.held_out_loss(tiny(), store).run(0, None)) == {}
  assert "no held-out target" in caplog.text


@pytest.mark.parametrize(
  ("mesh", "at_once"), [((1, 1, 1), 1), ((2, 2, 1), 2), ((1, 4, 2), None)]
)
def test_held_out_loss_does_not_depend_on_the_devices(tiny, store, mesh, at_once):
  """Neither their number nor how much one holds decides which windows are read."""

  def loss(mesh, at_once):
    train = {"sequences_per_device": at_once, "evaluation_batches": 1}
    config = dataclasses.replace(tiny(train=train).config, mesh=MeshConfig(*mesh))
    setup = make_setup(config, Path(), jax.devices()[: int(np.prod(mesh))])
    return dict(hooks.held_out_loss(setup, store).run(0, setup.initial_state()))[
      "eval/loss"
    ]

  assert loss(mesh, at_once) == pytest.approx(loss((1, 8, 1), 1), rel=1e-6)


@pytest.mark.parametrize(
  ("changes", "windows"),
  [
    # After 4 steps of 16 windows of 16 tokens, window 64 is next, or as many tokens.
    ([{}, {"batch_size": 8}, {}], [(0, 16), (64, 8), (64 + 3 * 8, 16)]),
    ([{}, {"sequence_length": 8}], [(0, 16), (2 * 64, 16)]),
  ],
)
def test_another_batch_goes_on_with_the_next_window(
  tiny, monkeypatch, train, changes, windows
):
  read, made, seen = [], stores.train_batches, 0

  def spied(store, **named):
    read.append((named["start"], named["batch_size"]))
    return made(store, **named)

  monkeypatch.setattr(stores, "train_batches", spied)
  workdir = None
  for steps, change in zip((4, 3, 2), changes, strict=False):
    setup = tiny(workdir, train=change)
    workdir = setup.workdir
    train(setup, stop_after=steps)
    seen += steps * setup.config.train.tokens_per_step
  assert read == windows
  meta = Checkpoint.find(str(workdir)).meta
  assert meta["tokens_seen"] == seen
  assert meta["samples_seen"] * setup.config.train.sequence_length == seen


@pytest.mark.parametrize(("last", "stay"), [(6.0, [4, 6, 12]), (0.5, [4, 12])])
def test_the_best_checkpoints_stay(tiny, last, stay, run):
  """The best two and the newest stay; the last evaluation counts, too."""
  losses = dict(zip(range(2, 14, 2), (3.0, 1.0, 2.0, 4.0, 5.0, last), strict=True))
  kept = {"every": 2, "keep_latest": 1, "keep_best": 2}
  setup = tiny(checkpoint=kept, train={"evaluate_every": 2})
  judge = hooks.Hook(lambda n, _: [("eval/loss", losses[n])], every=2)

  # A start in between must know the losses of the one before.
  assert not run(setup, [judge], stop_after=9)
  assert run(setup, [judge])
  assert saved(setup) == stay
  with pytest.raises(InputError, match="keep_best"):
    tiny(checkpoint=kept, train={"evaluate_every": 3})


def test_a_save_every_so_many_minutes(tiny, train):
  setup = tiny(checkpoint={"every": 1000, "every_minutes": 1e-9, "keep_latest": 99})
  assert train(setup)
  assert {1, 2, 11, 12} <= set(saved(setup))
  config = dataclasses.replace(setup.config.checkpoint, every_minutes=2.0)
  with loop.Checkpoints(setup.workdir / "others", config) as kept:
    for seconds, overdue in ((115, False), (10, True)):
      kept._saved_at -= seconds
      assert kept.overdue() == overdue
    kept.save(1, setup.initial_state(), {})
    assert not kept.overdue()


@pytest.mark.parametrize("where", ["evaluation", "hook"])
def test_a_signal_ends_an_evaluation_and_saves_at_once(tiny, store, where, run):
  """The signal comes in the second batch; nothing is evaluated after it."""
  setup, batches = tiny(train={**EVALUATES, "sequences_per_device": 1}), []

  def slow(step, now):
    for number in range(1000):
      batches.append(number)
      with contextlib.suppress(Exception):  # a hook that handles its errors
        if number == 1:
          os.kill(os.getpid(), signal.SIGTERM)
    yield "eval/x", 1.0

  def requested():
    batches.append(0)
    return len(batches) >= 2

  judge = hooks.Hook(slow, every=6)
  if where == "evaluation":
    asking = dataclasses.replace(setup, stop_requested=requested)
    judge = dataclasses.replace(hooks.held_out_loss(asking, store), every=6)
  with StopSignal() as stop:
    assert not run(setup, [judge], stop=stop)
  assert len(batches) == 2
  assert 6 in saved(setup)
  found = rows(setup.workdir)
  assert (6, "training") in found
  assert not [row for row in found.values() if "eval/x" in row or "eval/loss" in row]


@pytest.mark.parametrize(
  ("failures", "stay"), [({2}, [4, 9, 12]), ({2, 3}, [4]), ({3}, [4, 8, 12])]
)
def test_a_save_that_fails_is_repeated_once(
  tiny, monkeypatch, train, failures, stay, caplog
):
  """Saves are those of 4, 8 and 12, the last; that of 8 is repeated at 9."""
  calls, save = [], manager.ocp.CheckpointManager.save

  def failing(manager, step, **named):
    calls.append(step)
    if len(calls) in failures:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return save(manager, step, **named)

  monkeypatch.setattr(manager.ocp.CheckpointManager, "save", failing)
  setup = tiny(checkpoint={"every": 4, "keep_latest": 9})
  if len(failures) == 1:
    assert train(setup)
  else:
    with pytest.raises(storage.StorageError, match="No space left"):
      train(setup)
    assert max(step for step, _ in rows(setup.workdir)) == 9
  assert "could not be saved (No space left on device); saving again" in caplog.text
  assert saved(setup) == stay
