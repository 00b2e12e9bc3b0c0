import math

import jax.numpy as jnp
import pytest

from phi1_jax.training.metrics import DivergedError, MetricsReader


class Rows(list):
  def write(self, step, values):
    self.append((step, dict(values)))


def metrics(loss=2.0, norm=0.5):
  return {
    "loss": jnp.float32(loss),
    "grad_norm": jnp.float32(norm),
    "learning_rate": jnp.float32(0.25),
  }


@pytest.fixture
def rows():
  return Rows()


def test_a_row_is_written_when_the_next_step_is_on_its_way(tiny, rows):
  reader = MetricsReader(tiny(), rows, first=0, tokens_before=0)
  reader.follow(1, metrics())
  assert rows == []
  reader.follow(2, metrics())
  ((step, row),) = rows
  assert step == 1
  assert (row["loss"], row["grad_norm"], row["learning_rate"]) == (2.0, 0.5, 0.25)
  assert row["tokens_seen"] == 16 * 16
  assert row["mfu"] is None  # a CPU has no peak
  assert row["tokens_per_second"] == pytest.approx(256 / row["step_seconds"])
  assert 0 <= row["input_wait_seconds"] <= row["step_seconds"]


def test_a_pause_reads_what_is_pending_first(tiny, rows):
  reader = MetricsReader(tiny(), rows, first=0, tokens_before=0)
  reader.follow(1, metrics())
  with reader.paused():
    assert [step for step, _ in rows] == [1]
  with reader.paused():
    assert len(rows) == 1


def test_rows_every_so_many_steps(tiny, rows):
  reader = MetricsReader(tiny(train={"log_every": 5}), rows, 0, 0)
  for step in range(1, 13):
    reader.follow(step, metrics())
  with reader.paused():
    pass
  assert [step for step, _ in rows] == [1, 5, 10, 12]


def test_tokens_go_on_counting(tiny, rows):
  reader = MetricsReader(tiny(), rows, first=4, tokens_before=999)
  assert reader.tokens_seen(4) == 999
  assert reader.tokens_seen(6) == 999 + 2 * 256


@pytest.mark.parametrize(
  ("loss", "norm"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, math.inf)]
)
def test_what_is_not_finite_ends_the_run(tiny, rows, loss, norm):
  reader = MetricsReader(tiny(), rows, first=0, tokens_before=0)
  reader.follow(6, metrics())
  reader.follow(7, metrics(loss, norm))
  with pytest.raises(DivergedError, match="at step 7: it broke between steps 6 and 7"):
    reader.follow(8, metrics())
  assert [step for step, _ in rows] == [6, 7]
  assert "tokens_seen" not in rows[-1][1]


def test_a_pause_of_a_diverged_run_does_not_begin(tiny, rows):
  reader = MetricsReader(tiny(), rows, first=0, tokens_before=0)
  reader.follow(1, metrics(math.nan))
  with pytest.raises(DivergedError), reader.paused():
    raise AssertionError("what diverged would be saved here")
