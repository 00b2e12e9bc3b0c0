"""Batches of windows: every token in its turn, whatever the hosts and the start."""

import gc
import itertools
import threading
from unittest.mock import Mock

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.data.loader import (
  ORDER,
  _Source,
  held_out_batches,
  interleave,
  train_batches,
)
from phi1_jax.data.token_store import TokenStore, TokenStream
from tests.data import stores

T = 5
# Stream lengths (train shards, held-out tokens) of each task. Tokens count upwards
# from the task's own origin, so a window tells where it was cut. 35 tokens are one
# short of seven windows.
TASKS = {
  "code": (0, [61, 40], 22),  # one target more than four held-out windows
  "exercises": (20_000, [35], 16),
  "textbook": (40_000, [24, 11], 1),
}
NUM_WINDOWS = {"code": 20, "exercises": 6, "textbook": 6}
SIZES = {"batch_size": 4, "sequence_length": T, "seed": 0}
RATES = pytest.mark.parametrize("rates", [None, {"code": 3, "textbook": 1}])


def build(folder, rate="by_size", offset=0, marked=True) -> TokenStore:
  """A store in which every third token is a prompt's."""
  shards = []
  for task, (origin, lengths, held_out) in TASKS.items():
    start = origin + offset
    for i, length in enumerate(lengths):
      parts = [(np.arange(start, start + length), False)]
      if i == 0:
        parts.append((np.arange(origin + 9_000, origin + 9_000 + held_out), True))
      shards.append((task, [(ids, out, ids % 3 != 0) for ids, out in parts]))
      start += length
  return stores.write(folder, shards, rate, marked=marked)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TokenStore:
  return build(tmp_path_factory.mktemp("store"))


def batches(store, count, **arguments):
  iterator = train_batches(store, **SIZES | arguments)
  drawn = list(itertools.islice(iterator, count))
  iterator.close()
  return np.stack(drawn)


def held_out(store, task, **arguments):
  """The tokens and weights of all batches."""
  sizes = {"batch_size": 2, "sequence_length": T}
  drawn = held_out_batches(store, task, **sizes | arguments)
  return [np.concatenate(arrays) for arrays in zip(*drawn, strict=True)]


def origins(windows, task):
  """Numbers of a task's windows among rows [N, T + 1], in order."""
  first = windows.reshape(-1, T + 1)[:, 0] - TASKS[task][0]
  return (first[(first >= 0) & (first < 20_000)] // T).tolist()


def test_each_epoch_visits_every_window_once(store):
  total = sum(NUM_WINDOWS.values())
  drawn = batches(store, 3 * total, batch_size=1, prefetch=0).reshape(3, total, T + 1)
  assert drawn.dtype == np.int32
  assert (np.diff(drawn, axis=-1) == 1).all()  # across shard borders too
  for epoch in drawn:
    for task, count in NUM_WINDOWS.items():
      assert sorted(origins(epoch, task)) == list(range(count))
  assert not np.array_equal(drawn[0], drawn[1])
  assert not np.array_equal(drawn[1], drawn[2])
  # Every token but the first is a target once.
  expected = [
    np.arange(origin + 1, origin + NUM_WINDOWS[task] * T + 1)
    for task, (origin, _, _) in TASKS.items()
  ]
  targets = np.sort(drawn[0, :, 1:].ravel())
  np.testing.assert_array_equal(targets, np.concatenate(expected))


def test_the_order_is_pinned(store):
  """Runs that have begun rely on it: another one needs another `loader.ORDER`."""
  assert ORDER == 2
  source = _Source([store.stream("code", "train")], [], [(range(20),) * 2], "entropy")
  first, second = (source._permutation(epoch) for epoch in (0, 1))
  assert first.dtype == np.uint8
  assert first.tolist()[:8] == [15, 7, 0, 4, 8, 12, 6, 2]
  assert sorted(first) == sorted(second) == list(range(20))
  assert first.tolist() != second.tolist()
  many = _Source([TokenStream([])], [], [(range(70_000),) * 2], "entropy")
  np.testing.assert_array_equal(np.sort(many._permutation(3)), np.arange(70_000))
  assert many._permutation(3).dtype == np.uint32


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
  """A marked store, and lengths of its documents: short ones, three long ones."""
  random, shards = np.random.default_rng(0), []
  lengths = {"train": [], "held_out": []}
  for _ in range(3):
    shards.append(("a", made := []))
    for length in (*random.integers(2, 9, 40), 23, *random.integers(2, 9, 5)):
      ids = np.append(100 + random.permutation(length), 0)
      marks = np.append(random.integers(0, 2, length), 1).astype(np.uint8)
      held_out = length < 23 and random.random() < 0.2
      made.append((ids, held_out, marks))
      lengths["held_out" if held_out else "train"].append(length + 1)
  return stores.write(tmp_path_factory.mktemp("store"), shards, marked=True), lengths


def whole(documents, size):
  """Windows of whole documents; a long one is cut into parts that share a token."""
  window = np.array([], int)
  for document in documents:
    if len(window) and len(window) + len(document) > size:
      yield window
      window = window[:0]
    window = np.append(window, document)
    while len(window) > size:
      yield window[:size]
      window = window[size - 1 :]
  yield window


@pytest.mark.parametrize("completions_only", [False, True])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_windows_of_whole_documents(documents, split, completions_only):
  """All are read once in an epoch; what fills a window is no target."""
  store, lengths = documents
  streams = store.stream("a", split), store.marks("a", split)
  ids, marks = (stream.read(0, len(stream)).astype(int) for stream in streams)
  marks = marks == 1 if completions_only else np.ones(len(ids), bool)
  ends = np.cumsum(lengths[split])
  places = list(whole(np.split(np.arange(ends[-1]), ends[:-1]), 11))
  sizes = {"sequence_length": 10, "whole_documents": True}
  sizes["completions_only"] = completions_only
  if split == "train":
    expected = np.full((len(places), 11), ~0)
    for row, place in zip(expected, places, strict=True):
      row[: len(place)] = np.where(marks[place], ids[place], ~ids[place])
    drawn = batches(store, len(places), batch_size=1, **sizes)[:, 0]
    assert sorted(drawn.tolist()) == sorted(expected.tolist())
  else:
    tokens, weights = held_out(store, "a", **sizes)
    wanted, counted = np.zeros_like(tokens), np.zeros_like(weights)
    for number, place in enumerate(places):
      wanted[number, : len(place)] = ids[place]
      counted[number, : len(place) - 1] = marks[place][1:]
    np.testing.assert_array_equal(tokens, wanted)
    np.testing.assert_array_equal(weights, counted)


def test_seed_and_digest_change_the_order(store, tmp_path):
  same, other = batches(store, 5), build(tmp_path, offset=1)
  np.testing.assert_array_equal(same, batches(store, 5))
  assert not np.array_equal(same, batches(store, 5, seed=1))
  assert not np.array_equal(same, batches(other, 5) - 1)


@RATES
def test_resuming_equals_never_having_stopped(store, rates):
  straight = batches(store, 30, rates=rates)
  for step in (1, 7, 29):
    resumed = batches(store, 30 - step, rates=rates, start=4 * step)
    np.testing.assert_array_equal(straight[step:], resumed)
  # Another batch size goes on with the next window.
  larger = batches(store, 10, rates=rates, batch_size=6, start=4 * 7)
  windows = straight.reshape(120, T + 1)[28:88]
  np.testing.assert_array_equal(windows, larger.reshape(60, T + 1))
  batches(store, 1, start=10**12)  # does not replay


@RATES
@pytest.mark.parametrize("hosts", [2, 4])
def test_rows_of_all_hosts_make_the_global_batch(store, hosts, rates):
  sizes = {"batch_size": 8, "rates": rates}
  rows = np.arange(8).reshape(hosts, -1)
  parts = [batches(store, 12, rows=each, **sizes) for each in rows]
  whole = batches(store, 12, **sizes)
  np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_rates_are_shares_of_windows(store, tmp_path):
  # Tasks without a rate are not read; those of one size have their own order.
  pair = batches(store, 12, batch_size=1, rates={"exercises": 1, "textbook": 1})
  assert origins(pair, "code") == []
  assert origins(pair, "exercises") != origins(pair, "textbook")
  registered = batches(build(tmp_path, rate=2.0), 10)
  counts = [len(origins(registered, task)) for task in TASKS]
  assert np.abs(np.array(counts) - 40 / 3).max() < 2
  rates = {"code": 60, "exercises": 15, "textbook": 25}
  drawn = batches(store, 42, batch_size=20, rates=rates)
  for task, rate in rates.items():
    # Every task goes through its own epochs.
    visited, size = origins(drawn, task), NUM_WINDOWS[task]
    assert abs(len(visited) - rate * 8.4) <= 1
    for start in range(0, len(visited) - size + 1, size):
      assert sorted(visited[start : start + size]) == list(range(size))


@pytest.mark.parametrize("shares", [[0.7, 0.3], [0.001, 0.299, 0.7], [0.2] * 5])
def test_interleave_leaves_no_gap_and_keeps_to_the_shares(shares):
  positions = np.arange(20_000)
  source, window = interleave(positions, shares)
  for i, share in enumerate(shares):
    mine = source == i
    assert window[mine].tolist() == list(range(mine.sum()))
    assert np.abs(np.cumsum(mine) - share * (positions + 1)).max() <= 2
  # Any part computed alone is the same: nothing is carried over.
  np.testing.assert_array_equal(interleave(positions[777:], shares)[0], source[777:])


def test_a_limit_spreads_evenly_over_the_held_out_split(store):
  def drawn(limit, size=1):
    sizes = {"batch_size": size, "sequence_length": 2, "limit": limit}
    tokens, weights = held_out(store, "code", **sizes)
    return tokens[weights.any(axis=1)].tolist()

  everything = drawn(None)
  assert len(everything) > 4
  assert drawn(len(everything) + 1) == everything
  places = [everything.index(batch) for batch in drawn(3)]
  assert places == [i * len(everything) // 3 for i in range(3)]
  assert drawn(7) == drawn(7, 2) == drawn(7, 3) == drawn(7, 16)


@pytest.mark.parametrize(("batch_size", "hosts"), [(2, 1), (6, 2)])
def test_held_out_covers_every_target_once(store, batch_size, hosts):
  parts = np.arange(batch_size).reshape(hosts, -1)
  for task in ("code", "exercises"):
    origin, _, length = TASKS[task]
    seen, counts = [], set()
    for rows in parts:
      tokens, weights = held_out(store, task, batch_size=batch_size, rows=rows)
      assert (tokens.dtype, weights.dtype) == (np.int32, np.float32)
      counts.add(len(tokens))
      counted = weights == 1.0
      assert (weights[~counted] == 0.0).all()
      assert (tokens[:, 1:][counted] == tokens[:, :-1][counted] + 1).all()
      seen += tokens[:, 1:][counted].tolist()
    assert sorted(seen) == list(range(origin + 9_001, origin + 9_000 + length))
    assert len(counts) == 1
  assert not list(held_out_batches(store, "textbook", batch_size=2, sequence_length=T))


@pytest.mark.parametrize("closed", [True, False])
def test_threads_end_with_the_iterator(store, closed):
  before, iterator = set(threading.enumerate()), train_batches(store, **SIZES)
  next(iterator)
  (thread,) = set(threading.enumerate()) - before
  if closed:
    iterator.close()
  del iterator
  gc.collect()
  thread.join(300)
  assert not thread.is_alive()


@pytest.mark.parametrize("prefetch", [0, 4])
def test_what_fails_while_prefetching_is_raised(store, monkeypatch, prefetch):
  iterator = train_batches(store, **SIZES, prefetch=prefetch)
  next(iterator)

  monkeypatch.setattr(TokenStream, "read", Mock(side_effect=OSError("disk is gone")))
  with pytest.raises(OSError, match="disk is gone"):
    list(iterator)


@pytest.mark.parametrize(
  ("arguments", "says"),
  [
    ({"rates": {"cod": 1.0}}, r'Data\.rates.*"cod".*code, exercises, textbook'),
    ({"sequence_length": 2_000}, r"2,001 tokens.*code: 101, exercises: 35"),
    (
      {"sequence_length": 50, "rates": {"code": 1, "textbook": 1}},
      r"train tokens: textbook: 35;",
    ),
    ({"completions_only": True}, r'without Data\.loss_on = "completions"'),
  ],
)
def test_what_the_store_does_not_have_is_refused_at_once(tmp_path, arguments, says):
  with pytest.raises(InputError, match=says):
    train_batches(build(tmp_path, marked=False), **SIZES | arguments)


@RATES
def test_tokens_that_are_no_completion_are_no_targets(store, rates):
  plain = batches(store, 8, rates=rates)
  signed = batches(store, 8, rates=rates, completions_only=True)
  assert signed.dtype == np.int32
  np.testing.assert_array_equal(np.where(signed < 0, ~signed, signed), plain)
  np.testing.assert_array_equal(signed < 0, plain % 3 == 0)
  assert (~signed[signed < 0]).min() == 0  # id 0 has a complement, too
  tokens, weights = held_out(store, "code", completions_only=True)
  assert (tokens >= 0).all()
  counted = sorted(tokens[:, 1:][weights == 1.0] - 9_000)
  assert counted == [i for i in range(1, 22) if i % 3]
  targets = {"code": len(counted), "exercises": 10}
  assert store.num_targets("held_out", True) == targets
  assert store.num_targets("held_out", False) == {"code": 21, "exercises": 15}
