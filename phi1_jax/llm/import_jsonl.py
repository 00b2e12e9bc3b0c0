"""Imports the journal of an earlier version: JSONL files whose lines have checksums.

Those journals did not record the endpoint. Their replies keep their keys, which hold no
endpoint, and answer the same request at any endpoint.
"""

import base64
import json
import logging
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm import reply

_LINE = re.compile(rb'\{"crc32": "([0-9a-f]{8})", (.*)\n', re.DOTALL)
log = logging.getLogger(__name__)


def rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yield (table, columns) for the JSONL files of a folder, if there are any.

  Raises:
    InputError: a damaged line.
  """
  if not (folder / "sent.jsonl").exists():
    return
  for row in {row["batch"]: row for row in _lines(folder, "batches")}.values():
    closed = row["state"] == "closed"
    yield "batches", {"name": row["batch"], "id": row["id"], "closed": closed}
  calls: dict[int, dict[str, Any]] = {}
  for row in _lines(folder, "sent"):
    call = {name: row[name] for name in ("key", "reserve", "batch")}
    calls[row["call"]] = call | {"number": row["call"], "sent": row["time"]}
  for row in _lines(folder, "failures"):
    outcome = "released" if row["released"] else "doubtful"
    columns = {"status": row["status"], "reason": row["reason"], "ended": row["time"]}
    calls.setdefault(row["call"], _unsent(row)).update(outcome=outcome, **columns)
  for row in _lines(folder, "replies"):
    yield "calls", calls.pop(row["call"], _unsent(row)) | _reply(row)
  yield from (("calls", call) for call in calls.values())
  log.info("%s: imported the journal of an earlier version", folder)


def _unsent(row: dict[str, Any]) -> dict[str, Any]:
  return {"number": row["call"], "key": row["key"], "reserve": 0}


def _reply(row: dict[str, Any]) -> dict[str, Any]:
  """Return the columns of a reply; a body that is not a completion is doubtful."""
  raw = row["raw"].encode() if "raw" in row else base64.b64decode(row["raw_base64"])
  content = reply.load(raw)
  if row["batch"] is not None:
    content = reply.of_batch_line(content)
  request = {"body": row["request"], "sample": row["sample"]}
  request["prompt"] = [row["prompt_id"], row["prompt_version"]]
  columns = {
    "request": json.dumps(request),
    "raw": raw,
    "raw_crc32": zlib.crc32(raw),
    "ended": row["time"],
    "price": json.dumps(row["price"]),
  }
  if problem := reply.problem(content):
    cost = row["picodollars"]
    return {**columns, "outcome": "doubtful", "reserve": cost, "reason": problem[0]}
  usage = row["usage"] or {}
  return {
    **columns,
    "outcome": "reply",
    "cost": row["picodollars"],
    "prompt_tokens": usage.get("prompt"),
    "completion_tokens": usage.get("completion"),
  }


def _lines(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
  """Yield the rows of a file; a last line without its end was torn by a crash."""
  path = folder / f"{kind}.jsonl"
  if not path.exists():
    return
  with path.open("rb") as file:
    file.readline()  # a title
    for number, line in enumerate(file, 2):
      if not line.endswith(b"\n"):
        return
      found = _LINE.fullmatch(line)
      if found is None or zlib.crc32(found[2]) != int(found[1], 16):
        raise InputError(
          f"{path}, line {number}: damaged or edited; delete that line to pay for its "
          "request again, or put the file back from a copy"
        )
      yield json.loads(b"{" + found[2])
