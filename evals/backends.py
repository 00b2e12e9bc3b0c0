"""Sources of completions: a checkpoint of ours, or an OpenAI-compatible endpoint."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing import pool
from typing import TYPE_CHECKING, Any

from evals import prompts
from evals.config import EvaluationConfig
from phi1_jax.llm.completions import CompletionsClient, RefusedError, RequestError

if TYPE_CHECKING:  # JAX is loaded when it is first needed
  from phi1_jax.sampling.checkpoint import Loaded
  from phi1_jax.storage import AnyPath

_TOO_LONG = re.compile(
  r"context.?length|maximum (context|length)|too many tokens|prompt is too long"
  r"|\d tokens"
)
_PATIENCE = 60.0  # seconds without an answer until a line says so
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Wanted:
  """A request for one completion."""

  key: str  # a digest of its content; with the seed it decides the random numbers
  prompt: str  # the text to continue
  name: str = ""  # for messages


@dataclasses.dataclass(frozen=True)
class Generated:
  """The completion of the request with the same key."""

  key: str  # of the request
  text: str  # raw; it may go on beyond a stop string
  finish: str  # "stop", "eos", "length", "prompt_too_long", or an endpoint's own word
  tokens: int | None  # how many; None if unknown
  log_probs: float | None  # their sum; None if unknown
  seconds: float  # how long the request took, with its time in the queue of a batch


class CheckpointBackend:
  """This project's sampler on a checkpoint, which is opened for the first sample.

  Args:
    source: a work directory, a checkpoints folder, one step folder, or a loaded model.
    config: how to sample.

  Raises:
    InputError: no checkpoint there, or a damaged one.
  """

  def __init__(self, source: "str | AnyPath | Loaded", config: EvaluationConfig):
    from phi1_jax.checkpoint.checkpoint import Checkpoint  # imports JAX
    from phi1_jax.sampling.checkpoint import Loaded

    self._config, self._loaded, self._slots = config, None, None
    self._consumed = False  # the sampler has freed what was loaded
    if isinstance(source, Loaded):
      self._loaded, self._checkpoint = source, None
      self._digest, self._dtype = source.digest, source.config.dtype
      return
    self._checkpoint = Checkpoint.find(source)
    self._digest = self._checkpoint.digest
    self._dtype = config.dtype or self._checkpoint.model().dtype

  def identity(self) -> dict[str, Any]:
    """Return the digest of parameters and tokenizer, and the dtype."""
    return {"kind": "checkpoint", "digest": self._digest, "dtype": self._dtype}

  def facts(self) -> dict[str, Any]:
    """Return path, step and tokens; of a loaded model also devices and sizes."""
    loaded = self._loaded
    if loaded is None:
      assert self._checkpoint is not None
      meta = self._checkpoint.meta
      facts = {name: meta.get(name) for name in ("step", "tokens_seen")}
      return {"checkpoint": str(self._checkpoint.path), **facts}
    import jax

    return {
      "checkpoint": loaded.path and str(loaded.path),
      "step": loaded.step,
      "tokens_seen": loaded.tokens_seen,
      "parameters": loaded.config.num_parameters(),
      "devices": loaded.mesh.size,
      "device_kind": jax.devices()[0].device_kind,
      "slots": self._slots,
      "versions": _versions("jax", "jaxlib", "flax"),
    }

  def complete(self, wanted: Sequence[Wanted]) -> Iterator[Generated]:
    """Sample; load the model first, a copy on every device, if it is not loaded."""
    from phi1_jax.sampling import methods, sampler
    from phi1_jax.sampling.checkpoint import (
      for_many_texts,
      one_host_mesh,
      open_checkpoint,
    )

    config, consume = self._config, False
    if self._loaded is None or self._consumed:
      assert self._checkpoint is not None
      mesh = one_host_mesh(for_many_texts(self._checkpoint))
      self._loaded = open_checkpoint(self._checkpoint, mesh, self._dtype)
      # Frees the parameters after the sampler has copied them.
      self._consumed = consume = True
    method = methods.Method(config.temperature, config.top_k, config.top_p)
    worker = sampler.Sampler(self._loaded, method, slots=config.slots, consume=consume)
    self._slots = worker.slots
    stops = prompts.stops(config.prompt_style)
    requests = [
      sampler.Request(w.key, w.prompt, config.max_new_tokens, stops, config.seed)
      for w in wanted
    ]
    started = time.monotonic()
    for done in worker.complete(requests):
      tokens, log_probs = len(done.tokens), sum(done.log_probs)
      seconds = time.monotonic() - started
      yield Generated(done.key, done.text, done.finish, tokens, log_probs, seconds)


def _versions(*names: str) -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in names}


class EndpointBackend:
  """A model behind an OpenAI-compatible endpoint.

  Every request has its own seed, made of its key. If a request fails for good, the
  others continue, and then the failure is raised. The endpoint bills what was sent, so
  its answers are waited for in any case.

  Args:
    client: the endpoint.
    config: how to sample; `slots` requests run at once.
  """

  def __init__(self, client: CompletionsClient, config: EvaluationConfig):
    self._client, self._config = client, config

  def identity(self) -> dict[str, Any]:
    """Return address and name; whether the weights behind them change is unknown."""
    client = self._client
    found = {"kind": "endpoint", "base_url": client.base_url, "model": client.model}
    return found | ({"api": "chat"} if client.api == "chat" else {})

  def facts(self) -> dict[str, Any]:
    """Return the client's version, and the fields that the server refused."""
    return {
      "slots": self._config.slots,
      "versions": _versions("openai"),
      "fields_refused": sorted(self._client.left_out),
    }

  def complete(self, wanted: Sequence[Wanted]) -> Iterator[Generated]:
    """Send all requests.

    Raises:
      InputError: the endpoint refuses the key or the model.
      RequestError: some failed.
      KeyboardInterrupt: Ctrl-C, which is held back from the caller's thread too.
      In each case the completions that had succeeded, or whose requests were running,
      are yielded before; only a second Ctrl-C, or closing the iterator, omits them.
    """
    failures: list[tuple[Wanted, RequestError]] = []
    ended: BaseException | None = None
    stop = threading.Event()

    def send(request: Wanted) -> tuple[Wanted, Generated | BaseException | None]:
      try:
        return request, None if stop.is_set() else self._generate(request)
      except BaseException as error:  # the other thread waits for any of them
        return request, error

    # Its threads are daemons, which the interpreter does not wait for at its exit.
    threads = pool.ThreadPool(max(1, min(self._config.slots, len(wanted))))
    with threads, _first_interrupt(stop) as interrupted:
      try:
        results = threads.imap_unordered(send, wanted)
        for request, outcome in _each(results, len(wanted), self._client.base_url):
          if isinstance(outcome, Generated):
            yield outcome
          elif isinstance(outcome, RequestError):
            failures.append((request, outcome))
          elif outcome is not None:  # no other request would succeed
            stop.set()
            ended = ended or outcome
      finally:
        stop.set()
    if interrupted.is_set():
      raise KeyboardInterrupt
    if ended:
      raise ended
    if failures:
      request, error = failures[-1]
      again = "the same command asks for them again"
      if refused := [each for each in failures if isinstance(each[1], RefusedError)]:
        request, error = refused[-1]
        again = f"{len(refused)} of them for good{_advice(str(error))}"
      raise RequestError(
        f"{len(failures)} of {len(wanted)} requests failed, {again}; the last, "
        f"{request.name or request.key}: {error}"
      )

  def _generate(self, wanted: Wanted) -> Generated:
    config = self._config
    reply = self._client.complete(
      wanted.prompt,
      max_tokens=config.max_new_tokens,
      temperature=config.temperature,
      top_p=config.top_p,
      top_k=config.top_k,
      stops=prompts.stops(config.prompt_style),
      seed=request_seed(config.seed, wanted.key),
    )
    return Generated(
      wanted.key, reply.text, reply.finish, reply.tokens, reply.log_prob, reply.seconds
    )


def _advice(refusal: str) -> str:
  """Return what may help against a refusal, by what the server says of it."""
  said = (refusal.partition("refused with ")[2] or refusal).lower()
  if "temperature" in said:
    return ": in another --workdir give --gin.Evaluation.temperature=1"
  if _TOO_LONG.search(said):
    return (
      ": in another --workdir lower Evaluation.max_new_tokens, or leave them out with "
      "--subset"
    )
  return ""


def _each(results: Any, number: int, endpoint: str) -> Iterator[Any]:
  """Yield a pool's results. A signal just before a wait is noticed within a second.

  CPython runs handlers between waits, and one without a limit might never end. Waiting
  for the `number` results of an endpoint is logged after a minute, two, four and so on.
  """
  since, patience = time.monotonic(), _PATIENCE
  while True:
    try:
      result = results.next(timeout=1.0)
    except StopIteration:
      return
    except multiprocessing.TimeoutError:
      if (waited := time.monotonic() - since) >= patience:
        log.warning("waiting for %d answers of %s for %.0f s", number, endpoint, waited)
        patience *= 2
      continue
    yield result
    since, patience, number = time.monotonic(), _PATIENCE, number - 1


def request_seed(seed: int, key: str) -> int:
  """Return a seed below 2^31, which many servers take, decided by seed and key."""
  content = f"{seed}\n{key}".encode()
  return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 1


Backend = CheckpointBackend | EndpointBackend


@contextlib.contextmanager
def _first_interrupt(stop: threading.Event) -> Iterator[threading.Event]:
  """Have the first Ctrl-C only set `stop` and the event; the next one raises.

  Changes nothing where Ctrl-C does not raise anyway (another thread, own handler).
  """
  interrupted = threading.Event()
  line = (
    b"\nstopping: waiting for requests that are sent, which are billed; Ctrl-C once "
    b"more to quit at once\n"
  )

  def note(*_: object) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted.set()
    stop.set()
    # `print` is not safe in a handler that may have interrupted another.
    with contextlib.suppress(OSError):
      os.write(2, line)

  main = threading.current_thread() is threading.main_thread()
  if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    yield interrupted
    return
  signal.signal(signal.SIGINT, note)
  try:
    yield interrupted
  finally:
    signal.signal(signal.SIGINT, signal.default_int_handler)
