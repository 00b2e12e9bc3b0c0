"""OpenAI's Batch API over the same journal: half the price, within 24 hours.

A batch and its calls are committed, under a name that also goes into the batch's
metadata, before it is created. So a batch whose id was never received is found by its
name. However a batch ends (completed, expired, cancelled), its output is billed and is
read; the other requests are sent again. The calls of a batch that the server does not
know are doubtful: it may be created late, or be another account's.
"""

import asyncio
import collections
import functools
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NoReturn

from phi1_jax.llm import journal, reply, session
from phi1_jax.llm.endpoint import Endpoint, Failure, Verdict, backoff
from phi1_jax.llm.journal import Call, OpenBatch
from phi1_jax.llm.session import Session

_URL = "/v1/chat/completions"
_METADATA = "phi1_jax"  # the entry with our name for a batch
_ENDED = ("completed", "expired", "cancelled", "failed")
_LOOK_BACK = 1000  # batches of the account that are searched for ours
_MOST_BYTES = 200 * 10**6  # of an input file, by OpenAI's limit


class Batches:
  """Collects requests into batches, and reads the results, also of earlier runs.

  Args:
    online: takes requests that are not for a batch.
  """

  def __init__(
    self, session: Session, endpoint: Endpoint, online: Callable[[Call], None]
  ):
    self._session, self._endpoint, self._online = session, endpoint, online
    self._config = session.config
    self._api = endpoint.api.with_options(max_retries=self._config.attempts - 1)
    self._in_batch = {key for batch in session.opened for key in batch.calls}
    self._wanted: dict[str, Call] = {}  # by this run, and in a batch
    self._collected: list[Call] = []
    self._submitting = False
    self._attempts: collections.Counter[str] = collections.Counter()
    for batch in session.opened:
      session.spawn(self._finish(batch, "left by an earlier run, goes on"))

  def take(self, call: Call) -> None:
    """Take a request to the batch that holds it, to the next batch, or online."""
    if call.key in self._in_batch:
      self._wanted[call.key] = call
    elif self._config.api == "batch":
      self._collected.append(call)
    else:
      self._online(call)

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
        calls, self._collected = self._collected[:count], self._collected[count:]
        await self._submit(calls)
      elif self._session.settling:
        await self._session.wait(None)
      else:
        self._session.stop(session.BUDGET, need=self._collected[0].reserve)
    self._submitting = False

  async def _submit(self, calls: Sequence[Call]) -> None:
    name, endpoint = uuid.uuid4().hex[:12], self._config.base_url.rstrip("/")
    self._wanted |= {call.key: call for call in calls}
    self._in_batch |= {call.key for call in calls}
    batch = OpenBatch(
      name, None, {call.key: self._session.reserve(call, name) for call in calls}
    )
    row = journal.insert("batches", name=name, endpoint=endpoint)
    await self._session.note(*batch.calls.values(), batch=[row])
    batch.id = await self._create(batch, b"".join(map(_line, calls)))
    note = f"begun with {len(calls):,} requests"
    self._session.spawn(self._finish(batch, note))

  async def _set(self, batch: OpenBatch, column: str, value: Any) -> None:
    statement = f"UPDATE batches SET {column} = ? WHERE name = ?"
    await self._session.writer.write((statement, (value, batch.name)))

  async def _finish(self, batch: OpenBatch, note: str) -> None:
    """Wait until a batch has ended, and read its results."""
    batch.id = id_ = batch.id or await self._find(batch)
    if id_ is None:
      return await self._lose(batch, "the server has no batch of that name")
    await self._set(batch, "id", id_)
    self._session.tell(note=f"batch {id_}: {note}")
    api, told = self._api, None
    while True:
      answer = await self._query(
        functools.partial(api.batches.retrieve, id_), or_none=True
      )
      if answer is None:
        return await self._lose(batch, "the server does not know it (404)")
      found = answer.model_dump()
      status, counts = str(found["status"]), found.get("request_counts") or {}
      if status in _ENDED:
        break
      done = (counts.get("completed") or 0) + (counts.get("failed") or 0)
      text = f"{status}, {done:,} of {counts.get('total') or 0:,} done"
      if text != told:
        self._session.tell(note=f"batch {id_}: {text}")
        told = text
      await self._session.sleep(self._config.poll_seconds)
      if self._session.stopping:
        return
    for file in filter(None, map(found.get, ("output_file_id", "error_file_id"))):
      answer = await self._query(
        functools.partial(api.files.content, file), or_none=True
      )
      if answer is None:
        return await self._lose(batch, f"the server does not know its file {file}")
      await asyncio.gather(
        *(self._settle(batch, *line) for line in results(answer.content))
      )
      self.flush()
    # Of a batch that was cut short, only the results in its files are billed.
    reason = f"batch {id_} ended as {status} without it"
    await self._close(batch, reason, doubtful=status == "completed")
    if status == "failed":
      errors = (found.get("errors") or {}).get("data") or []
      said = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in errors)
      advice = "Llm.batch_requests" if "limit" in said else "the request"
      text = f"batch {id_} was refused ({said}); change {advice}"
      self._session.stop(session.FAILED, text)

  async def _settle(
    self, batch: OpenBatch, key: str, raw: bytes, failure: Failure | None
  ) -> None:
    """Commit a result in a file of a batch."""
    if (call := batch.calls.pop(key, None)) is None:
      return
    if failure is None:
      return await self._session.replied(call, raw)
    await self._session.failed([call], failure)
    text = f"batch {batch.id}: {failure}"
    if failure.passing:
      self._retry(key, text)
    elif failure.verdict is Verdict.REFUSED:
      self._in_batch.discard(key)
      self._wanted.pop(key, None)
      self._session.give_up(key, text)
    else:
      self._session.stop_for(failure, text)

  async def _lose(self, batch: OpenBatch, reason: str) -> None:
    """Close a batch whose results cannot be had, but may be billed."""
    text = f"batch {batch.id or batch.name}: {reason}"
    counted = f"requests counted as billed: {len(batch.calls):,}"
    self._session.tell(note=f"{text}; {counted}", wait=True)
    await self._close(batch, text, doubtful=True)

  async def _close(self, batch: OpenBatch, reason: str, *, doubtful: bool) -> None:
    """Note that the other requests got no result, and send them again."""
    await self._session.failed(batch.calls.values(), Failure(reason, doubtful))
    await self._set(batch, "closed", True)
    for key in batch.calls:
      self._retry(key, reason)
    self.flush()

  def _retry(self, key: str, reason: str) -> None:
    """Send a request of this run again, or give it up."""
    self._in_batch.discard(key)
    call = self._wanted.pop(key, None)
    if call is None or self._session.stopping:
      return
    self._attempts[key] += 1
    if self._attempts[key] < self._config.attempts:
      self.take(call)
    else:
      text = f"{reason} ({self._attempts.pop(key)} attempts)"
      fatal = not self._config.skip_unanswered
      self._session.give_up(key, text, fatal=fatal)

  async def _create(self, batch: OpenBatch, content: bytes) -> str | None:
    """Upload an input file and create a batch; return its id if that is known."""
    unsure = lost = False  # an attempt may have created it; its answer is lost
    try:
      file = (f"{batch.name}.jsonl", content)
      upload = functools.partial(self._api.files.create, file=file, purpose="batch")
      options = {"endpoint": _URL, "completion_window": "24h"}
      options |= {"metadata": {_METADATA: batch.name}}
      options |= {"input_file_id": (await self._query(upload)).id}
      attempt = 0
      while attempt < self._config.attempts:
        attempt += 1
        if unsure and (found := await self._find(batch)):
          return found
        pause = backoff(attempt)
        if not lost:  # else a second of the same name would be paid too
          try:
            return (await self._endpoint.api.batches.create(**options)).id
          except Exception as error:  # the client's, and of its parsing
            failure = self._endpoint.failure(error)
          lost, pause = failure.doubtful, failure.pause(attempt)
          attempt -= failure.verdict is Verdict.SLOW_DOWN
          unsure |= lost or (failure.status or 0) >= 500
          if not (lost or (failure.passing and attempt < self._config.attempts)):
            self._stop(failure)
        await self._session.sleep(pause)
        if self._session.stopping:
          raise session.StoppedError("the next run looks for the batch")
    except session.StoppedError:
      if not unsure:
        await self._close(batch, "the batch was not created", doubtful=False)
      raise
    return None

  async def _find(self, batch: OpenBatch) -> str | None:
    """Return the server's id of a batch of our name."""

    async def look() -> str | None:
      looked = 0
      async for found in self._api.batches.list(limit=100):
        looked += 1
        if (found.metadata or {}).get(_METADATA) == batch.name:
          return found.id
        if looked >= _LOOK_BACK:
          break
      return None

    return await self._query(look, or_none=True)

  async def _query(
    self, ask: Callable[[], Awaitable[Any]], *, or_none: bool = False
  ) -> Any:
    """Return the answer to a query, which the client retries, or end the work.

    Status 429 is not counted as an attempt. With `or_none` return None if the server
    does not know what is asked for (404).

    Raises:
      StoppedError: there is no answer.
    """
    while True:
      try:
        return await ask()
      except Exception as error:  # the client's, and of its parsing
        failure = self._endpoint.failure(error)
      if or_none and failure.status == 404:
        return None
      if failure.verdict is not Verdict.SLOW_DOWN:
        self._stop(failure)
      if self._session.stopping:
        raise session.StoppedError(str(failure))
      await self._session.sleep(failure.pause(1))

  def _stop(self, failure: Failure) -> NoReturn:
    """End the work because the Batch API does not answer."""
    text = f"{self._config.base_url}: {failure}"
    if failure.verdict is Verdict.REFUSED:
      self._session.stop(session.INPUT, f"{text}\nthe Batch API does not take this")
    elif failure.passing:
      text += "\nnothing is lost: run the same command again later"
      self._session.stop(session.FAILED, text)
    else:
      self._session.stop_for(failure, text)
    raise session.StoppedError(text)


def fitting(calls: Sequence[Call], most: int, money: int) -> int:
  """Return how many of the first requests make a batch: at most so many, for so much.

  `money` is in picodollars.
  """
  size = 0
  for count, call in enumerate(calls[:most]):
    size += len(_line(call))
    money -= call.reserve
    if size > _MOST_BYTES or money < 0:
      return count
  return min(most, len(calls))


def results(content: bytes) -> Iterator[tuple[str, bytes, Failure | None]]:
  """Yield (key, line, why it is not a reply) of an output or error file."""
  for raw in content.split(b"\n"):
    row = reply.load(raw)
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
      continue
    response, body = row.get("response"), reply.load(raw, batch=True)
    status = response.get("status_code") if isinstance(response, dict) else None
    failure, problem = None, reply.problem(body)
    if status == 200 and problem:
      failure = Failure(f"status 200, but {problem[0]}", True, problem[1])
    elif status != 200:
      error = row.get("error") or body
      error = error.get("error") or error if isinstance(error, dict) else error
      status = status if type(status) is int else None
      failure = Failure(json.dumps(error)[:2000], False, status)
    yield row["custom_id"], raw, failure


def _line(call: Call) -> bytes:
  row = {"custom_id": call.key, "method": "POST", "url": _URL, "body": call.body}
  return json.dumps(row).encode() + b"\n"
