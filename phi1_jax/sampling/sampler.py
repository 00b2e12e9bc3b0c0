"""Batched sampling: slots that a queue of requests refills, and length buckets.

Every row of the batch (slot) works on one request. When it has finished, the next
request of the queue takes its place while the others go on. The random numbers of a
request depend on its key and seed alone. So its tokens do not depend on other requests,
if the device computes a row alike in every batch (in float32 it did in every test;
log-probabilities may differ in their last bits).
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from phi1_jax.model import cache as caches
from phi1_jax.parallel import sharding
from phi1_jax.sampling import loop, stopping
from phi1_jax.sampling.checkpoint import Loaded, check_log_probs
from phi1_jax.sampling.methods import Method

# The most tokens that one prefill reads: bounds the memory of its attention scores.
_PREFILL_TOKENS = 16384
_SHORTEST_BUCKET = 32
# Each length of the cache is compiled separately, so all short texts have one.
_SHORTEST_CACHE = 256


@dataclasses.dataclass(frozen=True)
class Request:
  """A request for one completion."""

  key: str  # its name; with `seed` it decides the random numbers
  prompt: str  # empty starts a new document
  max_new_tokens: int  # the model's length limits them too
  stops: tuple[str, ...] = ()  # strings whose appearance ends the text
  seed: int = 0


@dataclasses.dataclass(frozen=True)
class Completion:
  """The completion of the request with the same key."""

  key: str
  # Up to and including the token that completed a stop string, without the end of text;
  # `stopping.cut` cuts it.
  text: str
  tokens: tuple[int, ...]  # ids of the text
  log_probs: tuple[float, ...]  # under the model (temperature 1, all tokens)
  finish: str  # "stop", "eos", "length", or "prompt_too_long" (nothing was sampled)
  end_log_prob: float | None = None  # of the end of text, if it was sampled


@dataclasses.dataclass
class _Row:
  """A request in progress; `shown` characters of its text were passed to `on_text`."""

  request: Request
  prompt_length: int
  budget: int
  tokens: list[int] = dataclasses.field(default_factory=list)
  log_probs: list[float] = dataclasses.field(default_factory=list)
  shown: int = 0


class Sampler:
  """A sampler, which completes prompts with a model.

  Args:
    loaded: the model, laid out on its mesh.
    method: chooses tokens.
    slots: requests in progress at a time, raised to a multiple of the batch shards.
    steps: tokens per row between two searches of the text for stop strings.
    consume: free `loaded.params` while the sampler makes its own copy.
  """

  # A shorter cache is compiled only if so many requests per slot still wait.
  _many_left = 4

  def __init__(
    self,
    loaded: Loaded,
    method: Method,
    *,
    slots: int = 16,
    steps: int = 16,
    consume: bool = False,
  ):
    self._loaded, self._method, self._steps = loaded, method, steps
    self._shards = sharding.batch_shards(loaded.mesh)
    self.slots = -(-slots // self._shards) * self._shards
    config = loaded.config
    with sharding.layout(loaded.mesh):
      self._params = caches.by_layer(loaded.params, config, consume=consume)

  def complete(
    self,
    requests: Sequence[Request],
    on_text: Callable[[str, str], None] | None = None,
  ) -> Iterator[Completion]:
    """Yield completions as they finish, in no particular order.

    Args:
      requests: the requests; keys should differ.
      on_text: called with (key, new text) while a text grows; together the new texts
        are the text cut at its stop string.
    """
    loaded = self._loaded
    limit = loaded.config.max_length
    prompts = [
      ids or [loaded.tokenizer.eos_id]
      for ids in loaded.tokenizer.encode_batch([r.prompt for r in requests])
    ]
    queue = []
    for request, prompt in zip(requests, prompts, strict=True):
      budget = min(request.max_new_tokens, limit - len(prompt))
      if budget < 1:
        yield Completion(request.key, "", (), (), "prompt_too_long")
      else:
        queue.append((prompt, _Row(request, len(prompt), budget)))
    if queue:
      # Longest first: prompts of one bucket start together, and the last to finish
      # does not start last.
      queue.sort(key=lambda item: (len(item[0]), item[1].budget), reverse=True)
      with sharding.layout(loaded.mesh):
        yield from self._work(queue, on_text)

  def _work(self, queue, on_text) -> Iterator[Completion]:
    longest = max(row.prompt_length + row.budget for _, row in queue)
    most = min(self._loaded.config.max_length, -(-longest // 64) * 64)
    state = None
    rows: list[_Row | None] = [None] * self.slots
    while queue or any(rows):
      state, tokens_BC, log_probs_BC = self._decode(state, rows, queue, most)
      chosen = zip(tokens_BC, log_probs_BC, strict=True)
      for slot, (tokens_C, log_probs_C) in enumerate(chosen):
        row = rows[slot]
        if row is None:
          continue
        if done := self._advance(row, tokens_C, log_probs_C, on_text):
          yield done
          rows[slot] = None

  def _decode(
    self, state: loop.State | None, rows: list[_Row | None], queue: list, most: int
  ) -> tuple[loop.State, np.ndarray, np.ndarray]:
    """Start requests of the queue in free rows, and run the decode loop once.

    Args:
      state: what the last call returned; None at first.
      rows: a request or None for each slot; gets those that start.
      queue: prompts and rows, longest first; loses those that start.
      most: tokens of the longest text, with its prompt.

    Returns:
      The state, and tokens_BC and log_probs_BC of `loop.decode`.
    """
    loaded = self._loaded
    sized = self._sized(state, rows, queue, most)
    started = self._fill(sized, rows, queue)
    decoded, tokens_BC, log_probs_BC = loop.decode(
      loaded.config,
      self._method,
      self._steps,
      (loaded.tokenizer.vocabulary_size, loaded.tokenizer.eos_id),
      self._params,
      started,
      jnp.asarray([row is not None for row in rows]),
    )
    tokens_BC, log_probs_BC = np.asarray(tokens_BC), np.asarray(log_probs_BC)
    check_log_probs(loaded, log_probs_BC[tokens_BC >= 0])
    return decoded, tokens_BC, log_probs_BC

  def _sized(self, state, rows, queue, most: int) -> loop.State:
    """Return the state with a cache as long as the next call of the loop needs.

    Every step reads the whole cache, so that a longer one makes each slower. But each
    length has programs of its own, which take seconds to compile: lengths double, and
    a cache is cut only if a quarter will do and many texts are left.
    """
    used = [row.prompt_length + len(row.tokens) for row in rows if row]
    used += [len(prompt) for prompt, _ in queue[: rows.count(None)]]
    length = _SHORTEST_CACHE
    while length < max(used) + self._steps:
      length *= 2
    length = min(length, most)
    if state is None:
      return _empty(self._loaded.config, self.slots, length)
    held = state.cache.length
    cut = 4 * length <= held and len(queue) >= self._many_left * self.slots
    if length == held or (length < held and not cut):
      return state
    return dataclasses.replace(state, cache=caches.resized(state.cache, length))

  def _fill(self, state, rows, queue):
    """Give resting rows the next requests, a group of one bucket at a time."""
    length = state.cache.length
    free = [slot for slot, row in enumerate(rows) if row is None]
    while free and queue:
      bucket = _bucket(queue[0], length)
      size = self._group(min(len(free), len(queue)), bucket)
      group = []
      while (
        len(group) < size and free and queue and _bucket(queue[0], length) == bucket
      ):
        group.append((free.pop(0), *queue.pop(0)))
      state = self._prefill(state, group, size, bucket)
      for slot, _, row in group:
        rows[slot] = row
    return state

  def _prefill(self, state, group, size, bucket):
    slots_P = np.full(size, self.slots, np.int32)  # out of range: padding
    read_PT = np.zeros((size, bucket), np.int32)
    token_P, position_P, left_P = np.zeros((3, size), np.int32)
    key_P2 = np.zeros((size, 2), np.uint32)
    for place, (slot, prompt, row) in enumerate(group):
      slots_P[place] = slot
      read_PT[place, : len(prompt) - 1] = prompt[:-1]
      token_P[place], position_P[place] = prompt[-1], len(prompt) - 1
      left_P[place], key_P2[place] = row.budget, _random_key(row.request)
    return loop.prefill(
      self._loaded.config,
      self._params,
      state,
      *(slots_P, read_PT, token_P, position_P, left_P, key_P2),
    )

  def _group(self, wanted: int, bucket: int) -> int:
    """Return the number of rows of a prefill: one per shard, or the most."""
    most = max(1, min(self.slots, _PREFILL_TOKENS // bucket) // self._shards)
    return self._shards * (1 if wanted <= self._shards else most)

  def _advance(self, row, tokens_C, log_probs_C, on_text) -> Completion | None:
    """Add the tokens of one call of the loop; return the completion at its end."""
    tokenizer, request = self._loaded.tokenizer, row.request
    before = len(row.tokens)
    finish = end = None
    for token, log_prob in zip(tokens_C.tolist(), log_probs_C.tolist(), strict=True):
      if token == tokenizer.eos_id:
        finish, end = "eos", log_prob
      if token < 0 or finish:
        break
      row.tokens.append(token)
      row.log_probs.append(log_prob)
    if finish is None and len(row.tokens) == row.budget:
      finish = "length"
    text = tokenizer.decode(row.tokens)
    if stopping.cut(text, request.stops)[1] is not None:
      finish = "stop"
      # The fewest tokens that hold a stop string: the text must not depend on `steps`.
      size = next(
        size
        for size in range(before + 1, len(row.tokens) + 1)
        if stopping.cut(tokenizer.decode(row.tokens[:size]), request.stops)[1]
      )
      del row.tokens[size:], row.log_probs[size:]
      text = tokenizer.decode(row.tokens)
    if on_text:
      shown, _ = stopping.cut(text, request.stops)
      upto = len(shown) if finish else stopping.settled(shown, request.stops)
      if upto > row.shown:
        on_text(request.key, shown[row.shown : upto])
        row.shown = upto
    if finish is None:
      return None
    return Completion(
      *(request.key, text, tuple(row.tokens), tuple(row.log_probs), finish),
      end if finish == "eos" else None,
    )


_empty: Callable[..., loop.State] = jax.jit(loop.empty, static_argnums=(0, 1, 2))


def _bucket(item: tuple[list[int], _Row], most: int) -> int:
  """Return the padded length of what is read of a prompt: few sizes to compile."""
  length = len(item[0]) - 1  # the last token is read by the first decode step
  return min(max(_SHORTEST_BUCKET, 1 << (length - 1).bit_length()), most)


def _random_key(request: Request) -> np.ndarray:
  """Return two uint32 that depend on the request's key and seed only."""
  digest = hashlib.sha256(f"{request.seed}\n{request.key}".encode()).digest()
  return np.frombuffer(digest[:8], np.uint32)
