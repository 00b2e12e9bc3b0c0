"""OpenAI's Batch API over the same journal: half the price, within 24 hours.

A batch and its calls are committed, under a name that also goes into the batch's
metadata, before it is created. So a batch whose id was never received is found by its
name. However a batch ends (completed, expired, cancelled), its output is billed and is
read; the other requests are sent again. The calls of a batch that the server does not
know are doubtful: it may be created late, or be another account's.
"""

import asyncio
import collections
import json
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from phi1_jax.llm import journal, limits, reply, session
from phi1_jax.llm.endpoint import Endpoint, Failure, Verdict
from phi1_jax.llm.journal import OpenBatch
from phi1_jax.llm.session import Ask, Call, Session

_URL = "/v1/chat/completions"
_METADATA = "phi1_jax"  # the entry with our name for a batch
_ENDED = ("completed", "expired", "cancelled", "failed")
_LOOK_BACK = 1000  # batches of the account that are searched for ours
_MOST_BYTES = 200 * 10**6  # of an input file, by OpenAI's limit


class Batches:
  """Collects requests into batches, and reads the results, also of earlier runs.

  Args:
    opened: the batches that earlier runs left open.
    online: takes requests that are not for a batch.
  """

  def __init__(
    self,
    session: Session,
    endpoint: Endpoint,
    opened: Sequence[OpenBatch],
    online: Callable[[Ask], None],
  ):
    self._session, self._endpoint, self._online = session, endpoint, online
    self._config = session.config
    self._in_batch = {key for batch in opened for key in batch.calls}
    self._asks: dict[str, Ask] = {}  # requests of this run, by their key in a batch
    self._collected: list[Ask] = []
    self._submitting = False
    self._attempts: collections.Counter[str] = collections.Counter()
    for batch in opened:
      session.spawn(self._resume(batch))

  def take(self, ask: Ask) -> None:
    """Take a request to the batch that holds it, to the next batch, or online."""
    if ask.key in self._in_batch:
      self._asks[ask.key] = ask
    elif self._config.api == "batch":
      self._collected.append(ask)
    else:
      self._online(ask)

  def flush(self) -> None:
    """Submit all collected requests, since the run waits."""
    if not self._submitting:
      self._submitting = True
      self._session.spawn(self._submit_all())

  async def _submit_all(self) -> None:
    while self._collected and not self._session.stopping:
      left = self._session.budget.left
      count = fitting(self._collected, self._config.batch_requests, left)
      if count:
        asks, self._collected = self._collected[:count], self._collected[count:]
        await self._submit(asks)
      elif self._session.settling:
        await self._session.wait(None)
      else:
        need = self._collected[0].reserve
        self._session.stop(session.BUDGET, "", need=need)
    self._submitting = False

  async def _submit(self, asks: Sequence[Ask]) -> None:
    name = uuid.uuid4().hex[:12]
    self._in_batch |= {ask.key for ask in asks}
    self._asks |= {ask.key: ask for ask in asks}
    calls = [self._session.reserve(ask, name) for ask in asks]
    numbers = {call.key: (call.number, call.reserve) for call in calls}
    batch = OpenBatch(name, None, numbers)
    endpoint = self._config.base_url.rstrip("/")
    added = journal.insert("batches", name=name, endpoint=endpoint)
    await self._session.writer.write([added])
    await self._session.note(*zip(calls, asks, strict=True))
    if await self._create(batch, b"".join(map(_line, asks))):
      self._session.tell(note=f"batch {batch.id}: begun with {len(asks):,} requests")
      self._session.spawn(self._finish(batch))

  async def _set(self, batch: OpenBatch, column: str, value: Any) -> None:
    statement = f"UPDATE batches SET {column} = ? WHERE name = ?"
    await self._session.writer.write([(statement, (value, batch.name))])

  async def _resume(self, batch: OpenBatch) -> None:
    if batch.id is not None or await self._identify(batch, await self._find(batch)):
      self._session.tell(note=f"batch {batch.id}: left by an earlier run, goes on")
      await self._finish(batch)

  async def _identify(self, batch: OpenBatch, id_: str | None) -> bool:
    """Note a batch's id; close a batch without one."""
    if id_ is None:
      await self._lose(batch, "the server has no batch of that name")
      return False
    batch.id = id_
    await self._set(batch, "id", id_)
    return True

  async def _lose(self, batch: OpenBatch, reason: str) -> None:
    """Close a batch whose results cannot be had, but may be billed."""
    text = f"batch {batch.id or batch.name}: {reason}"
    counted = f"requests counted as billed: {len(batch.calls):,}"
    self._session.tell(note=f"{text}; {counted}", wait=True)
    await self._close(batch, text, doubtful=True)

  async def _finish(self, batch: OpenBatch) -> None:
    """Wait until a batch has ended, and read its results."""
    api, told = self._endpoint.api.batches, None
    while True:
      answer = await self._retrying(lambda: api.retrieve(batch.id), or_none=True)
      if answer is None:
        await self._lose(batch, "the server does not know it (404)")
        return
      found = answer.model_dump()
      status, counts = str(found["status"]), found.get("request_counts") or {}
      if status in _ENDED:
        break
      done = (counts.get("completed") or 0) + (counts.get("failed") or 0)
      text = f"{status}, {done:,} of {counts.get('total') or 0:,} done"
      if text != told:
        self._session.tell(note=f"batch {batch.id}: {text}")
        told = text
      await self._session.sleep(self._config.poll_seconds)
      if self._session.stopping:
        return
    for name in ("output_file_id", "error_file_id"):
      if found.get(name) and not await self._read(batch, found[name]):
        await self._lose(batch, f"the server does not know its file {found[name]}")
        return
    # Of a batch that was cut short, only the results in its files are billed.
    reason = f"batch {batch.id} ended as {status} without it"
    await self._close(batch, reason, doubtful=status == "completed")
    if status == "failed":
      errors = (found.get("errors") or {}).get("data") or []
      said = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in errors)
      advice = "Llm.batch_requests" if "limit" in said else "the request"
      text = f"batch {batch.id} was refused ({said}); change {advice}"
      self._session.stop(session.FAILED, text)

  async def _read(self, batch: OpenBatch, file: str) -> bool:
    """Commit the results in a file of a batch; return whether the server has it."""
    files = self._endpoint.api.files
    answer = await self._retrying(lambda: files.content(file), or_none=True)
    if answer is None:
      return False
    lines = {
      line[0]: line for line in results(answer.content) if line[0] in batch.calls
    }
    # Finish all of them before raising what the first to fail has raised.
    settled = [self._settle(batch, *line) for line in lines.values()]
    for error in await asyncio.gather(*settled, return_exceptions=True):
      if isinstance(error, BaseException):
        raise error
    return True

  async def _settle(
    self, batch: OpenBatch, key: str, raw: bytes, failure: Failure | None
  ) -> None:
    number, reserve = batch.calls[key]
    call = Call(number, key, reserve, batch.name)
    if failure is None:
      await self._session.replied(call, raw)
      del batch.calls[key]
      self._session.tell(reply=key)
      return
    await self._session.failed([call], failure)
    del batch.calls[key]
    text = f"batch {batch.id}: {failure.status}, {failure.text[:300]}"
    verdict = failure.verdict
    if verdict is Verdict.REFUSED:
      self._in_batch.discard(key)
      self._asks.pop(key, None)
      self._session.tell(refused=key, text=text)
    elif verdict in (Verdict.AGAIN, Verdict.SLOW_DOWN):
      self._retry(key, text)
    else:
      self._session.stop_for(verdict, text)

  async def _close(self, batch: OpenBatch, reason: str, *, doubtful: bool) -> None:
    """Note that the other requests got no result, and send them again."""
    calls = [Call(n, key, money, batch.name) for key, (n, money) in batch.calls.items()]
    await self._session.failed(calls, Failure(reason, doubtful))
    await self._set(batch, "closed", True)
    for key in batch.calls:
      self._retry(key, reason)

  def _retry(self, key: str, reason: str) -> None:
    """Send a request of this run again, or give it up."""
    self._in_batch.discard(key)
    ask = self._asks.pop(key, None)
    if ask is None or self._session.stopping:
      return
    self._attempts[key] += 1
    if self._attempts[key] >= self._config.attempts:
      text = f"{reason} ({self._attempts.pop(key)} attempts)"
      self._session.tell(unanswered=ask.key, text=text, opened=True)
    else:
      self.take(ask)
      self.flush()

  async def _create(self, batch: OpenBatch, content: bytes) -> bool:
    """Upload an input file and create a batch; return whether its id is known."""
    api, file = self._endpoint.api, (f"{batch.name}.jsonl", content)
    options = {"endpoint": _URL, "completion_window": "24h"}
    options |= {"metadata": {_METADATA: batch.name}}

    refused = True  # by every attempt that had to create it

    async def create(file_id: str) -> str | None:
      nonlocal refused
      if not refused and (found := await self._find(batch)):
        return found
      try:
        return (await api.batches.create(input_file_id=file_id, **options)).id
      except Exception as error:
        failure = self._endpoint.failure(error)
        refused &= not (failure.doubtful or (failure.status or 0) >= 500)
        if failure.doubtful:
          return None
        raise

    try:
      uploaded = await self._retrying(
        lambda: api.files.create(file=file, purpose="batch")
      )
      id_ = await self._retrying(lambda: create(uploaded.id))
    except session.StoppedError:
      if refused:
        await self._close(batch, "the batch was not created", doubtful=False)
      raise
    # It may be created late, so that a second of the same name would be paid too.
    attempt = 0
    while id_ is None and attempt < self._config.attempts:
      attempt += 1
      await self._session.sleep(limits.backoff(attempt, random.Random()))
      if self._session.stopping:
        raise session.StoppedError("the next run looks for the batch")
      id_ = await self._find(batch)
    return await self._identify(batch, id_)

  async def _find(self, batch: OpenBatch) -> str | None:
    """Return the server's id of a batch of our name."""

    async def look() -> str | None:
      looked = 0
      async for found in self._endpoint.api.batches.list(limit=100):
        if (found.metadata or {}).get(_METADATA) == batch.name:
          return found.id
        looked += 1
        if looked >= _LOOK_BACK:
          break
      return None

    return await self._retrying(look, or_none=True)

  async def _retrying(
    self, ask: Callable[[], Awaitable[Any]], *, or_none: bool = False
  ) -> Any:
    """Return the answer to a query; retry it, or end the work.

    Args:
      ask: sends the query.
      or_none: return None if the server does not know what is asked for (404).

    Raises:
      StoppedError: there is no answer.
    """
    attempt = 0
    while True:
      try:
        return await ask()
      except Exception as error:  # the client's, and of its parsing
        failure = self._endpoint.failure(error)
      if or_none and failure.status == 404:
        return None
      verdict, text = failure.verdict, self._endpoint.describe(failure)
      attempt += verdict is not Verdict.SLOW_DOWN
      if verdict is Verdict.REFUSED:
        text += "\nthe Batch API does not take this"
        self._session.stop(session.INPUT, text)
      elif verdict not in (Verdict.SLOW_DOWN, Verdict.AGAIN):
        self._session.stop_for(verdict, text)
      elif attempt >= self._config.attempts:
        text += "\nnothing is lost: run the same command again later"
        self._session.stop(session.FAILED, text)
      if self._session.stopping:
        raise session.StoppedError(text)
      pause = limits.retry_after(failure.headers)
      await self._session.sleep(pause or limits.backoff(attempt + 1, random.Random()))


def fitting(asks: Sequence[Ask], most: int, money: int) -> int:
  """Return how many of the first requests make a batch.

  Args:
    asks: all that wait.
    most: the most requests in a batch.
    money: picodollars that may be reserved for it.
  """
  size = 0
  for count, ask in enumerate(asks[:most]):
    size += len(_line(ask))
    money -= ask.reserve
    if size > _MOST_BYTES or money < 0:
      return count
  return min(most, len(asks))


def results(content: bytes) -> Iterator[tuple[str, bytes, Failure | None]]:
  """Yield (key, line, why it is not a reply) of an output or error file."""
  for raw in content.split(b"\n"):
    row = reply.load(raw) if raw.strip() else None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
      continue
    response, status = row.get("response"), None
    if isinstance(response, dict) and type(response.get("status_code")) is int:
      status = response["status_code"]
    body = reply.of_batch_line(row)
    failure, problem = None, reply.problem(body)
    if status == 200 and problem:
      failure = Failure(f"status 200, but {problem[0]}", True, problem[1])
    elif status != 200:
      error = row.get("error") or body
      error = error.get("error") or error if isinstance(error, dict) else error
      failure = Failure(json.dumps(error)[:2000], False, status)
    yield row["custom_id"], raw, failure


def _line(ask: Ask) -> bytes:
  row = {"custom_id": ask.key, "method": "POST", "url": _URL, "body": ask.body}
  return json.dumps(row).encode() + b"\n"
