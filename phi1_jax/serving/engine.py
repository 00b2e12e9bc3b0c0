"""Batches requests that arrive at any time in the sampler's slots.

One thread works on the device. All slots share a sampling method, since the compiled
loop depends on it. When the oldest waiting request has another method, no more requests
are admitted; the running ones finish, then the method changes. The programs of the last
`_MOST_METHODS` methods at most are kept.
"""

import collections
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phi1_jax.parallel import sharding
from phi1_jax.sampling import loop
from phi1_jax.sampling.checkpoint import Loaded
from phi1_jax.sampling.methods import Method
from phi1_jax.sampling.sampler import Completion, Request, Sampler, _Row
from phi1_jax.sampling.score import with_most_probable

_MOST_METHODS = 32  # whose compiled loops are kept
GROWING = "growing"  # `finish` of a completion that goes on


class FullError(Exception):
  """The queue is full, or the engine stops."""


@dataclasses.dataclass(frozen=True)
class Scored:
  """Log-probabilities of a prompt's tokens.

  Attributes:
    log_probs: of each token but the first.
    top: the most probable token at the same places, and its log-probability.
  """

  log_probs: list[float]
  top: list[tuple[int, float]]


@dataclasses.dataclass(eq=False)
class Job:
  """A request for one completion, or for the score of its prompt.

  Attributes:
    ids: the prompt.
    request: what to sample; its prompt is not read.
    method: chooses tokens.
    deliver: called on the engine's thread with a Completion, a Scored or an exception.
    streams: whether `deliver` gets the completion while it grows, too: the text that
      no stop string can cut any more, and all tokens so far.
    scores: score the prompt, sample nothing.
    cancelled: set it to end the job early; nothing more is delivered.
  """

  ids: list[int]
  request: Request
  method: Method
  deliver: Callable[[Completion | Scored | Exception], None]
  streams: bool = False
  scores: bool = False
  cancelled: bool = False


class Engine(Sampler):
  """A sampler that is fed while it works.

  Args:
    loaded: the model, whose parameters it keeps for scores.
    slots: requests in progress at a time.
    most_waiting: requests that may wait; more are refused.
  """

  _many_left = 0  # more may come at any time

  def __init__(self, loaded: Loaded, *, slots: int = 16, most_waiting: int = 256):
    super().__init__(loaded, Method(), slots=slots, steps=8)
    self._most_waiting = most_waiting
    self._waiting: collections.deque[Job] = collections.deque()
    self._starting: dict[int, Job] = {}  # taken from the queue, by the row's id
    self._running: dict[int, Job] = {}  # by slot
    self._news = threading.Condition()
    self._stopping = False
    self._compiled: set[Method] = set()
    self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
    self._thread.start()

  @property
  def loaded(self) -> Loaded:
    """The model."""
    return self._loaded

  @property
  def most_waiting(self) -> int:
    """The most jobs that may wait."""
    return self._most_waiting

  def status(self) -> dict[str, Any]:
    """Return whether it works, and how many requests run and wait."""
    alive = self._thread.is_alive() and not self._stopping
    return {"ok": alive, "running": len(self._running), "waiting": len(self._waiting)}

  def submit(self, jobs: Sequence[Job]) -> None:
    """Queue jobs, all or none.

    Raises:
      FullError: too many wait already, or the engine stops.
    """
    with self._news:
      if self._stopping:
        raise FullError("the server stops")
      if len(self._waiting) + len(jobs) > self._most_waiting:
        raise FullError(f"{len(self._waiting)} requests wait already")
      self._waiting.extend(jobs)
      self._news.notify()

  def stop(self) -> None:
    """End the thread; jobs that are not done get a FullError."""
    with self._news:
      self._stopping = True
      self._news.notify()
    self._thread.join()

  def _run(self) -> None:
    while not self._stopping:
      try:
        with sharding.layout(self._loaded.mesh):
          self._serve()
      except Exception as error:  # the next requests may fare better
        self._fail(error)
    self._fail(FullError("the server stops"))

  def _fail(self, error: Exception) -> None:
    with self._news:
      jobs = [*self._running.values(), *self._starting.values()]
      self._running.clear()
      self._starting.clear()
      if self._stopping:
        jobs += self._waiting
        self._waiting.clear()
    for job in jobs:
      job.deliver(error)

  def _serve(self) -> None:
    """Work until the engine stops."""
    state = None
    rows: list[_Row | None] = [None] * self.slots
    while True:
      queue = self._admit(rows)
      if self._stopping:
        return
      if not (queue or any(rows)):
        continue
      most = self._loaded.config.max_length
      state, tokens_BC, log_probs_BC = self._decode(state, rows, queue, most)
      for slot, row in enumerate(rows):
        if row is not None and slot not in self._running:
          self._running[slot] = self._starting.pop(id(row))
      self._hand_out(rows, tokens_BC, log_probs_BC)

  def _hand_out(self, rows: list, tokens_BC: np.ndarray, log_probs_BC: np.ndarray):
    for slot, job in list(self._running.items()):
      row, done = rows[slot], None

      def on_text(key: str, text: str, row=row, job=job) -> None:
        shown = self._loaded.tokenizer.decode(row.tokens)[: row.shown + len(text)]
        of = (key, shown, tuple(row.tokens), tuple(row.log_probs), GROWING)
        job.deliver(Completion(*of))

      if not job.cancelled:
        chosen = tokens_BC[slot], log_probs_BC[slot]
        done = self._advance(row, *chosen, on_text if job.streams else None)
      if done or job.cancelled:
        rows[slot] = None
        del self._running[slot]
      if done:
        job.deliver(done)

  def _admit(self, rows: list) -> list[tuple[list[int], _Row]]:
    """Take waiting jobs for the free slots; wait for the first if nothing runs."""
    free = rows.count(None)
    queue: list[tuple[list[int], _Row]] = []
    while len(queue) < free:
      with self._news:
        while not (self._waiting or self._running or queue or self._stopping):
          self._news.wait()
        if not self._waiting or self._stopping:
          break
        job = self._waiting[0]
        idle = not (self._running or queue)
        if not (job.cancelled or job.scores or idle or job.method == self._method):
          break  # until what runs has finished
        self._waiting.popleft()
      if job.cancelled:
        continue
      if job.scores:
        self._score(job)
        continue
      self._take_up(job.method)
      limit = self._loaded.config.max_length
      budget = min(job.request.max_new_tokens, limit - len(job.ids))
      row = _Row(job.request, len(job.ids), budget)
      queue.append((job.ids, row))
      self._starting[id(row)] = job
    # As `Sampler.complete`: prompts of one bucket start together.
    queue.sort(key=lambda item: len(item[0]), reverse=True)
    return queue

  def _take_up(self, method: Method) -> None:
    """Change the method; each new one compiles the decode loop."""
    self._method = method
    if method not in self._compiled and len(self._compiled) >= _MOST_METHODS:
      decode: Any = loop.decode
      decode.clear_cache()
      self._compiled.clear()
    self._compiled.add(method)

  def _score(self, job: Job) -> None:
    try:
      log_probs, top, best = with_most_probable(self._loaded, job.ids)
      tops = list(zip(top.tolist(), best.tolist(), strict=True))
      job.deliver(Scored(log_probs.tolist(), tops))
    except Exception as error:  # the next requests may fare better
      job.deliver(error)
