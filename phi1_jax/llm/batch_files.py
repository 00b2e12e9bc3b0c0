"""The files of a batch: what goes up, what comes down."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from phi1_jax.llm import reply
from phi1_jax.llm.ledger import Ask

ENDPOINT = "/v1/chat/completions"
_MOST_BYTES = 200 * 10**6  # of an input file, by OpenAI's limit


@dataclasses.dataclass(frozen=True)
class Line:
  """What became of one request of a batch.

  Attributes:
    key: of the request.
    raw: the line as it came.
    status: the request's HTTP status; None if it was never run.
    text: why it has no reply.
  """

  key: str
  raw: bytes
  status: int | None
  text: str


def upload(asks: Sequence[Ask]) -> bytes:
  """The input file: one JSON line for each ask, which its key names."""
  return b"".join(_input(ask) for ask in asks)


def fitting(asks: Sequence[Ask], most: int, money: int) -> int:
  """How many of the first asks make a batch.

  Args:
    asks: all that wait.
    most: the most requests in a batch.
    money: picodollars that may be reserved for it.
  """
  size = 0
  for count, ask in enumerate(asks[:most]):
    size += len(_input(ask))
    money -= ask.reserve
    if size > _MOST_BYTES or money < 0:
      return count
  return min(most, len(asks))


def read_lines(content: bytes) -> Iterator[Line]:
  """The lines of an output or an error file; what is none is left out."""
  for raw in content.split(b"\n"):
    row = reply.load(raw) if raw.strip() else None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
      continue
    response, error = row.get("response"), row.get("error")
    status, body = None, None
    if isinstance(response, dict):
      status, body = response.get("status_code"), response.get("body")
    if type(status) is not int:
      status = None
    yield Line(row["custom_id"], raw, status, _reason(error or body))


def _reason(content: Any) -> str:
  if isinstance(content, dict):
    content = content.get("error") or content
  return json.dumps(content)[:2000]


def _input(ask: Ask) -> bytes:
  row = {"custom_id": ask.key, "method": "POST", "url": ENDPOINT, "body": ask.body}
  return json.dumps(row).encode() + b"\n"
