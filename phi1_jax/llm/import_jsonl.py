"""Imports the journal of an earlier version: JSONL files whose lines have checksums.

Those journals did not record the endpoint. Their replies keep their keys, which hold no
endpoint, and answer the same request at any endpoint.
"""

import base64
import json
import logging
import re
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm import reply

_LINE = re.compile(rb'\{"crc32": "([0-9a-f]{8})", (.*)\n', re.DOTALL)
log = logging.getLogger(__name__)


def run(folder: Path, database: sqlite3.Connection) -> None:
  """Import the JSONL files of a folder, if any, into the open transaction.

  Raises:
    InputError: a damaged line.
  """
  if not (folder / "sent.jsonl").exists():
    return
  batches = {row["batch"]: row for row in _rows(folder, "batches")}
  for name, row in batches.items():
    values = (name, row["id"], row["state"] == "closed")
    database.execute("INSERT INTO batches (name, id, closed) VALUES (?, ?, ?)", values)
  calls: dict[int, dict[str, Any]] = {}
  for row in _rows(folder, "sent"):
    calls[row["call"]] = {name: row[name] for name in ("key", "reserve", "batch")}
    calls[row["call"]]["sent"] = row["time"]
  for row in _rows(folder, "failures"):
    calls.setdefault(row["call"], {"key": row["key"], "reserve": 0}).update(
      outcome="released" if row["released"] else "doubtful",
      **{name: row[name] for name in ("status", "reason")},
      ended=row["time"],
    )
  for row in _rows(folder, "replies"):
    call = calls.pop(row["call"], {"key": row["key"], "reserve": 0})
    _insert(database, row["call"], call | _reply(row))
  for number, call in calls.items():
    _insert(database, number, call)
  log.info("%s: imported the journal of an earlier version", folder)


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


def _insert(database: sqlite3.Connection, number: int, call: dict[str, Any]) -> None:
  names, marks = ", ".join(call), ", ".join("?" * len(call))
  values = (number, *call.values())
  database.execute(f"INSERT INTO calls (number, {names}) VALUES (?, {marks})", values)


def _rows(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
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
