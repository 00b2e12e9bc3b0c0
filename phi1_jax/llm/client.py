"""Asks a model for many replies: in order, each paid once, within the budget.

    with Client(config) as client:
      for outcome in client.ask(requests, parse):
        ...

However this is interrupted, the same lines run again give the same outcomes in the same
order and pay for nothing that is in the journal.
"""

import collections
import dataclasses
import itertools
import json
import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

from phi1_jax import InputError
from phi1_jax.llm import conversation, prices, sender
from phi1_jax.llm.budget import Budget, BudgetError, Estimate, Progress
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Answered, Failed
from phi1_jax.llm.endpoint import RequestError, api_key
from phi1_jax.llm.journal import Call, Journal
from phi1_jax.llm.process import FLUSH, SenderProcess
from phi1_jax.llm.reply import Reply
from phi1_jax.llm.request import Request, likely_prompt_tokens, most_prompt_tokens

__all__ = ["BudgetError", "Client", "RequestError"]

T = TypeVar("T")
log = logging.getLogger(__name__)

_AHEAD = 4  # requests taken ahead of the outcomes, for each that may be in flight
_BATCHES_AHEAD = 4  # the same in batches
_ASK_AGAIN = (
  "\nrun the same command to ask again; with Llm.skip_unanswered it goes on without"
)
_SILENCE = 0.2  # seconds without a message after which batches are submitted


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
    ahead = _AHEAD * self._config.concurrency
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
        if not self._listen(_SILENCE) and self._sender is not None:
          self._sender.send(FLUSH)
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
      key = request.key(self._config)
      if key in seen:
        continue
      seen.add(key)
      if self._journal.has(key) or key in in_batch:
        continue
      to_send += 1
      most = request.most_tokens(self._config)
      tokens = math.ceil(most / 2 if mean is None else min(mean, most))
      prompt = likely_prompt_tokens(request.body(self._config))
      expected += self._price.cost(prompt, tokens)
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
    while found := self._journal.read(key := slot.request.key(self._config)):
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
    content = slot.request.content(self._config)
    tokens = likely_prompt_tokens(content["body"])
    tokens += slot.request.most_tokens(self._config)
    call = Call(key, self._worst(slot.request), json.dumps(content), tokens)
    self._sender.send(dataclasses.asdict(call))

  def _listen(self, seconds: float | None) -> bool:
    """Take the messages that come within so long; return whether there were some."""
    messages = list(self._sender.receive(seconds)) if self._sender else []
    for message in messages:
      if "budget" in message:
        self.budget = Budget(**message["budget"])
      text = message.get("text", "")
      if "reply" in message:
        for slot in self._pending.pop(message["reply"], []):
          self._advance(slot)
      elif key := message.get("failed"):
        error = RequestError(text + _ASK_AGAIN) if message["fatal"] else None
        for slot in self._pending.pop(key, []):
          slot.outcome = error or Failed(slot.origin, text, key)
      elif "note" in message:
        self._note = message["note"]
        log.log(logging.WARNING if "wait" in message else logging.INFO, self._note)
      elif "stop" in message:
        self._stopped = self._stopped or message
    return bool(messages)

  def _stop_error(self, slots: Iterable[_Slot]) -> Exception:
    assert self._stopped is not None
    kind, text = self._stopped["stop"], self._stopped["text"]
    if kind == sender.INPUT:
      return InputError(text)
    if kind == sender.FAILED:
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
