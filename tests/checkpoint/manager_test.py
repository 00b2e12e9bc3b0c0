"""Saving and restoring, fingerprints, damage, retention."""

import json
import logging
import shutil
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.checkpoint import Checkpoint, exists_in
from phi1_jax.checkpoint.fingerprint import fingerprints
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints

META = {
  "model_shape": {"num_layers": 2, "embed_dim": 8},
  "store": "s",
  "tokenizer": "t",
}


def state(number=0, devices=8):
  """A state that tells which step it is of, split over some of the devices."""
  mesh = jax.make_mesh((devices,), ("x",), devices=jax.devices()[:devices])
  split = NamedSharding(mesh, PartitionSpec("x"))
  whole = NamedSharding(mesh, PartitionSpec())
  values = np.random.default_rng(number).normal(size=(16, 64)).astype(np.float32)
  return {
    "params": {"kernel": jax.device_put(jnp.asarray(values), split)},
    "optimizer": {"mean": jax.device_put(jnp.asarray(-values, jnp.bfloat16), split)},
    "step": jax.device_put(jnp.asarray(number, jnp.int32), whole),
  }


def abstract(devices=8):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    state(devices=devices),
  )


def open_at(path, **config):
  return Checkpoints(path / "checkpoints", CheckpointConfig(**config))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A run with checkpoints of the steps 2, 4 and 6; copy it before you damage it."""
  path = tmp_path_factory.mktemp("run")
  checkpoints = open_at(path, keep_latest=3)
  for step in (2, 4, 6):
    checkpoints.save(step, state(step), META)
  checkpoints.close()
  return path


@pytest.fixture
def run(written, tmp_path):
  return shutil.copytree(written, tmp_path / "run")


def assert_is(tree, number):
  def check(got, expected):
    assert got.dtype == expected.dtype
    assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()

  jax.tree.map(check, tree, state(number))


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_exact_on_any_number_of_devices(written, devices):
  checkpoints = open_at(written)
  restored, found = checkpoints.restore_latest(abstract(devices), META)
  checkpoints.close()
  assert_is(restored, 6)
  assert len(restored["params"]["kernel"].sharding.device_set) == devices
  assert (found.meta["step"], found.meta["store"]) == (6, "s")


def arrays_file(folder):
  """The file that restoring reads the arrays' bytes from."""
  return max((folder / "state" / "d").iterdir(), key=lambda path: path.stat().st_size)


def flip_a_bit(folder):
  path = arrays_file(folder)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def truncate(folder):
  path = arrays_file(folder)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forge_a_fingerprint(folder):
  path = next(p for p in (folder / "meta").iterdir() if "params" in p.read_text())
  meta = json.loads(path.read_text())
  meta["fingerprints"]["params/kernel"] ^= 1
  path.write_text(json.dumps(meta))


DAMAGES = {
  "a flipped bit": flip_a_bit,
  "a cut file": truncate,
  "no file": lambda folder: arrays_file(folder).unlink(),
  "no meta": lambda folder: shutil.rmtree(folder / "meta"),
  "no state": lambda folder: shutil.rmtree(folder / "state"),
  "no JSON": lambda folder: next((folder / "meta").iterdir()).write_text("{"),
  "a forged fingerprint": forge_a_fingerprint,
  "another's JSON": lambda folder: (folder / "meta" / "metadata").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_skipped_by_name_and_saved_anew(run, damage, caplog):
  """Twice: the second is set aside beside the first."""
  steps, aside = run / "checkpoints", run / "checkpoints_damaged"
  for name in ("6", "6.1"):
    damage(steps / "6")
    with open_at(run, keep_latest=3) as checkpoints:
      with caplog.at_level(logging.WARNING, "phi1_jax"):
        restored, _ = checkpoints.restore_latest(abstract(), META)
      assert_is(restored, 4)
      assert f"skipping {steps / '6'}: damaged checkpoint" in caplog.text
      assert (aside / name).is_dir()
      assert not (steps / "6").exists()
      checkpoints.save(6, state(6), META)
      checkpoints.save(6, state(7), META)  # a step is saved once
      assert not checkpoints.failing(wait=True)
  with open_at(run) as again:
    assert_is(again.restore_latest(abstract(), META)[0], 6)


def test_all_damaged(run):
  for step in (2, 4, 6):
    flip_a_bit(run / "checkpoints" / str(step))
  with open_at(run) as checkpoints:
    with pytest.raises(InputError, match=r"all 3 checkpoints are damaged.*_damaged"):
      checkpoints.restore_latest(abstract(), META)
    assert checkpoints.restore_latest(abstract(), META) is None  # from scratch now


def in_bfloat16(tree):
  def change(x):
    dtype = "bfloat16" if x.dtype == "float32" else x.dtype
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)

  return jax.tree.map(change, tree)


@pytest.mark.parametrize(
  ("expected", "change", "named"),
  [
    ({"store": "other"}, None, "another store: got s, expected other"),
    ({"tokenizer": "other"}, None, "another tokenizer: got t, expected other"),
    (
      {"model_shape": {"num_layers": 3, "embed_dim": 8}},
      None,
      "another model_shape: got num_layers=2, expected num_layers=3",
    ),
    ({}, in_bfloat16, r"saved as float32.*this run has bfloat16"),
    ({}, lambda tree: {**tree, "bias": tree["step"]}, "no array bias"),
  ],
)
def test_a_whole_checkpoint_of_something_else_is_refused(run, expected, change, named):
  """It stays where it is."""
  before = sorted(path.name for path in run.iterdir())
  wanted = (change or (lambda tree: tree))(abstract())
  with open_at(run) as checkpoints:
    with pytest.raises(InputError, match=named):
      checkpoints.restore_latest(wanted, META | expected)
    assert sorted(path.name for path in run.iterdir()) == before
    assert_is(checkpoints.restore_latest(abstract(), META)[0], 6)


def test_only_the_parameters(written):
  part = {"params": abstract(2)["params"]}
  restored = Checkpoint(written / "checkpoints" / "4").restore(part, META)
  assert_is({**state(4), **restored}, 4)
  assert list(restored) == ["params"]


def test_what_was_killed_in_the_middle_of_a_save(run):
  """Half-written folders are no checkpoints, do not stop the next save, and go.

  A preemption saves at any step, which may never come again.
  """
  for name in ("7.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp"):
    left = run / "checkpoints" / name
    shutil.copytree(run / "checkpoints" / "6", left)
    shutil.rmtree(left / "state")
  checkpoints = open_at(run, keep_latest=3)
  restored, _ = checkpoints.restore_latest(abstract(), META)
  assert_is(restored, 6)
  checkpoints.save(8, state(8), META)
  checkpoints.close()
  names = sorted(path.name for path in (run / "checkpoints").iterdir())
  assert names == ["4", "6", "8"]


@pytest.mark.parametrize(
  ("config", "kept"),
  [
    ({"keep_latest": 2}, [8, 10]),
    ({"keep_latest": 1, "keep_every": 4}, [4, 8, 10]),
    ({"keep_latest": 1, "keep_every": 4, "asynchronous": False}, [4, 8, 10]),
  ],
)
def test_retention(tmp_path, config, kept):
  checkpoints = open_at(tmp_path, **config)
  for step in (2, 4, 6, 8, 10):
    checkpoints.save(step, state(step), META)
  checkpoints.close()
  steps = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert steps == kept


@pytest.mark.parametrize(
  ("keep_best", "kept"), [(None, {8}), (1, {4, 8}), (2, {4, 6, 8}), (9, {2, 4, 6, 8})]
)
def test_the_lowest_losses_stay_where_keep_best_is_set(tmp_path, keep_best, kept):
  with open_at(tmp_path, keep_latest=1, keep_best=keep_best) as checkpoints:
    checkpoints.losses = {2: 3.0, 4: 1.0, 6: 2.0, 10: 0.5}  # step 10 has no checkpoint
    assert checkpoints.kept([2, 4, 6, 8]) == kept


def test_find(run):
  steps = run / "checkpoints"
  for path in (run, steps, steps / "6"):
    assert Checkpoint.find(str(path)).path == steps / "6"
  assert Checkpoint.find(str(steps / "2")).path == steps / "2"
  assert exists_in(run)
  assert not exists_in(run / "nope")
  for path in (run.parent, run / "nope", steps / "6" / "meta"):
    with pytest.raises(InputError, match="no checkpoint here"):
      Checkpoint.find(str(path))


def test_a_save_to_the_cloud_that_was_killed_is_no_checkpoint(gcs):
  run = storage.parse(f"{gcs.folder}/run")
  assert not exists_in(run)
  for step, name in ((4, "commit_success.txt"), (6, "meta/metadata")):
    storage.write_text(run / "checkpoints" / str(step) / name, "")
  assert Checkpoint.find(run).path.name == "4"


def test_a_lack_of_memory_is_no_damage(written, monkeypatch):
  lack = Mock(side_effect=ValueError("RESOURCE_EXHAUSTED: out of memory"))
  monkeypatch.setattr(Checkpoint, "_read", lack)
  with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED") as error:
    Checkpoint(written / "checkpoints" / "6").restore(abstract(), META)
  assert not isinstance(error.value, InputError)


def one(x):
  return fingerprints({"x": x})["x"]


def test_by_hand():
  """Sum of bits x (2 place + 1), modulo 2**32."""
  x = np.array([[1, 2], [3, 2**31]], np.uint32)
  assert one(jnp.asarray(x)) == (1 * 1 + 2 * 3 + 3 * 5 + 2**31 * 7) % 2**32
  assert one(jnp.asarray(5, jnp.int32)) == 5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8"])
@pytest.mark.parametrize("shape", [(16, 8), (4, 8, 12)])
def test_the_same_under_every_sharding(dtype, shape):
  """Arrays of three dims go layer by layer; the number is that of the flat array."""
  mesh = jax.make_mesh((4, 2), ("a", "b"))
  x = jnp.asarray(np.random.default_rng(0).integers(0, 200, shape), dtype)
  specs = [(), ("a",), (None, "b"), ("b", "a"), (("a", "b"),) * (len(shape) == 2)]
  specs += [("b", None, "a"), (None, "a", "b")] * (len(shape) == 3)
  places = [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs]
  assert {one(jax.device_put(x, place)) for place in places} == {one(x.reshape(-1))}


def test_every_flipped_bit_and_a_swap_show():
  x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  others = [x[:, [1, 0, 2, 3, 4]], x[[1, 0, 2]], np.roll(x, 1), x.T]
  for place in range(x.size):
    for bit in (0, 13, 31):
      others.append(x.copy())
      others[-1].reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
  assert one(jnp.asarray(x)) not in [one(jnp.asarray(other)) for other in others]
