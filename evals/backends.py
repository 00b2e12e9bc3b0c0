"""Where completions come from: a checkpoint of ours, or somebody's endpoint."""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import queue
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from evals.config import EvaluationConfig
from phi1_jax.llm.completions import CompletionsClient, RequestError

if TYPE_CHECKING:  # JAX is loaded when it is first needed
  from phi1_jax.sampling.checkpoint import Loaded
  from phi1_jax.storage import AnyPath


@dataclasses.dataclass(frozen=True)
class Wanted:
  """One completion that is wanted.

  Attributes:
    key: names it by its content; with `seed` it decides the random numbers.
    prompt: what to continue.
    stops: strings of which the first ends it.
    max_new_tokens: the most tokens to sample.
    seed: another one gives another sample.
    name: what a complaint calls it.
  """

  key: str
  prompt: str
  stops: tuple[str, ...]
  max_new_tokens: int
  seed: int
  name: str = ""


@dataclasses.dataclass(frozen=True)
class Generated:
  """What came back for a key.

  Attributes:
    key: whose.
    text: raw; it may go on beyond a stop string.
    finish: "stop", "eos", "length", "prompt_too_long", or an endpoint's own word.
    tokens: how many; None if unknown.
    log_probs: their sum; None if unknown.
    seconds: how long the request took, its time in the queue of a batch included.
  """

  key: str
  text: str
  finish: str
  tokens: int | None
  log_probs: float | None
  seconds: float


class Backend(Protocol):
  """Makes completions."""

  def identity(self) -> dict[str, Any]:
    """Which model this is, without loading it; part of every key."""
    ...

  def facts(self) -> dict[str, Any]:
    """What to record beside it: step, tokens seen, devices, versions."""
    ...

  def complete(self, wanted: Sequence[Wanted]) -> Iterator[Generated]:
    """Yields completions as they finish."""
    ...


class LoadedBackend:
  """This project's sampler on a model that lies on its devices already.

  Args:
    loaded: the model.
    config: how to sample.
    consume: free the model's parameters, of which the sampler makes its own.
  """

  def __init__(
    self, loaded: "Loaded", config: EvaluationConfig, *, consume: bool = False
  ):
    self._loaded, self._config, self._consume = loaded, config, consume
    self._slots: int | None = None

  def identity(self) -> dict[str, Any]:
    """The digest of parameters and tokenizer, and the dtype."""
    return _identity(self._loaded.digest, self._loaded.config.dtype)

  def facts(self) -> dict[str, Any]:
    """Path, step, tokens, devices, sizes and versions."""
    import jax

    loaded = self._loaded
    return {
      "checkpoint": loaded.path and str(loaded.path),
      "step": loaded.step,
      "tokens_seen": loaded.tokens_seen,
      "parameters": loaded.config.num_parameters(),
      "devices": loaded.mesh.size,
      "device_kind": jax.devices()[0].device_kind,
      "slots": self._slots,
      "versions": {
        name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")
      },
    }

  def complete(self, wanted: Sequence[Wanted]) -> Iterator[Generated]:
    """Samples."""
    from phi1_jax.sampling import methods, sampler

    config = self._config
    method = methods.Method(config.temperature, config.top_k, config.top_p)
    worker = sampler.Sampler(
      self._loaded, method, slots=config.slots, consume=self._consume
    )
    self._slots = worker.slots
    requests = [
      sampler.Request(w.key, w.prompt, w.max_new_tokens, w.stops, w.seed)
      for w in wanted
    ]
    started = time.monotonic()
    for done in worker.complete(requests):
      yield Generated(
        done.key,
        done.text,
        done.finish,
        len(done.tokens),
        sum(done.log_probs),
        time.monotonic() - started,
      )


class CheckpointBackend:
  """`LoadedBackend` on a checkpoint, which is opened when it is first sampled from.

  Args:
    checkpoint: a work directory, a checkpoints folder or one step folder.
    config: how to sample.
  """

  def __init__(self, checkpoint: "str | AnyPath", config: EvaluationConfig):
    self._config = config
    from phi1_jax.checkpoint import manager  # imports JAX
    from phi1_jax.checkpoint.description import model_digest, read_meta

    self._folder = manager.find(checkpoint)
    self._meta = read_meta(self._folder)
    try:
      self._digest = model_digest(self._meta)
      self._dtype = config.dtype or self._meta["config"]["model"]["dtype"]
    except KeyError as error:
      raise manager.DamagedError(f"no {error}").refusal(self._folder) from None
    self._opened: LoadedBackend | None = None

  def identity(self) -> dict[str, Any]:
    """The digest of parameters and tokenizer, and the dtype."""
    return _identity(self._digest, self._dtype)

  def facts(self) -> dict[str, Any]:
    """Path, step and tokens; devices and sizes once something was sampled."""
    if self._opened:
      return self._opened.facts()
    return {
      "checkpoint": str(self._folder),
      "step": self._meta["step"],
      "tokens_seen": self._meta.get("tokens_seen"),
    }

  def complete(self, wanted: Sequence[Wanted]) -> Iterator[Generated]:
    """Loads the model, a copy on every device, and samples."""
    from phi1_jax.sampling.checkpoint import one_host_mesh, open_checkpoint

    loaded = open_checkpoint(self._folder, one_host_mesh(), self._dtype)
    self._opened = LoadedBackend(loaded, self._config, consume=True)
    yield from self._opened.complete(wanted)


def _identity(digest: str, dtype: str) -> dict[str, Any]:
  return {"kind": "checkpoint", "digest": digest, "dtype": dtype}


# What came of a request; (None, None) once a thread asks no more.
_Told = queue.SimpleQueue[tuple[Wanted, Generated | BaseException] | tuple[None, None]]


class EndpointBackend:
  """A model behind an OpenAI-compatible endpoint.

  Every request has its own seed, made of its key. A request that fails for good is
  no completion: the others go on, and then the failure is raised. What was sent is
  paid for: whatever ends the asking, its answers are waited for.

  Args:
    client: the endpoint.
    config: how to sample; `slots` requests are under way at once.
  """

  def __init__(self, client: CompletionsClient, config: EvaluationConfig):
    self._client, self._config = client, config

  def identity(self) -> dict[str, Any]:
    """Address and name; nobody can tell whether the weights behind them change."""
    chat = {"api": "chat"} if getattr(self._client, "api", None) == "chat" else {}
    return {
      "kind": "endpoint",
      "base_url": self._client.base_url,
      "model": self._client.model,
      **chat,
    }

  def facts(self) -> dict[str, Any]:
    """The client's version, and the fields that the server refused."""
    version = importlib.metadata.version("openai")
    refused = sorted(getattr(self._client, "left_out", ()))
    return {
      "slots": self._config.slots,
      "versions": {"openai": version},
      "fields_refused": refused,
    }

  def complete(self, wanted: Sequence[Wanted]) -> Iterator[Generated]:
    """Asks for all of them.

    Raises:
      InputError: the endpoint refuses the key or the model.
      RequestError: some failed.
      KeyboardInterrupt: Ctrl-C, which is held back from the caller's thread too.
      In each case what had succeeded, or was still under way, is yielded before; only
      a second Ctrl-C, or closing the iterator, does without it.
    """
    waiting, told = collections.deque(wanted), _Told()
    failures: list[tuple[str, RequestError]] = []
    ended: BaseException | None = None
    working = min(self._config.slots, len(wanted))
    with _held_back(waiting.clear) as interrupted:
      try:
        # Not a pool's threads, which the interpreter waits for at its exit.
        for _ in range(working):
          threading.Thread(target=self._work, args=(waiting, told), daemon=True).start()
        while working:
          one, outcome = told.get()
          if one is None:
            working -= 1
          elif isinstance(outcome, Generated):
            yield outcome
          elif isinstance(outcome, RequestError):
            failures.append((one.name or one.key, outcome))
          else:  # no other request would fare better
            waiting.clear()
            ended = ended or outcome
      finally:
        waiting.clear()
    if interrupted.is_set():
      raise KeyboardInterrupt
    if ended:
      raise ended
    if failures:
      name, error = failures[-1]
      raise RequestError(
        f"{len(failures)} of {len(wanted)} requests failed, the same command asks for "
        f"them again; the last, {name}: {error}"
      )

  def _work(self, waiting: collections.deque[Wanted], told: _Told) -> None:
    """Asks for what waits, until nothing does; tells what came of it, and its end."""
    while True:
      try:
        one = waiting.popleft()
      except IndexError:
        break
      try:
        told.put((one, self._one(one)))
      except BaseException as error:  # whatever it is, somebody waits for it
        told.put((one, error))
    told.put((None, None))

  def _one(self, wanted: Wanted) -> Generated:
    config = self._config
    reply = self._client.complete(
      wanted.prompt,
      max_tokens=wanted.max_new_tokens,
      temperature=config.temperature,
      top_p=config.top_p,
      top_k=config.top_k,
      stops=wanted.stops,
      seed=request_seed(wanted),
    )
    return Generated(
      wanted.key, reply.text, reply.finish, reply.tokens, reply.log_prob, reply.seconds
    )


def request_seed(wanted: Wanted) -> int:
  """A seed that many servers take (below 2^31), decided by seed and key."""
  content = f"{wanted.seed}\n{wanted.key}".encode()
  return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 1


@contextlib.contextmanager
def _held_back(stop: Callable[[], object]) -> Iterator[threading.Event]:
  """Within it, the first Ctrl-C only calls `stop` and sets the event; the next raises.

  Where Ctrl-C does not raise anyway (another thread, somebody's own handler), nothing
  is changed.
  """
  interrupted = threading.Event()

  def note(number: int, frame: types.FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted.set()
    stop()
    # `print` is not safe in a handler that may have interrupted one.
    with contextlib.suppress(OSError):  # nobody reads it
      os.write(
        2,
        b"\nstopping: waiting for what was asked, which is paid for; once more to quit "
        b"at once\n",
      )

  main = threading.current_thread() is threading.main_thread()
  if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    yield interrupted
    return
  signal.signal(signal.SIGINT, note)
  try:
    yield interrupted
  finally:
    signal.signal(signal.SIGINT, signal.default_int_handler)
