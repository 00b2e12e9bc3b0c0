"""The work directory of an evaluation.

run.json           settings and model, which decide the completions, and facts of each
                   stage; written when a stage begins and ends
completions.jsonl  one line per sample, append-only
verdicts.jsonl     one line per sample and variant, append-only
summary.json       the scores, written last
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

RUN, SUMMARY = "run.json", "summary.json"
COMPLETIONS, VERDICTS = "completions.jsonl", "verdicts.jsonl"


@contextlib.contextmanager
def opened(folder: AnyPath, doing: str) -> Iterator[storage.Mirror]:
  """Make and lock a folder; give a local copy, which is uploaded when the block ends.

  Args:
    folder: local, then it is its own copy; or gs://.
    doing: the work of this process, such as "judging".

  Raises:
    InputError: it cannot be written, or another process on this machine holds it.
  """
  with storage.Lease(folder, doing) as lease:
    mirror = storage.Mirror(folder, lease)
    mirror.fetch()
    try:
      yield mirror
    finally:
      mirror.upload()


def note(workdir: AnyPath, stage: str, facts: Mapping[str, Any]) -> None:
  """Add facts of a stage to run.json; seconds add up over restarts."""
  run = storage.read_json(workdir / RUN)
  before = run.get(stage, {})
  seconds = before.get("seconds", 0.0) + facts.get("seconds", 0.0)
  run[stage] = {**before, **facts, "seconds": round(seconds, 3)}
  storage.write_json(workdir / RUN, run)


def read_rows(file: AnyPath, flag: str) -> tuple[bytes, list[dict[str, Any]]]:
  """Return the content of a user's file of JSON lines, and its rows.

  Raises:
    InputError: no such file, or a line that is no JSON object.
  """
  try:
    content = storage.read_bytes(file)
  except OSError as error:
    raise InputError(f"{flag}: no such file {file} ({error.strerror})") from None
  rows = []
  for number, line in enumerate(content.split(b"\n"), 1):
    if line.strip():
      try:
        rows.append(json.loads(line))
      except ValueError:
        rows.append(None)
      if not isinstance(rows[-1], dict):
        raise InputError(
          f"{file}, line {number}: got {line[:60]!r}, expected a JSON object"
        )
  return content, rows
