"""Asks a model for many things: in order, paid once, within the budget.

    with Asker(config) as asker:
      for outcome in asker.ask(requests, parse):
        ...

Whatever interrupts this, the same lines run again give the same outcomes in the same
order, and pay for nothing that is in the journal.
"""

import collections
import dataclasses
import functools
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

from phi1_jax import InputError
from phi1_jax.llm import budget, conversation, office, prices
from phi1_jax.llm.budget import BudgetError
from phi1_jax.llm.client import RequestError
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Answered, Failed, Turn
from phi1_jax.llm.journal import Journal
from phi1_jax.llm.link import Link
from phi1_jax.llm.office import Order
from phi1_jax.llm.progress import Bill, Estimate, Snapshot
from phi1_jax.llm.request import Request, likely_prompt_tokens, most_prompt_tokens

T = TypeVar("T")
log = logging.getLogger(__name__)

_AHEAD = 4  # requests taken ahead of the outcomes, for each that may be under way
_ASK_AGAIN = (
  "\nrun the same command to ask again; with Llm.skip_unanswered it goes on without"
)
_SILENCE = 0.2  # seconds without news after which a batch is not held back any more
_SLOW_END = 2.0  # seconds after which it is said what the end waits for


@dataclasses.dataclass
class _Slot:
  """A request on its way to its outcome."""

  turn: Turn
  parse: Callable[[str], Any]
  fresh: bool = False  # it needed the courier
  outcome: Answered[Any] | Failed | Exception | None = None


class Asker:
  """One model, one journal, one budget. A context manager, for one thread.

  A run whose replies are all in the journal needs no key, no network and no `openai`.

  Args:
    config: what to ask, and what may be spent.
    on_progress: is told how the run stands, after every outcome and while it waits.

  Raises:
    InputError: an unknown price, or a journal that is none or is damaged.
  """

  def __init__(
    self,
    config: LlmConfig,
    on_progress: Callable[[Snapshot], None] | None = None,
  ):
    self._config, self._on_progress = config, on_progress
    self._base_price = prices.find(config)
    batch = config.api == "batch"
    self._price = self._base_price.batch() if batch else self._base_price
    self._cap = prices.picodollars(config.budget_usd)
    self._journal = Journal(Path(config.journal), log.warning)
    account = self._journal.account
    self._money = [account.spent, account.doubtful, 0, account.doubtful_calls]
    self._link: Link | None = None
    self._pending: dict[str, list[_Slot]] = {}
    self._stopped: dict[str, Any] | None = None
    self._unflushed = False
    self._done, self._fresh, self._begun = 0, 0, time.monotonic()
    self._total: int | None = None
    self._note = ""
    if account.doubtful_calls:
      log.warning(
        "%s: %d calls were sent and never heard of again; they may have been billed, "
        "so %s is counted for them",
        config.journal,
        account.doubtful_calls,
        prices.text(account.doubtful),
      )

  def __enter__(self) -> "Asker":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def ask(
    self,
    requests: Iterable[Request],
    parse: Callable[[str], T],
    total: int | None = None,
  ) -> Iterator[Answered[T] | Failed]:
    """Yields an outcome for each request, in their order.

    Requests are taken from the iterable as they are needed, and a few ahead. Progress
    is counted anew by each `ask`; the money is the whole journal's.

    Args:
      requests: what to ask. The same request twice is one call, and two outcomes.
      parse: makes a value of a reply's text, or raises Malformed. It must give the same
        for the same text: it is called again on every rerun.
      total: how many requests there are, if they have no length.

    Raises:
      InputError: the endpoint refuses the key, the model or all requests.
      BudgetError: the next request might cost more than is left.
      RequestError: a request got no answer after all attempts, the account is empty, or
        the disk is full. Before any of these, what was under way has been journalled.
    """
    self._done, self._fresh, self._begun = 0, 0, time.monotonic()
    self._total = len(requests) if isinstance(requests, Sized) else total
    source, slots = iter(requests), collections.deque[_Slot]()
    batch = self._config.api == "batch"
    ahead = self._config.batch_requests if batch else _AHEAD * self._config.concurrency
    while True:
      for request in itertools.islice(source, ahead - len(slots)):
        slots.append(self._begin(request, parse))
      if not slots:
        return
      self._listen(0.0)
      while (outcome := slots[0].outcome) is None:
        if self._stopped is not None:
          raise self._stop_error(slots)
        self._wait()
      if isinstance(outcome, Exception):
        raise outcome
      self._done += 1
      self._fresh += slots.popleft().fresh
      self._report()
      yield outcome

  def estimate(self, requests: Iterable[Request]) -> Estimate:
    """What requests would cost; sends nothing."""
    seen: set[str] = set()
    paid = expected = worst = 0
    account, mean = self._journal.account, self._journal.mean_completion()
    under_way = {key for batch in account.batches for key in batch.calls}
    for request in requests:
      key = request.key(self._config)
      if key in seen:
        continue
      seen.add(key)
      if key in self._journal or key in under_way:
        paid += 1
        continue
      body, most = request.body(self._config), request.max_tokens
      tokens = math.ceil(most / 2 if mean is None else min(mean, most))
      expected += self._price.cost(likely_prompt_tokens(body), tokens)
      worst += self._price.cost(most_prompt_tokens(body), most)
    return Estimate(
      requests=len(seen),
      already_paid=paid,
      to_send=len(seen) - paid,
      expected=expected,
      worst=worst,
      spent=self._money[0] + self._money[1],
      cap=self._cap,
    )

  def bill(self) -> Bill:
    """What the journal has cost, complete at the end of an `ask` and once closed."""
    spent, doubtful, _, calls = self._money
    return Bill(spent=spent, doubtful=doubtful, doubtful_calls=calls)

  def close(self) -> None:
    """Waits until what is under way is journalled, and lets the next run in."""
    self._pending.clear()
    try:
      if self._link is not None:
        said = False
        for message in self._link.close(_SLOW_END):
          if message:
            self._hear(message)
          elif not said:
            said = True
            log.warning(
              "waiting for the replies under way, which are paid for; an interruption "
              "(Ctrl-C) leaves that to a process in the background"
            )
    finally:
      self._link = None
      self._journal.close()

  def _begin(self, request: Request, parse: Callable[[str], Any]) -> _Slot:
    slot = _Slot(Turn(request, request), parse)
    self._advance(slot)
    return slot

  def _advance(self, slot: _Slot) -> None:
    """Takes what the journal has; asks for what it has not."""
    while True:
      key = slot.turn.request.key(self._config)
      if key not in self._journal:
        break
      read = functools.partial(self._journal.read, key)
      step = conversation.respond(slot.turn, key, read, slot.parse)
      if not isinstance(step, Turn):
        slot.outcome = step
        return
      slot.turn = step
    slot.fresh = True
    self._pending.setdefault(key, []).append(slot)
    if len(self._pending[key]) == 1 and self._stopped is None:
      self._send(key, slot.turn.request)

  def _send(self, key: str, request: Request) -> None:
    body = request.body(self._config)
    about = {
      "prompt_id": request.prompt_id,
      "prompt_version": request.prompt_version,
      "sample": request.sample,
    }
    ask = {
      "key": key,
      "body": body,
      "about": about,
      "reserve": self._price.cost(most_prompt_tokens(body), request.max_tokens),
      "tokens": likely_prompt_tokens(body) + request.max_tokens,
    }
    if self._link is None:
      self._link = self._open()
    self._link.send(ask)
    self._unflushed = True

  def _open(self) -> Link:
    folder = Path(self._config.journal)
    if self._journal.lock is None:
      raise InputError(
        f"Llm.journal: {folder} cannot be written to, and does not hold all replies"
      )
    order = Order(
      folder=str(folder),
      pid=os.getpid(),
      config=dataclasses.asdict(self._config),
      price=dataclasses.asdict(self._base_price),
      cap=self._cap,
      account=dataclasses.asdict(self._journal.account),
    )
    return Link(folder, self._journal.lock, dataclasses.asdict(order))

  def _wait(self) -> None:
    """Waits for news; without any, nothing is held back any longer."""
    heard = self._listen(_SILENCE)
    if not heard and self._unflushed and self._link is not None:
      self._link.send({"flush": True})
      self._unflushed = False
    self._report()

  def _listen(self, seconds: float) -> bool:
    heard = False
    if self._link is not None and self._stopped is None:
      for message in self._link.receive(seconds):
        heard = True
        self._hear(message)
    return heard

  def _hear(self, message: dict[str, Any]) -> None:
    self._money = message["money"]
    text = message.get("text", "")
    if "reply" in message:
      key = message["reply"]
      self._journal.add(key, message["offset"], message["tokens"])
      for slot in self._pending.pop(key, []):
        self._advance(slot)
    elif "refused" in message:
      key = message["refused"]
      for slot in self._pending.pop(key, []):
        slot.outcome = conversation.refused(slot.turn, key, text, slot.parse)
    elif "unanswered" in message:
      self._give_up(message["unanswered"], text, message["opened"])
    elif "note" in message:
      self._note = message["note"]
      log.info(self._note)
    elif "stop" in message:
      self._stopped = message

  def _give_up(self, key: str, text: str, opened: bool) -> None:
    for slot in self._pending.pop(key, []):
      if self._config.skip_unanswered and opened:
        slot.outcome = Failed(slot.turn.origin, f"unanswered: {text}", key)
      else:
        slot.outcome = RequestError(text + _ASK_AGAIN)

  def _stop_error(self, slots: Iterable[_Slot]) -> Exception:
    """What the courier's last message means."""
    assert self._stopped is not None
    kind, text = self._stopped["stop"], self._stopped["text"]
    if kind == office.INPUT:
      return InputError(text)
    if kind == office.FAILED:
      return RequestError(text)
    answered = self._done + sum(slot.outcome is not None for slot in slots)
    left = None if self._total is None else self._total - answered
    mean = self._money[0] // max(1, len(self._journal))
    return BudgetError(
      budget.exhausted(self._cap, self._money, self._stopped["need"], mean, left)
    )

  def _report(self) -> None:
    if self._on_progress is None:
      return
    spent, doubtful, reserved, calls = self._money
    seconds = time.monotonic() - self._begun
    rate = self._fresh / seconds if seconds > 0 else 0.0
    eta = None
    if self._total is not None and rate > 0:
      eta = (self._total - self._done) / rate
    self._on_progress(
      Snapshot(
        done=self._done,
        total=self._total,
        spent=spent,
        left=self._cap - spent - doubtful - reserved,
        doubtful=doubtful,
        doubtful_calls=calls,
        rate=rate,
        eta_seconds=eta,
        note=self._note,
      )
    )
