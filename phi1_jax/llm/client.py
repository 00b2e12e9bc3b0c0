"""Asks a model for many replies: in order, each paid once, within the budget.

    with Client(config) as client:
      for outcome in client.ask(requests, parse):
        ...

However this is interrupted, the same lines run again give the same outcomes in the same
order and pay for nothing that is in the journal.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from phi1_jax import InputError
from phi1_jax.llm import conversation, prices, session
from phi1_jax.llm.budget import Budget, BudgetError, Estimate, Progress
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Answered, Failed
from phi1_jax.llm.endpoint import RequestError, api_key
from phi1_jax.llm.journal import Call, Journal
from phi1_jax.llm.reply import Reply
from phi1_jax.llm.request import (
  Request,
  digest,
  likely_prompt_tokens,
  most_prompt_tokens,
)
from phi1_jax.llm.sender import FLUSH, HOPELESS

__all__ = ["BudgetError", "Client", "RequestError"]

T = TypeVar("T")
log = logging.getLogger(__name__)

_AHEAD = 4  # requests taken ahead of the outcomes, for each that may be in flight
_BATCHES_AHEAD = 4  # the same in batches
_ASK_AGAIN = (
  "\nrun the same command to ask again; with Llm.skip_unanswered it goes on without"
)
_SILENCE = 0.2  # seconds without a message after which batches are submitted
_LOG = "sender.log"  # in the journal's folder


@dataclasses.dataclass
class _Slot:
  """A request on its way to its outcome."""

  origin: Request
  turns: Generator[Request, Reply, Any]  # see `conversation.converse`
  request: Request  # the last that it yielded
  outcome: Answered[Any] | Failed | Exception | None = None


class Client:
  """One model, one journal, one budget. A context manager, for one thread.

  A run whose replies are all in the journal needs no key, no network and no `openai`.

  Args:
    config: the settings.
    on_progress: called after every outcome and while waiting.

  Attributes:
    model: the endpoint's name for the model.
    budget: the journal's money, complete at the end of an `ask` and once closed.

  Raises:
    InputError: an unknown price, or a journal that cannot be used.
  """

  def __init__(
    self,
    config: LlmConfig,
    on_progress: Callable[[Progress], None] | None = None,
  ):
    self._config, self._on_progress, self.model = config, on_progress, config.model
    price = prices.find(config)
    self._price = price.batch() if config.api == "batch" else price
    self._journal = Journal(Path(config.journal))
    self.budget = self._journal.budget(prices.picodollars(config.budget_usd))
    self._sender: SenderProcess | None = None
    self._pending: dict[str, list[_Slot]] = {}
    self._stopped: dict[str, Any] | None = None
    self._unflushed = False
    self._used = collections.Counter[str]()  # of all outcomes
    self._done = 0
    self._total: int | None = None
    self._note = ""

  def __enter__(self) -> "Client":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def ask(
    self,
    requests: Iterable[Request],
    parse: Callable[[str], T],
    total: int | None = None,
  ) -> Iterator[Answered[T] | Failed]:
    """Yield an outcome for each request, in their order.

    Requests are taken from the iterable as they are needed, and a few ahead. Each `ask`
    counts its progress from 0; the money is that of the whole journal.

    Args:
      requests: equal requests are sent once.
      parse: returns a value for a reply's text, or raises Malformed. It must be a
        function of the text, since a rerun calls it again.
      total: number of requests, if they have no length.

    Raises:
      InputError: the endpoint refuses the key, the model or all requests.
      BudgetError: the next request may cost more than is left.
      RequestError: a request got no reply after all attempts, the account is empty, or
        the disk is full. All replies in flight are committed first.
    """
    self._done = 0
    self._total = len(requests) if isinstance(requests, Sized) else total
    source, slots = iter(requests), collections.deque[_Slot]()
    # The sender has to see whether more than `HOPELESS` are left.
    ahead = max(_AHEAD * self._config.concurrency, HOPELESS + 1)
    if self._config.api == "batch":
      ahead = _BATCHES_AHEAD * self._config.batch_requests
    while True:
      for request in itertools.islice(source, ahead - len(slots)):
        turns = conversation.converse(request, parse)
        slots.append(_Slot(request, turns, next(turns)))
        self._advance(slots[-1])
      if not slots:
        return
      self._listen(0.0)
      while (outcome := slots[0].outcome) is None:
        if self._stopped is not None:
          raise self._stop_error(slots)
        heard = self._listen(_SILENCE)
        if not heard and self._unflushed and self._sender is not None:
          self._sender.send(FLUSH)
          self._unflushed = False
        self._report()
      if isinstance(outcome, Exception):
        raise outcome
      self._done += 1
      slots.popleft()
      if isinstance(outcome, Failed):
        self._used["failed"] += 1
      else:
        money, usage = outcome.reply.picodollars, outcome.reply.usage or (0, 0)
        self._used.update(replies=1, tokens=sum(usage), picodollars=money)
      self._report()
      yield outcome

  def estimate(self, requests: Iterable[Request]) -> Estimate:
    """Return what requests would cost; send nothing."""
    to_send = expected = worst = 0
    mean, seen = self._journal.mean_completion(), set[str]()
    in_batch = {key for b in self._journal.open_batches() for key in b.calls}
    for request in requests:
      content = request.content(self._config)
      key = digest(content)
      if key in seen:
        continue
      seen.add(key)
      if self._journal.has(key) or key in in_batch:
        continue
      to_send += 1
      most = request.most_tokens(self._config)
      tokens = math.ceil(most / 2 if mean is None else min(mean, most))
      expected += self._price.cost(likely_prompt_tokens(content["body"]), tokens)
      turns = conversation.worst_turns(request)
      worst += self._config.attempts * sum(map(self._worst, turns))
    return Estimate(len(seen), to_send, expected, worst, self.budget)

  def identity(self) -> dict[str, Any]:
    """Return the settings that decide the replies beside the requests."""
    return {"model": self.model, "extra": self._config.extra}

  def facts(self) -> dict[str, Any]:
    """Return the model, and the cost of the replies used and of all others."""
    return {
      "models": [self.model],
      "cost": {
        "replies used": f"{self._used['replies']:,}",
        "requests without a usable reply": f"{self._used['failed']:,}",
        "tokens of the replies used and their prompts": f"{self._used['tokens']:,}",
        "paid for the replies used": prices.text(self._used["picodollars"]),
        "journal with every reply": self._config.journal,
        "paid for everything in the journal so far": prices.text(self.budget.spent),
        "counted for calls in doubt": prices.text(self.budget.doubtful),
      },
    }

  def close(self) -> None:
    """Wait until all replies in flight are committed."""
    if self._sender is not None:
      if self._pending:
        log.warning(
          "waiting for the replies in flight, which are paid for; after Ctrl-C a "
          "process in the background waits for them"
        )
      self._pending.clear()
      self._sender.end()
      while not self._sender.gone:
        self._listen(None)
      self._sender = None
    self._journal.close()

  def _worst(self, request: Request) -> int:
    most = request.most_tokens(self._config)
    return self._price.cost(most_prompt_tokens(request.body(self._config)), most)

  def _advance(self, slot: _Slot) -> None:
    """Use the replies in the journal; send a request that has none."""
    while True:
      content = slot.request.content(self._config)
      key = digest(content)
      if (found := self._journal.read(key)) is None:
        break
      try:
        slot.request = slot.turns.send(found)
      except StopIteration as ended:
        slot.outcome = ended.value
        return
    waiting = self._pending.setdefault(key, [])
    waiting.append(slot)
    if len(waiting) > 1 or self._stopped is not None:
      return
    if self._sender is None:
      api_key(self._config)  # before a process is started for nothing
      self._sender = SenderProcess(self._config)
    most = slot.request.most_tokens(self._config)
    tokens = likely_prompt_tokens(content["body"]) + most
    call = Call(key, self._worst(slot.request), json.dumps(content), tokens)
    self._sender.send(dataclasses.asdict(call))
    self._unflushed = True

  def _listen(self, seconds: float | None) -> bool:
    """Hear the messages that come within so long; return whether there were some."""
    heard = False
    for message in self._sender.receive(seconds) if self._sender else ():
      heard = True
      self._hear(message)
    return heard

  def _hear(self, message: dict[str, Any]) -> None:
    if "budget" in message:
      self.budget = Budget(**message["budget"])
    text = message.get("text", "")
    if "reply" in message:
      for slot in self._pending.pop(message["reply"], []):
        self._advance(slot)
    elif key := message.get("failed"):
      for slot in self._pending.pop(key, []):
        failed = Failed(slot.origin, text, key)
        slot.outcome = RequestError(text + _ASK_AGAIN) if message["fatal"] else failed
    elif "note" in message:
      self._note = message["note"]
      log.log(logging.WARNING if "wait" in message else logging.INFO, self._note)
    elif "stop" in message:
      self._stopped = self._stopped or message

  def _stop_error(self, slots: Iterable[_Slot]) -> Exception:
    assert self._stopped is not None
    kind, text = self._stopped["stop"], self._stopped["text"]
    if kind == session.INPUT:
      return InputError(text)
    if kind == session.FAILED:
      return RequestError(text)
    left = 1
    if self._total is not None:
      left = self._total - self._done - sum(s.outcome is not None for s in slots)
    mean = self.budget.spent // max(1, len(self._journal.replies()))
    return self.budget.exhausted(self._stopped["need"], mean * left * 5 // 4)

  def _report(self) -> None:
    if self._on_progress is not None:
      progress = Progress(self._done, self._total, self.budget, self._note)
      self._on_progress(progress)


class SenderProcess:
  """A sender in a process of its own, and a socket to it.

  Attributes:
    gone: whether it has ended, and all its messages were received.
  """

  def __init__(self, config: LlmConfig):
    self._log, self._rest, self.gone = Path(config.journal) / _LOG, b"", False
    self._socket, theirs = socket.socketpair()
    self._start(theirs)
    self.send(dataclasses.asdict(config))

  def _start(self, theirs: socket.socket) -> None:
    # It imports what this process would: a checkout may shadow an installed package.
    code = f"import sys; sys.path[:] = {sys.path!r}; from phi1_jax.llm import sender; "
    code += f"sender.main({theirs.fileno()}, {os.getpid()})"
    with theirs, self._log.open("wb") as errors:
      # In a session of its own, neither Ctrl-C nor the end of a terminal reaches it.
      self.process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
      )

  def send(self, message: Any) -> None:
    """Send a message, unless the sender is gone, as `receive` will say."""
    with contextlib.suppress(OSError):
      self._socket.sendall(json.dumps(message).encode() + b"\n")

  def end(self) -> None:
    """Send nothing more, so that the sender ends."""
    with contextlib.suppress(OSError):
      self._socket.shutdown(socket.SHUT_WR)

  def receive(self, seconds: float | None) -> Iterator[dict[str, Any]]:
    """Yield the messages that are there, or come within so long."""
    while not self.gone and wait([self._socket], seconds):
      received = b""
      with contextlib.suppress(OSError):
        received = self._socket.recv(1 << 20)
      *lines, self._rest = (self._rest + received).split(b"\n")
      yield from map(json.loads, lines)
      seconds = 0.0
      if not received:
        self._socket.close()
        yield {"stop": session.FAILED, "text": self._end()}

  def _end(self) -> str:
    """Wait until the sender has ended; return the error that this is for a run."""
    code, self.gone = self._ended(), True
    lines = self._log.read_text(errors="replace").strip().splitlines()
    last = f" ({lines[-1]})" if lines else ""
    return (
      f"the process that asks the model ended with {code}{last}; see {self._log}\n"
      "nothing is lost: run the same command again"
    )

  def _ended(self) -> int:
    """Wait until it has ended; return the exit code."""
    return self.process.wait()
