"""What a run is set up from: batches, the first state, memory, signals."""

import dataclasses
import os
import signal
import types
from contextlib import nullcontext

import jax
import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.parallel import sharding
from phi1_jax.training import memory, state
from phi1_jax.training.config import RuntimeConfig, TrainConfig
from phi1_jax.training.memory import GIB
from phi1_jax.training.preemption import StopSignal

CONFIG = TrainConfig(100, 24, 16)


@pytest.mark.parametrize(
  ("changes", "shards", "parts"),
  [
    ({}, 8, 1),
    ({"sequences_per_device": 3}, 8, 1),
    ({"sequences_per_device": 1}, 8, 3),
    ({"sequences_per_device": 4}, 2, 3),
    ({"sequences_per_device": 99}, 2, 1),  # more than its share
  ],
)
def test_accumulation_steps(changes, shards, parts):
  assert dataclasses.replace(CONFIG, **changes).accumulation_steps(shards) == parts


@pytest.mark.parametrize(
  ("changes", "shards", "named"),
  [
    ({}, 16, r"Train\.batch_size: got 24, expected a multiple of the 16 devices"),
    ({"sequences_per_device": 2}, 8, r"sequences_per_device: got 2, .* divisor of 3"),
  ],
)
def test_accumulation_that_does_not_divide(changes, shards, named):
  with pytest.raises(InputError, match=named):
    dataclasses.replace(CONFIG, **changes).accumulation_steps(shards)


def test_steps_of_a_profile_that_is_not_taken():
  assert RuntimeConfig(profile_at=3, profile_steps=9).profile_steps == 9
  with pytest.raises(InputError, match=r"no effect without Runtime\.profile_at"):
    RuntimeConfig(profile_steps=9)


@pytest.fixture(scope="module")
def setup(tiny):
  return tiny(mesh=(1, 8, 1))


@pytest.fixture(scope="module")
def initial(setup):
  return setup.initial_state()


def test_a_device_holds_an_eighth_of_everything_split(setup, initial):
  split = 0
  for leaf, shape in zip(
    jax.tree.leaves(initial), jax.tree.leaves(setup.abstract_state), strict=True
  ):
    assert leaf.sharding == shape.sharding
    parts = 8 if "fsdp" in jax.tree.leaves(tuple(leaf.sharding.spec)) else 1
    split += parts == 8
    assert {s.data.size for s in leaf.addressable_shards} == {leaf.size // parts}
  held = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(initial)]
  assert state.bytes_per_device(setup.abstract_state) == sum(held)
  # Embedding, q k v, out and its bias, up, down and its bias, head; and two moments.
  assert split >= 3 * 6


def test_making_it_takes_no_more_than_an_eighth(setup):
  """Neither the outputs nor what the compiler keeps is as large as the tree."""
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  with sharding.layout(setup.mesh):
    make = jax.jit(
      lambda key: sharding.unbox(state.init(setup.model, setup.optimizer, key)),
      out_shardings=places,
    )
    memory = make.lower(jax.random.key(0)).compile().memory_analysis()
  whole = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(setup.abstract_state)
  )
  assert memory.output_size_in_bytes < whole / 4
  assert memory.temp_size_in_bytes < whole / 4


def test_the_seed_decides_and_the_mesh_does_not(tiny, initial):
  same, different = (
    tiny(mesh=(2, 2, 2), train={"seed": seed}).initial_state() for seed in (0, 1)
  )
  embedding = np.asarray(initial.params["embedding"]["embedding"])
  np.testing.assert_array_equal(same.params["embedding"]["embedding"], embedding)
  assert not np.array_equal(different.params["embedding"]["embedding"], embedding)
  assert embedding.std() == pytest.approx(0.02, rel=0.1)


def compiled(temporary):
  """What a compiled step tells of its memory."""
  analysis = types.SimpleNamespace(temp_size_in_bytes=temporary)
  return types.SimpleNamespace(memory_analysis=lambda: analysis)


def test_a_step_is_state_batch_and_temporary(tiny, monkeypatch):
  """What does not fit is refused with its sizes."""
  setup = tiny(mesh=(2, 4, 1))
  need = memory.step_memory(compiled(2 * GIB), setup)
  parameters = setup.config.model.num_parameters()
  assert 3 * 4 * parameters / 4 < need[0] < 3 * 4 * parameters / 2
  assert (need[1], memory.step_memory(None, setup)[1]) == (2 * GIB, 0)
  assert memory.device_memory() == memory.host_memory() // 8  # devices share the host
  refusal = "state 0.0 GiB . temporary 5.0 GiB exceed its 3.0 GiB"
  for temporary, have, message in (
    (2 * GIB, 3 * GIB, None),
    (5 * GIB, 3 * GIB, f"{parameters:,} parameters are .*{refusal}"),
    (None, 1000, "too large for one cpu device"),  # before anything is compiled
    (10**6 * GIB, None, None),  # nobody knows
  ):
    monkeypatch.setattr(memory, "device_memory", lambda have=have: have)
    refused = pytest.raises(InputError, match=message) if message else nullcontext()
    with refused:
      memory.check_fits(temporary and compiled(temporary), setup)


@pytest.mark.parametrize(
  ("text", "error"),
  [
    ("RESOURCE_EXHAUSTED: 20.00G of 15.75G hbm\nlong", InputError),
    ("INTERNAL: something", jax.errors.JaxRuntimeError),
  ],
)
def test_the_compiler_says_no(tiny, text, error):
  class Step:
    def lower(self, *_):
      raise jax.errors.JaxRuntimeError(text)

  with pytest.raises(error) as raised:
    memory.compile_step(Step(), tiny())
  if error is InputError:
    assert str(raised.value).endswith(
      "device: RESOURCE_EXHAUSTED: 20.00G of 15.75G hbm"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_acts(number):
  heard = []

  def handler(*_):
    heard.append("before")

  before = signal.signal(number, handler)
  try:
    with StopSignal() as stop:
      assert not stop.requested()
      os.kill(os.getpid(), number)
      assert stop.requested()
      assert heard == []
      os.kill(os.getpid(), number)
      assert heard == ["before"]
    with StopSignal():
      assert signal.getsignal(number) is not handler
    assert signal.getsignal(number) is handler
  finally:
    signal.signal(number, before)
