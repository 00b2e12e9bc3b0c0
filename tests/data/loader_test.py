import collections
import gc
import itertools
import threading
import time

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.data.loader import (
  ORDER,
  _Source,
  _windows,
  held_out_batches,
  interleave,
  train_batches,
)
from phi1_jax.data.token_store import ShardWriter, TokenStore, TokenStream, finish

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


def build(directory, rate="by_size", offset=0) -> TokenStore:
  shards = []
  count = sum(len(lengths) for _, lengths, _ in TASKS.values())
  for task, (origin, lengths, held_out) in TASKS.items():
    start = origin + offset
    for i, length in enumerate(lengths):
      writer = ShardWriter(directory, len(shards), count, task)
      writer.add(np.arange(start, start + length), num_bytes=length, held_out=False)
      if i == 0:
        ids = np.arange(origin + 9_000, origin + 9_000 + held_out)
        writer.add(ids, num_bytes=held_out, held_out=True)
      start += length
      shards.append(writer.close())
  fields = {
    "tasks": {task: {"rate": rate} for task in TASKS},
    "tokenizer": {"eos_id": 0, "vocabulary_size": 65_536},
  }
  finish(directory, fields, shards)
  return TokenStore.open(directory)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TokenStore:
  return build(tmp_path_factory.mktemp("store"))


def batches(store, count, **arguments):
  arguments = {"batch_size": 4, "sequence_length": T, "seed": 0} | arguments
  iterator = train_batches(store, **arguments)
  drawn = list(itertools.islice(iterator, count))
  iterator.close()
  return np.stack(drawn)


def origins(windows, task):
  """Numbers of a task's windows among rows [N, T + 1], in order."""
  origin = TASKS[task][0]
  first = windows.reshape(-1, T + 1)[:, 0] - origin
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
  np.testing.assert_array_equal(
    np.sort(drawn[0, :, 1:].ravel()), np.concatenate(expected)
  )


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
  """A marked store, and its documents for training: short ones, three long ones."""
  folder, random = tmp_path_factory.mktemp("documents"), np.random.default_rng(0)
  shards, train = [], []
  for index in range(3):
    writer = ShardWriter(folder, index, 3, "a", marked=True)
    for length in (*random.integers(2, 9, 40), 23, *random.integers(2, 9, 5)):
      ids = np.append(100 + np.arange(length) + 30 * len(train), 0)
      held_out = length < 23 and random.random() < 0.2
      marks = np.append(random.integers(0, 2, length), 1).astype(np.uint8)
      writer.add(ids, num_bytes=1, held_out=held_out, marks=marks)
      train += [] if held_out else [ids.tolist()]
    shards.append(writer.close())
  fields = {"tokenizer": {"eos_id": 0, "vocabulary_size": 65_536}}
  finish(folder, fields | {"tasks": {"a": {"rate": "by_size"}}}, shards)
  return TokenStore.open(folder), train


def test_windows_of_whole_documents(documents):
  store, train = documents
  size = 11
  starts, stops = _windows(store, "a", size - 1, True)
  borders = np.cumsum([0, *map(len, train)]).tolist()
  assert store.document_starts("a", "train").tolist() == borders[:-1]
  assert (starts[0], stops[-1]) == (0, borders[-1])
  long = {border for border in borders if border + 24 in borders}
  for start, stop, after in zip(starts, stops, [*starts[1:], stops[-1]], strict=True):
    assert 2 <= stop - start <= size
    within = max(border for border in borders if border <= start)
    assert within == start or within in long
    if stop in borders:
      assert after == stop
      assert stop == borders[-1] or min(b for b in borders if b > stop) - start > size
    else:  # a part of a long one; the next token is a target of the next window
      assert stop - start == size
      assert after == stop - 1


def test_held_out_batches_of_whole_documents(documents):
  store, _ = documents
  ids = store.stream("a", "held_out")
  ids, marks = (
    stream.read(0, len(ids)) for stream in (ids, store.marks("a", "held_out"))
  )
  firsts = store.document_starts("a", "held_out").tolist()
  drawn = list(
    held_out_batches(
      *(store, "a"),
      **{"batch_size": 2, "sequence_length": 10, "whole_documents": True},
      completions_only=True,
    )
  )
  seen = collections.Counter()
  for tokens, weights in drawn:
    for row, weight in zip(tokens.tolist(), weights.tolist(), strict=True):
      assert row[0] == 0 == sum(row) or row[0] in ids[firsts]
      seen.update(t for t, w in zip(row[1:], weight, strict=True) if w)
  expected = ids[(marks == 1) & ~np.isin(np.arange(len(ids)), firsts)]
  within = {t: n for t, n in seen.items() if t in set(expected.tolist())}
  assert within == collections.Counter(expected.tolist())


def test_batches_of_whole_documents(documents):
  """All are read once in an epoch; what fills a window is no target."""
  store, train = documents
  text = [token for document in train for token in document]
  spans = list(zip(*_windows(store, "a", 10, True), strict=True))
  sizes = {"batch_size": 1, "sequence_length": 10, "whole_documents": True}
  for completions_only in (False, True):
    marks = store.marks("a", "train").read(0, len(text)) | (not completions_only)
    expected = []
    for start, stop in spans:
      row = np.full(11, ~0)
      ids = np.array(text[start:stop])
      row[: stop - start] = np.where(marks[start:stop], ids, ~ids)
      expected.append(row.tolist())
    drawn = batches(store, len(spans), completions_only=completions_only, **sizes)
    assert sorted(drawn[:, 0].tolist()) == sorted(expected)


def test_seed_and_digest_change_the_order(store, tmp_path):
  same = batches(store, 5)
  np.testing.assert_array_equal(same, batches(store, 5))
  assert not np.array_equal(same, batches(store, 5, seed=1))
  other = build(tmp_path, offset=1)
  assert other.digest != store.digest
  assert not np.array_equal(same, batches(other, 5) - 1)


@pytest.mark.parametrize("rates", [None, {"code": 3, "textbook": 1}])
def test_resuming_equals_never_having_stopped(store, rates):
  straight = batches(store, 30, rates=rates)
  for step in (1, 7, 29):
    resumed = batches(store, 30 - step, rates=rates, start=4 * step)
    np.testing.assert_array_equal(straight[step:], resumed)


def test_another_batch_size_goes_on_with_the_next_window(store):
  batches(store, 1, start=10**12)  # does not replay
  straight = batches(store, 30).reshape(120, T + 1)
  resumed = batches(store, 10, batch_size=6, start=4 * 7).reshape(60, T + 1)
  np.testing.assert_array_equal(straight[28:88], resumed)


@pytest.mark.parametrize("rates", [None, {"code": 3, "textbook": 1}])
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_rows_of_all_hosts_make_the_global_batch(store, hosts, rates):
  whole = batches(store, 12, batch_size=8, rates=rates)
  parts = [
    batches(store, 12, batch_size=8, rates=rates, rows=rows)
    for rows in np.arange(8).reshape(hosts, -1)
  ]
  np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_rates_are_shares_of_windows(store, tmp_path):
  # Tasks without a rate are not read; those of one size have their own order.
  pair = batches(store, 12, batch_size=1, rates={"exercises": 1, "textbook": 1})
  assert origins(pair, "code") == []
  assert origins(pair, "exercises") != origins(pair, "textbook")
  registered = batches(build(tmp_path, rate=2.0), 10)
  counts = [len(origins(registered, task)) for task in TASKS]
  assert np.abs(np.array(counts) - 40 / 3).max() < 2
  rates = {"code": 60, "exercises": 15, "textbook": 25}  # a cycle of 20 windows
  drawn = batches(store, 42, batch_size=20, rates=rates)
  for batch in drawn:
    counts = [len(origins(batch, task)) for task in rates]
    assert np.abs(np.array(counts) - [12, 3, 5]).max() <= 1
  for task, rate in rates.items():
    # Every task goes through its own epochs.
    visited = origins(drawn, task)
    assert abs(len(visited) - rate * 8.4) <= 1
    for epoch in range(len(visited) // NUM_WINDOWS[task]):
      part = visited[epoch * NUM_WINDOWS[task] : (epoch + 1) * NUM_WINDOWS[task]]
      assert sorted(part) == list(range(NUM_WINDOWS[task]))


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
    pairs = held_out_batches(
      store, "code", batch_size=size, sequence_length=2, limit=limit
    )
    tokens, weights = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return tokens[weights.any(axis=1)].tolist()

  everything = drawn(None)
  assert len(everything) > 4
  assert drawn(len(everything) + 1) == everything
  places = [everything.index(batch) for batch in drawn(3)]
  assert places == [i * len(everything) // 3 for i in range(3)]
  assert drawn(7) == drawn(7, 2) == drawn(7, 3) == drawn(7, 16)


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 6])
def test_held_out_covers_every_target_once(store, batch_size, hosts):
  size, parts = batch_size // hosts, np.arange(batch_size).reshape(hosts, -1)
  for task, (origin, _, held_out) in TASKS.items():
    seen, counts = [], set()
    for rows in parts:
      sizes = {"batch_size": batch_size, "sequence_length": T}
      drawn = list(held_out_batches(store, task, rows=rows, **sizes))
      counts.add(len(drawn))
      for tokens, weights in drawn:
        assert (tokens.shape, weights.shape) == ((size, T + 1), (size, T))
        assert (tokens.dtype, weights.dtype) == (np.int32, np.float32)
        counted = weights == 1.0
        assert (weights[~counted] == 0.0).all()
        assert (tokens[:, 1:][counted] == tokens[:, :-1][counted] + 1).all()
        seen += tokens[:, 1:][counted].tolist()
    assert sorted(seen) == list(range(origin + 9_001, origin + 9_000 + held_out))
    assert len(counts) == 1


def test_threads_end_with_the_iterator(store):
  def prefetching():
    return [t for t in threading.enumerate() if "prefetch" in t.name]

  def wait_for_none():
    deadline = time.monotonic() + 300
    while prefetching() and time.monotonic() < deadline:
      time.sleep(0.01)
    return prefetching()

  arguments = {"batch_size": 4, "sequence_length": T, "seed": 0}
  iterator = train_batches(store, **arguments)
  next(iterator)
  assert prefetching()
  iterator.close()
  assert not wait_for_none()
  iterator = train_batches(store, **arguments)
  next(iterator)
  del iterator
  gc.collect()
  assert not wait_for_none()


@pytest.mark.parametrize("prefetch", [0, 4])
def test_what_fails_while_prefetching_is_raised(store, monkeypatch, prefetch):
  iterator = train_batches(
    store, batch_size=4, sequence_length=T, seed=0, prefetch=prefetch
  )
  next(iterator)

  def read(stream, start, stop):
    raise OSError("the disk is gone")

  monkeypatch.setattr(TokenStream, "read", read)
  with pytest.raises(OSError, match="the disk is gone"):
    list(iterator)


def test_a_rate_of_an_unknown_task_is_refused_at_once(store):
  with pytest.raises(InputError, match=r'"cod".*code, exercises, textbook'):
    train_batches(store, batch_size=1, sequence_length=T, seed=0, rates={"cod": 1.0})


def test_a_store_too_small_names_its_sizes(store):
  with pytest.raises(InputError, match=r"2,001 tokens.*code: 101, exercises: 35"):
    train_batches(store, batch_size=1, sequence_length=2_000, seed=0)
  rates = {"code": 1, "textbook": 1}
  with pytest.raises(InputError, match=r"train tokens: textbook: 35;"):
    train_batches(store, batch_size=1, sequence_length=50, seed=0, rates=rates)


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
  """A store in which every third token is a prompt's."""
  directory, shards = tmp_path_factory.mktemp("marked"), []
  for index, task in enumerate(("a", "b")):
    writer = ShardWriter(directory, index, 2, task, marked=True)
    for held_out, length in ((False, 61), (True, 23)):
      ids = 1000 * index + np.arange(length)
      marks = np.arange(length) % 3 != 0
      writer.add(ids, num_bytes=length, held_out=held_out, marks=marks)
    shards.append(writer.close())
  fields = {
    "tasks": {task: {"rate": "by_size"} for task in ("a", "b")},
    "tokenizer": {"eos_id": 0, "vocabulary_size": 65_536},
  }
  finish(directory, fields, shards)
  return TokenStore.open(directory)


@pytest.mark.parametrize("rates", [None, {"a": 1, "b": 2}])
def test_tokens_that_are_no_completion_are_complements(store, marked, rates):
  with pytest.raises(InputError, match=r'without Data\.loss_on = "completions"'):
    batches(store, 1, completions_only=True)
  plain = batches(marked, 8, rates=rates)
  signed = batches(marked, 8, rates=rates, completions_only=True)
  assert signed.dtype == np.int32
  np.testing.assert_array_equal(np.where(signed < 0, ~signed, signed), plain)
  np.testing.assert_array_equal(signed < 0, plain % 1000 % 3 == 0)
  assert (~signed[signed < 0]).min() == 0  # id 0 has a complement, too


def test_held_out_prompts_have_no_weight(marked):
  drawn = held_out_batches(
    marked, "b", batch_size=2, sequence_length=T, completions_only=True
  )
  tokens, weights = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
  assert (tokens >= 0).all()
  counted = tokens[:, 1:][weights == 1.0] - 1000
  assert sorted(counted) == [i for i in range(1, 23) if i % 3]
  assert len(counted) == 15
  assert marked.num_targets("held_out", True) == {"a": 15, "b": 15}
  assert marked.num_targets("held_out", False) == {"a": 22, "b": 22}
