"""Converts the journal of version 0.1, JSONL files whose lines have checksums.

    python -m phi1_jax.llm.import_jsonl JOURNAL --base_url=https://api.openai.com/v1

Those journals did not record the endpoint, which is a part of a request's key now: give
`Llm.base_url` as it was when they were paid. The JSONL files stay as they are.
"""

import argparse
import base64
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm import journal, reply
from phi1_jax.llm.request import clean, digest

_LINE = re.compile(rb'\{"crc32": "([0-9a-f]{8})", (.*)\n', re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
  """Convert a journal; return the exit code."""
  parser = argparse.ArgumentParser("phi1_jax.llm.import_jsonl", description=__doc__)
  parser.add_argument("folder", type=Path, help="the journal's folder")
  parser.add_argument("--base_url", required=True, help="the same as Llm.base_url")
  arguments = parser.parse_args(argv)
  try:
    count = convert(arguments.folder, arguments.base_url)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(f"{arguments.folder / journal.FILE_NAME}: {count:,} calls")
  return 0


def convert(folder: Path, base_url: str) -> int:
  """Write the journal of a folder anew; return the number of its calls.

  Args:
    folder: the journal's folder.
    base_url: the endpoint of its requests, as in `Llm.base_url`.

  Raises:
    InputError: the folder has no such journal, or one that is converted; a damaged
      line; a batch whose results are not all there; or no address.
  """
  if not base_url.startswith(("http://", "https://")):
    raise InputError(
      f"--base_url: got {base_url!r}, expected an address such as "
      "https://api.openai.com/v1"
    )
  target, endpoint = folder / journal.FILE_NAME, base_url.rstrip("/")
  if not (folder / journal.OLD).exists():
    raise InputError(f"{folder}: got no {journal.OLD}, expected a journal")
  if target.exists():
    raise InputError(
      f"{folder}: was converted already; to convert it anew, if nothing was paid "
      f"since, delete {target.name}"
    )
  found = list(_rows(folder, endpoint))
  new = target.with_name(f"{target.name}.new")
  new.unlink(missing_ok=True)
  database = journal.connect(new)
  database.execute("BEGIN IMMEDIATE")
  for statement in journal.SCHEMA.split(";"):
    database.execute(statement)
  for table, row in found:
    database.execute(*journal.insert(table, **row))
  database.execute("COMMIT")
  database.close()  # which empties the write-ahead log
  new.rename(target)
  return sum(table == "calls" for table, _ in found)


def _rows(folder: Path, endpoint: str) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yield (table, columns) for the JSONL files of a folder."""
  for row in {row["batch"]: row for row in _lines(folder, "batches")}.values():
    if row["state"] != "closed":
      raise InputError(
        f"{folder}: batch {row['id']} is not finished; run version 0.1 until it is"
      )
    yield "batches", {"name": row["batch"], "id": row["id"], "closed": True}
  calls: dict[int, dict[str, Any]] = {}
  for row in _lines(folder, "sent"):
    call = {name: row[name] for name in ("key", "reserve", "batch")}
    calls[row["call"]] = call | {"number": row["call"], "sent": row["time"]}
  for row in _lines(folder, "failures"):
    outcome = "released" if row["released"] else "doubtful"
    columns = {"status": row["status"], "reason": clean(row["reason"])}
    columns["ended"] = row["time"]
    calls.setdefault(row["call"], _unsent(row)).update(outcome=outcome, **columns)
  for row in _lines(folder, "replies"):
    yield "calls", calls.pop(row["call"], _unsent(row)) | _reply(row, endpoint)
  yield from (("calls", call) for call in calls.values())


def _unsent(row: dict[str, Any]) -> dict[str, Any]:
  return {"number": row["call"], "key": row["key"], "reserve": 0}


def _reply(row: dict[str, Any], endpoint: str) -> dict[str, Any]:
  """Return the columns of a reply; a body that is not a completion is doubtful."""
  raw = row["raw"].encode() if "raw" in row else base64.b64decode(row["raw_base64"])
  content = reply.load(raw, row["batch"] is not None)
  request = {
    "body": row["request"],
    "prompt": [row["prompt_id"], row["prompt_version"]],
    "sample": row["sample"],
    "endpoint": endpoint,
  }
  columns = {
    "key": digest(request),
    "batch": row["batch"],
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


if __name__ == "__main__":
  sys.exit(main())
