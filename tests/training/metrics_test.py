import math
import types

import jax.numpy as jnp
import pytest

from phi1_jax.training.metrics import (
  NOTHING,
  DivergedError,
  MetricsReader,
  hbm_peak_gib,
)


class Rows(list):
  def write(self, step, values):
    self.append((step, dict(values)))


def metrics(loss=2.0, norm=0.5, **more):
  values = {"loss": loss, "grad_norm": norm, "learning_rate": 0.25, **more}
  return {name: jnp.float32(value) for name, value in values.items()}


@pytest.fixture
def make(tiny):
  """make(first, before) is a reader and its rows of (step, values)."""

  def make(first=0, before=NOTHING, **train):
    rows = Rows()
    return MetricsReader(tiny(train=train), rows, first=first, before=before), rows

  return make


def test_a_row_is_written_when_the_next_step_is_on_its_way(make):
  reader, rows = make()
  reader.follow(1, metrics())
  assert rows == []
  reader.follow(2, metrics())
  ((step, row),) = rows
  assert step == 1
  assert (row["loss"], row["grad_norm"], row["learning_rate"]) == (2.0, 0.5, 0.25)
  assert row["tokens_seen"] == 16 * 16
  assert row["mfu"] is None  # a CPU has no peak
  assert row["hbm_peak_gib"] is None  # and does not count its memory
  assert 8 * row["tokens_per_second_per_device"] == row["tokens_per_second"]
  assert row["tokens_per_second"] == pytest.approx(256 / row["step_seconds"])
  assert 0 <= row["input_wait_seconds"] <= row["step_seconds"]
  for _ in range(2):  # a pause reads first what is pending
    with reader.paused():
      assert [step for step, _ in rows] == [1, 2]


def test_tokens_go_on_counting(make):
  before = {"tokens_seen": 999, "samples_seen": 70, "skipped_steps": 1}
  reader, _ = make(4, before)
  assert reader.seen(4) == before
  more = {"tokens_seen": 999 + 2 * 256, "samples_seen": 70 + 2 * 16}
  assert reader.seen(6) == before | more


@pytest.mark.parametrize(
  ("loss", "norm"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)]
)
def test_what_is_not_finite_ends_the_run(make, loss, norm):
  reader, rows = make()
  reader.follow(6, metrics())
  reader.follow(7, metrics(loss, norm))
  with pytest.raises(DivergedError, match="at step 7: it broke between steps 6 and 7"):
    reader.follow(8, metrics())
  assert [step for step, _ in rows] == [6, 7]
  assert "tokens_seen" not in rows[-1][1]
  reader, _ = make()
  reader.follow(1, metrics(loss, norm))
  with pytest.raises(DivergedError), reader.paused():
    raise AssertionError("what diverged would be saved here")


def test_updates_that_are_not_finite_are_counted_up_to_a_limit(make):
  reader, rows = make(before=NOTHING | {"skipped_steps": 1}, skip_nonfinite_steps=2)
  for step, loss in enumerate([2.0, math.nan, 2.0, 2.0], 1):
    reader.follow(step, metrics(loss, skipped=0))
  assert [row["skipped_steps"] for _, row in rows] == [1, 2, 2]
  assert reader.seen(4)["skipped_steps"] == 2
  reader.follow(5, metrics(math.inf))
  with pytest.raises(DivergedError, match="at step 5"):
    reader.follow(6, metrics())


def test_updates_that_vanish_are_reported_once_after_the_warmup(make, caplog):
  reader, rows = make()  # a warmup of 2 steps
  for step in range(1, 7):
    reader.follow(step, metrics(vanished_updates=0.26))
  (said,) = (record.getMessage() for record in caplog.records)
  assert said.startswith("step 3: Model.param_dtype: 26% of the updates")
  assert rows[0][1]["vanished_updates"] == pytest.approx(0.26)


def test_a_batch_without_a_target_has_no_loss(make, caplog):
  reader, rows = make()
  reader.follow(1, metrics(0.0, targets=0))
  reader.follow(2, metrics(3.0, targets=5))
  assert rows[0][1]["loss"] is None
  assert "no token of the batch is a completion" in caplog.text


@pytest.mark.parametrize(
  ("peaks", "gib"),
  [((2**30, 3 * 2**30, 0), 3.0), ((None, 2**29), 0.5), ((None,), None)],
)
def test_peak_memory_is_that_of_the_fullest_device(peaks, gib):
  def device(peak):
    stats = None if peak is None else {"peak_bytes_in_use": peak, "bytes_in_use": 0}
    return types.SimpleNamespace(memory_stats=lambda: stats)

  mesh = types.SimpleNamespace(local_devices=[device(peak) for peak in peaks])
  assert hbm_peak_gib(mesh) == gib
