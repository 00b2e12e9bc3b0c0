"""OpenAI's Batch API over the same journal: half the price, within 24 hours.

A batch is on the disk before it is anywhere else: its plan under a name that also goes
into the batch's metadata, its asks (batch-NAME.jsonl) and its calls. So one whose id
was never heard is found again by its name. Whatever ends a batch (completion, 24 hours,
somebody's click), its output is paid for, and harvested; the rest is asked again.
"""

import asyncio
import collections
import dataclasses
import json
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path

from phi1_jax.llm import batch_files, office
from phi1_jax.llm.batch_files import Line
from phi1_jax.llm.batch_server import BatchServer, ServerError, State
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.dispatcher import explain
from phi1_jax.llm.journal import OpenBatch
from phi1_jax.llm.ledger import Ask, Call, DiskError, Ledger
from phi1_jax.llm.office import Office
from phi1_jax.llm.sender import Sender, Verdict, judge

_AT_ONCE = 256  # lines of a harvest that share a wait for the disk
_SAID = 200  # characters of an unforeseen error's message that are passed on
log = logging.getLogger(__name__)


class Batches:
  """Gathers asks into batches, and brings them in; also those of earlier runs.

  Args:
    config: what goes into a batch, and how often to look at it.
    ledger: budget and journal.
    sender: the endpoint.
    desk: whom to tell.
    opened: the batches that earlier runs left open.
    dispatch: takes what is not for a batch.
  """

  def __init__(
    self,
    config: LlmConfig,
    ledger: Ledger,
    sender: Sender,
    desk: Office,
    opened: Sequence[OpenBatch],
    dispatch: Callable[[Ask], None],
  ):
    self._config, self._ledger, self._office = config, ledger, desk
    self._server = BatchServer(config, sender, desk, random.Random())
    self._opened, self._dispatch = opened, dispatch
    self._under_way = {key for batch in opened for key in batch.calls}
    self._held: dict[str, Ask] = {}  # what this run asks for and a batch holds
    self._refused: dict[str, str] = {}  # what a batch's lines said of them
    self._gathered: list[Ask] = []
    self._flushed = False
    self._changed = asyncio.Event()
    self._tasks: set[asyncio.Task[None]] = set()
    self._attempts: collections.Counter[str] = collections.Counter()

  def take(self, ask: Ask) -> None:
    """Takes an ask to wherever it belongs."""
    if ask.key in self._refused:  # perhaps before this run came to it
      self._office.tell(refused=ask.key, text=self._refused[ask.key])
    elif ask.key in self._under_way:
      self._held[ask.key] = ask
    elif self._config.api == "batch":
      self._gathered.append(ask)
    else:
      self._dispatch(ask)

  def flush(self) -> None:
    """Holds nothing back any more: the run waits."""
    self._flushed = True
    self._changed.set()

  async def work(self) -> None:
    """Submits and harvests until told to stop; the next run takes up what is open."""
    for batch in self._opened:
      self._start(self._resume(batch))
    while not self._office.stopping:
      self._changed.clear()
      if self._flushed:
        await self._guard(self._submit_what_fits())
      await self._office.wait(None, self._changed)
    while self._tasks:
      await asyncio.wait(self._tasks)

  def _start(self, work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(self._guard(work))
    self._tasks.add(task)

    def done(task: asyncio.Task[None]) -> None:
      self._tasks.discard(task)
      self._changed.set()  # its money may let another batch go

    task.add_done_callback(done)

  async def _guard(self, work: Coroutine[None, None, None]) -> None:
    """Turns what goes wrong into a stop."""
    try:
      await work
    except ServerError as error:
      self._office.stop(error.kind, str(error))
    except DiskError as error:
      self._office.stop(office.FAILED, str(error))
    except OSError as error:
      text = f"{self._ledger.books.folder}: cannot be written ({error.strerror})"
      self._office.stop(office.FAILED, text)
    except Exception as error:  # ours, or an answer that nobody thought of
      log.exception("while a batch was worked on")
      text = f"a batch cannot go on ({type(error).__name__}: {str(error)[:_SAID]})"
      self._office.stop(office.FAILED, f"{text}\nall replies so far are kept")
    if complaint := self._ledger.complaint():
      self._office.stop(office.FAILED, complaint)

  async def _submit_what_fits(self) -> None:
    while self._gathered and not self._office.stopping:
      most, left = self._config.batch_requests, self._ledger.budget.left
      count = batch_files.fitting(self._gathered, most, left)
      if count == 0:
        if not self._tasks:  # what is under way may cost less than it reserves
          need = self._gathered[0].reserve
          self._office.stop(office.BUDGET, "", need=need)
        return
      asks, self._gathered = self._gathered[:count], self._gathered[count:]
      await self._submit(asks)
    self._flushed = False

  async def _submit(self, asks: Sequence[Ask]) -> None:
    name = uuid.uuid4().hex[:12]
    batch = OpenBatch(name, None, {})
    self._under_way |= {ask.key for ask in asks}
    self._held |= {ask.key: ask for ask in asks}
    await self._state(batch, "planned")
    await asyncio.to_thread(_write_asks, self._path(batch), asks)
    calls = [self._ledger.reserve(ask, name) for ask in asks]
    await _all(self._ledger.note(call) for call in calls)
    batch.calls = {call.key: (call.number, call.reserve) for call in calls}
    batch.id = await self._server.submit(name, batch_files.upload(asks))
    await self._state(batch, "created")
    self._office.tell(note=f"batch {batch.id}: begun with {len(asks):,} requests")
    self._start(self._finish(batch))

  async def _resume(self, batch: OpenBatch) -> None:
    if batch.id is None:
      batch.id = await self._server.find(batch.name)
      if batch.id is not None:
        await self._state(batch, "created")
    if batch.id is None:
      await self._close(batch, "the batch was never created", released=True)
    else:
      self._office.tell(note=f"batch {batch.id}: left by an earlier run, goes on")
      await self._finish(batch)

  async def _finish(self, batch: OpenBatch) -> None:
    """Looks at a batch until it has ended, and brings it in."""
    assert batch.id is not None
    told = None
    while not (state := await self._server.look(batch.id)).ended:
      counts = f"{state.status}, {state.done:,} of {state.total:,} done"
      if counts != told:
        self._office.tell(note=f"batch {batch.id}: {counts}")
        told = counts
      await self._office.sleep(self._config.poll_seconds)
      if self._office.stopping:
        return
    await self._harvest(batch, state)
    if state.status == "failed":
      advice = "Llm.batch_requests" if "limit" in state.errors else "the request"
      text = f"batch {batch.id} was refused ({state.errors}); change {advice}"
      self._office.stop(office.FAILED, text)

  async def _harvest(self, batch: OpenBatch, state: State) -> None:
    asks = await asyncio.to_thread(_read_asks, self._path(batch)) | self._held
    for file in state.files:
      found = batch_files.read_lines(await self._server.download(file))
      # By key, as a line may be there twice; what an earlier harvest booked is out.
      lines = list({x.key: x for x in found if x.key in batch.calls}.values())
      for first in range(0, len(lines), _AT_ONCE):
        part = lines[first : first + _AT_ONCE]
        await _all(self._book(batch, asks, line) for line in part)
    reason = f"batch {batch.id} ended as {state.status} without it"
    # Of a batch that was cut short only what is in its files is billed.
    await self._close(batch, reason, released=state.status != "completed")

  async def _book(self, batch: OpenBatch, asks: dict[str, Ask], line: Line) -> None:
    number, reserve = batch.calls[line.key]
    call = Call(number, line.key, reserve, batch.name)
    ask = asks.get(line.key) or Ask(line.key, {}, {}, reserve, 0)
    if line.status == 200:
      kept = await self._ledger.replied(call, ask, line.raw, whole=True)
      del batch.calls[line.key]
      self._office.tell(
        reply=line.key, offset=kept.offset, tokens=kept.completion_tokens
      )
      return
    await self._ledger.failed(call, line.text, released=True, status=line.status)
    del batch.calls[line.key]
    said = f"batch {batch.id}: {line.status}, {line.text[:300]}"
    verdict = Verdict.AGAIN if line.status is None else judge(line.status, line.text)
    if verdict is Verdict.REFUSED:
      self._refused[line.key] = said
      self._under_way.discard(line.key)
      self._held.pop(line.key, None)
      self._office.tell(refused=line.key, text=said)
    elif verdict in (Verdict.AGAIN, Verdict.SLOW_DOWN):
      self._again(line.key, said)
    else:
      self._office.stop(*explain(verdict, said, self._config.model))

  async def _close(self, batch: OpenBatch, reason: str, *, released: bool) -> None:
    """Books what the batch has not answered, and forgets it."""
    failed = []
    for key, (number, reserve) in batch.calls.items():
      call = Call(number, key, reserve, batch.name)
      failed.append(self._ledger.failed(call, reason, released=released))
    await _all(failed)
    await self._state(batch, "closed")
    self._path(batch).unlink(missing_ok=True)
    for key in batch.calls:
      self._again(key, reason)

  def _again(self, key: str, reason: str) -> None:
    """Asks once more for what this run wants, or gives it up."""
    self._under_way.discard(key)
    ask = self._held.pop(key, None)
    if ask is None:
      return
    self._attempts[key] += 1
    if self._attempts[key] >= self._config.attempts:
      text = f"{reason} ({self._attempts.pop(key)} attempts)"
      self._office.tell(unanswered=key, text=text, opened=True)
    else:
      self.take(ask)
      self.flush()

  async def _state(self, batch: OpenBatch, state: str) -> None:
    row = {"batch": batch.name, "state": state, "id": batch.id, "time": time.time()}
    await self._ledger.books.batches.append(row)

  def _path(self, batch: OpenBatch) -> Path:
    return self._ledger.books.folder / f"batch-{batch.name}.jsonl"


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
  """Does all of them, and only then raises what the first to fail has raised.

  One that goes on by itself would write to a journal that is closed meanwhile.
  """
  for error in await asyncio.gather(*works, return_exceptions=True):
    if isinstance(error, BaseException):
      raise error


def _write_asks(path: Path, asks: Sequence[Ask]) -> None:
  with path.open("w") as file:
    for ask in asks:
      file.write(json.dumps(dataclasses.asdict(ask)) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _read_asks(path: Path) -> dict[str, Ask]:
  """By key; empty if somebody deleted the file, which only the journal's rows need."""
  if not path.exists():
    return {}
  asks = [Ask(**json.loads(line)) for line in path.read_text().splitlines()]
  return {ask.key: ask for ask in asks}
