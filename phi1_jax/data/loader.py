"""Batches of token windows: a pure function of (store digest, seed, rates, step).

A task's stream is cut into windows of sequence_length + 1 tokens every sequence_length
tokens. Labels are the inputs shifted by one, so every token but the first is a target
once:

    stream           a b c d e f g h i j      sequence_length 3
    window 0         a b c d                  inputs a b c, targets b c d
    window 1               d e f g
    window 2                     g h i j

With `whole_documents` a window holds the next documents that fit, and no part of one
but of those that are longer than a window.

There is no state between batches: a permutation of the windows is drawn for every
epoch, and arithmetic gives the next task. So each host computes its own rows of the
global batch, and resuming needs only the number of windows read before, whatever the
batch size. The permutation takes 4 bytes for each window of up to 2^32.
"""

from __future__ import annotations

import bisect
import collections
import hashlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from phi1_jax import InputError
from phi1_jax.data.token_store import TokenStore, TokenStream

# Version of the order of windows, for checkpoints. Version 1 was Grain's.
ORDER = 2


def train_batches(
  store: TokenStore,
  *,
  batch_size: int,
  sequence_length: int,
  seed: int,
  rates: Mapping[str, float] | None = None,
  completions_only: bool = False,
  whole_documents: bool = False,
  rows: np.ndarray | None = None,
  start: int = 0,
  prefetch: int = 4,
) -> Generator[np.ndarray, None, None]:
  """Return training batches without end, from window number `start` on.

  Without rates (or if all are "by_size") the windows of all tasks form one sequence, in
  a new order every epoch. With rates, tasks are interleaved evenly by their shares of
  windows, and each is shuffled and repeated on its own. Tokens at the end of a task's
  stream that fill no window are left out.

  Args:
    store: the tokens.
    batch_size: windows per global batch.
    sequence_length: input tokens per window.
    seed: decides the order, together with the store's digest.
    rates: share of windows per task, positive; other tasks are not read. None takes the
      rates of the mixture.
    completions_only: give tokens that are not targets, such as prompts, as ~id.
    whole_documents: cut the windows between documents; the rest of a window is filled
      with ends of documents that are not targets.
    rows: numbers [N] of this host's rows of the global batch; None is all.
    start: windows of the mixture that were read before.
    prefetch: batches prepared ahead by a thread; 0 prepares them in `next`.

  Returns:
    An iterator of int32 [rows, sequence_length + 1]. Its thread starts with the first
    `next`, and ends at its `close()` or when the iterator is deleted. A token that is
    no target is the bitwise complement of its id, which is negative.

  Raises:
    InputError: an unknown task, a task (or store) without a window, or a store without
      marks for `completions_only`.
  """
  shares, sources = _sources(
    store, sequence_length, whole_documents, seed, rates, completions_only
  )
  wanted = np.arange(batch_size) if rows is None else rows

  def batch(number: int) -> np.ndarray:
    out = np.empty((len(wanted), sequence_length + 1), np.int32)
    if whole_documents:  # what a window does not fill is not a target
      out[:] = ~store.eos_id
    which, nth = interleave(start + number * batch_size + wanted, shares)
    for index, source in enumerate(sources):
      mine = np.flatnonzero(which == index)
      for row, window in zip(mine.tolist(), source.windows(nth[mine]), strict=True):
        out[row, : len(window)] = window
    return out

  return _made_ahead(batch, prefetch)


def _made_ahead(
  make: Callable[[int], np.ndarray], ahead: int
) -> Generator[np.ndarray, None, None]:
  """Yield make(0), make(1), ..; a thread makes `ahead` of them before."""
  if not ahead:
    yield from map(make, itertools.count())
  # One thread is enough for a memory map, and leaves the interpreter to the train loop.
  thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
  try:
    made = collections.deque(thread.submit(make, i) for i in range(ahead))
    for number in itertools.count(ahead):
      batch = made.popleft().result()
      made.append(thread.submit(make, number))
      yield batch
  finally:  # also when the generator is closed or deleted
    thread.shutdown(wait=False, cancel_futures=True)


def held_out_batches(
  store: TokenStore,
  task: str,
  *,
  batch_size: int,
  sequence_length: int,
  completions_only: bool = False,
  whole_documents: bool = False,
  rows: np.ndarray | None = None,
  limit: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Return one pass over a task's held-out tokens; each is a target once.

  What a window or the last batch lacks has id 0 and weight 0, so batches have one
  shape, and hosts get the same number of them. A task with fewer than two held-out
  tokens gives no batch. The windows do not depend on `batch_size`.

  Args:
    store: the tokens.
    task: name of the task.
    batch_size: windows per global batch.
    sequence_length: input tokens per window.
    completions_only: give tokens outside a completion the weight 0.
    whole_documents: cut the windows as `train_batches` does with it.
    rows: numbers [N] of this host's rows of the global batch; None is all.
    limit: the most windows, spread evenly over the pass; None is all.

  Returns:
    An iterator of (tokens int32 [rows, sequence_length + 1], weights float32
    [rows, sequence_length]); weights[i, t] belongs to the target tokens[i, t + 1].

  Raises:
    InputError: the store has no such task, or no marks for `completions_only`.
  """
  stream = store.stream(task, "held_out")
  marks = store.marks(task, "held_out") if completions_only else None
  wanted = np.arange(batch_size) if rows is None else rows
  if whole_documents:
    starts, stops = _whole_documents(store, task, "held_out", sequence_length + 1)
  else:
    starts = range(0, max(len(stream) - 1, 0), sequence_length)
    stops = [min(start + sequence_length + 1, len(stream)) for start in starts]
  num_windows = len(starts)
  taken = min(limit or num_windows, num_windows)

  def batch(first: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.zeros((len(wanted), sequence_length + 1), np.int32)
    weights = np.zeros((len(wanted), sequence_length), np.float32)
    for i, row in enumerate(wanted.tolist()):
      if first + row < taken:
        number = (first + row) * num_windows // taken
        start, stop = starts[number], stops[number]
        tokens[i, : stop - start] = stream.read(start, stop)
        targets = 1.0 if marks is None else marks.read(start + 1, stop)
        weights[i, : stop - start - 1] = targets
    return tokens, weights

  return map(batch, range(0, taken, batch_size))


def interleave(
  positions: np.ndarray, shares: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
  """Return the source of each position of a mixture, and the number of its window.

  Source 0 takes the positions where floor(k * share) grows; the next source does the
  same with the remaining positions, renumbered. Shares [0.5, 0.25, 0.25]:

      position   0 1 2 3 4 5 6 7
      source     2 0 1 0 2 0 1 0
      window     0 0 0 1 1 2 1 3

  Args:
    positions: int64 [N], not negative.
    shares: positive, adding up to 1.

  Returns:
    (source [N], window [N]). Every source gets its windows in order, without gaps,
    and its share of the first k positions to within one or two windows.
  """
  source = np.full(len(positions), len(shares) - 1)
  window = rest = positions
  undecided = np.ones(len(positions), bool)
  for i, share in enumerate(shares[:-1]):
    fraction = share / sum(shares[i:])
    before = np.floor(rest * fraction).astype(np.int64)
    here = undecided & (np.floor((rest + 1) * fraction) > before)
    source = np.where(here, i, source)
    rest = rest - before
    window = np.where(here, before, np.where(undecided, rest, window))
    undecided &= ~here
  return source, window


# Where each window of a stream starts, and where it stops.
_Spans = tuple[Sequence[int], Sequence[int]]


def _windows(
  store: TokenStore, task: str, sequence_length: int, whole_documents: bool
) -> _Spans:
  """Return the windows of a task's text for training; see `train_batches`."""
  length, most = len(store.stream(task, "train")), sequence_length + 1
  if not whole_documents:
    used = max(length - 1, 0) // sequence_length * sequence_length
    return range(0, used, sequence_length), range(most, used + most, sequence_length)
  return _whole_documents(store, task, "train", most)


def _whole_documents(store: TokenStore, task: str, split: str, most: int) -> _Spans:
  """Return windows of at most `most` tokens between documents."""
  length = len(store.stream(task, split))
  ends = [*store.document_starts(task, split)[1:].tolist(), length]
  starts, stops, start = [], [], 0
  while start < length:
    stop = ends[bisect.bisect_right(ends, start + most) - 1]
    cut = stop <= start or stop > start + most  # a document that fills the window
    stop = start + most if cut else stop
    starts.append(start)
    stops.append(stop)
    start = stop - cut  # the first token of a window is not a target
  return starts, stops


class _Source:
  """Windows of some streams, in a new order every epoch."""

  def __init__(
    self,
    streams: Sequence[TokenStream],
    marks: Sequence[TokenStream],
    spans: Sequence[_Spans],
    entropy: str,
  ):
    self._streams, self._marks = streams, marks
    self._spans, self._entropy = spans, entropy
    counts = [len(starts) for starts, _ in spans]
    self._ends = np.cumsum(counts, dtype=int).tolist()
    self._starts = [end - count for end, count in zip(self._ends, counts, strict=True)]
    self.num_windows = sum(counts)
    self._order: tuple[int, np.ndarray] | None = None

  def windows(self, visits: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the windows of visits [N], counted over epochs."""
    epochs, indices = np.divmod(visits, self.num_windows)
    for epoch in np.unique(epochs).tolist():
      here = epochs == epoch
      indices[here] = self._permutation(epoch)[indices[here]]
    for index in indices.tolist():
      which = bisect.bisect_right(self._ends, index)
      number, (starts, stops) = index - self._starts[which], self._spans[which]
      start, stop = starts[number], stops[number]
      window = self._streams[which].read(start, stop)
      if self._marks:
        ids = window.astype(np.int32)
        marks = self._marks[which].read(start, stop)
        window = np.where(marks, ids, ~ids)
      yield window

  def _permutation(self, epoch: int) -> np.ndarray:
    """Return the order of an epoch, unsigned [windows]; the last one is kept."""
    if self._order is None or self._order[0] != epoch:
      self._order = None  # two would need twice the memory
      # Not a Generator, whose stream may change with NumPy's version: this is frozen.
      seed = hashlib.sha256(f"{self._entropy}/{epoch}".encode()).digest()
      random = np.random.RandomState(np.frombuffer(seed, "<u4"))
      order = np.arange(self.num_windows, dtype=np.min_scalar_type(self.num_windows))
      random.shuffle(order)
      self._order = epoch, order
    return self._order[1]


def _sources(
  store: TokenStore,
  sequence_length: int,
  whole_documents: bool,
  seed: int,
  rates: Mapping[str, float] | None,
  completions_only: bool,
) -> tuple[list[float], list[_Source]]:
  """Return the shares, which add up to 1, and sources: one of all tasks, or each."""
  tasks = store.manifest["tasks"]
  rates = rates or {task: fields["rate"] for task, fields in tasks.items()}
  for task in rates.keys() - tasks.keys():
    raise InputError(
      f'Data.rates: got the task "{task}", which {store.directory} does not hold; '
      f"expected {', '.join(store.tasks)}"
    )
  groups = [(task,) for task in sorted(rates)]
  if set(rates.values()) == {"by_size"}:
    groups, rates = [store.tasks], {"": 1.0}
  sources = []
  for tasks in groups:
    # The whole name enters the seed: tasks of one size must not share an order.
    entropy = f"{store.digest}/{seed}/{' '.join(tasks)}"
    streams = [store.stream(task, "train") for task in tasks]
    marks = [store.marks(task, "train") for task in tasks if completions_only]
    spans = [_windows(store, task, sequence_length, whole_documents) for task in tasks]
    source = _Source(streams, marks, spans, entropy)
    if not source.num_windows:
      sizes = ", ".join(f"{t}: {len(s):,}" for t, s in zip(tasks, streams, strict=True))
      raise InputError(
        f"token store {store.directory} is too small for one window of "
        f"{sequence_length + 1:,} tokens (sequence_length + 1); train tokens: {sizes}; "
        "use a shorter sequence_length or more data"
      )
    sources.append(source)
  total = math.fsum(rates.values())
  return [rates[name] / total for name in sorted(rates)], sources
