"""The endpoints of OpenAI's Batch API, asked until they answer."""

import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Any

from phi1_jax.llm import limits, office
from phi1_jax.llm.batch_files import ENDPOINT
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.dispatcher import explain
from phi1_jax.llm.office import Office
from phi1_jax.llm.sender import Lost, Sender, Verdict, judge

_NAME = "phi1_jax"  # of the entry in a batch's metadata that holds our name for it
_ENDED = ("completed", "expired", "cancelled", "failed")
_LOOK_BACK = 1000  # batches of the account that are looked through for one of ours


class ServerError(RuntimeError):
  """The server does not take a batch, or gave no answer after all attempts.

  Attributes:
    kind: how to stop, see `office`.
  """

  def __init__(self, kind: str, text: str):
    super().__init__(text)
    self.kind = kind


@dataclasses.dataclass(frozen=True)
class State:
  """How a batch stands.

  Attributes:
    status: the server's word.
    done: requests that have ended.
    total: requests in the batch.
    files: ids of the output file and the error file, as far as they are there.
    errors: why the batch as a whole was refused, or "".
  """

  status: str
  done: int
  total: int
  files: tuple[str, ...]
  errors: str

  @property
  def ended(self) -> bool:
    """Whether nothing more will come."""
    return self.status in _ENDED


class BatchServer:
  """What a batch needs of the server.

  Args:
    config: attempts and model.
    sender: the endpoint.
    desk: asked whether to go on.
    chance: for the jitter.
  """

  def __init__(
    self, config: LlmConfig, sender: Sender, desk: Office, chance: random.Random
  ):
    self._config, self._sender, self._office = config, sender, desk
    self._chance = chance

  async def submit(self, name: str, content: bytes) -> str:
    """Uploads an input file and begins a batch; returns the server's id for it."""
    api = self._sender.api
    file = await self._ask(
      lambda: api.files.create(file=(f"{name}.jsonl", content), purpose="batch")
    )
    tried = False

    async def create() -> str:
      nonlocal tried
      # An attempt without an answer may have begun the batch all the same.
      found = await self._find(name) if tried else None
      tried = True
      if found is not None:
        return found
      batch = await api.batches.create(
        input_file_id=file.id,
        endpoint=ENDPOINT,
        completion_window="24h",
        metadata={_NAME: name},
      )
      return batch.id

    return await self._ask(create)

  async def find(self, name: str) -> str | None:
    """The id of a batch by our name for it; None if the server has none."""
    return await self._ask(lambda: self._find(name))

  async def look(self, batch_id: str) -> State:
    """How a batch stands."""
    batch = await self._ask(lambda: self._sender.api.batches.retrieve(batch_id))
    content = batch.model_dump()
    counts = content.get("request_counts") or {}
    files = content.get("output_file_id"), content.get("error_file_id")
    errors = (content.get("errors") or {}).get("data") or []
    return State(
      status=str(content["status"]),
      done=(counts.get("completed") or 0) + (counts.get("failed") or 0),
      total=counts.get("total") or 0,
      files=tuple(file for file in files if file),
      errors="; ".join(f"{e.get('code')}: {e.get('message')}" for e in errors),
    )

  async def download(self, file_id: str) -> bytes:
    """A file's content."""
    answer = await self._ask(lambda: self._sender.api.files.content(file_id))
    return answer.content

  async def _find(self, name: str) -> str | None:
    looked = 0
    async for batch in self._sender.api.batches.list(limit=100):
      if (batch.metadata or {}).get(_NAME) == name:
        return batch.id
      looked += 1
      if looked >= _LOOK_BACK:
        break
    return None

  async def _ask(self, question: Callable[[], Awaitable[Any]]) -> Any:
    """Asks until there is an answer.

    Raises:
      ServerError: there is none after all attempts, or no attempt would bring one.
    """
    attempt = 0
    while True:
      try:
        return await question()
      except Exception as error:  # the client's, and what its parsing of answers raises
        outcome = self._sender.failure(error)
      if isinstance(outcome, Lost):
        verdict, said = Verdict.AGAIN, f"{self._config.base_url}: {outcome.reason}"
        pause = 0.0
      else:
        verdict = judge(outcome.status, outcome.text)
        said = f"{self._config.base_url}: {outcome.status}, {outcome.text[:300]}"
        pause = limits.retry_after(outcome.headers)
      attempt += verdict is not Verdict.SLOW_DOWN
      if verdict is Verdict.REFUSED:
        raise ServerError(office.INPUT, f"{said}\nthe Batch API does not take this")
      if verdict not in (Verdict.SLOW_DOWN, Verdict.AGAIN):
        raise ServerError(*explain(verdict, said, self._config.model))
      if attempt >= self._config.attempts or self._office.stopping:
        text = f"{said}\nnothing is lost: run the same command again later"
        raise ServerError(office.FAILED, text)
      await self._office.sleep(pause or limits.backoff(attempt + 1, self._chance))
