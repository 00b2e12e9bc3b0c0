"""The folder of an evaluation: what was asked, what came back, how it was judged.

  run.json           what decides the completions (settings, model), and what each half
                     noted about itself; written when a half begins and ends
  completions.jsonl  one line per sample, append-only
  verdicts.jsonl     one line per sample and variant, append-only
  summary.json       the scores, written last

How the files survive being killed: `phi1_jax.text.records`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.text import records

RUN, SUMMARY = "run.json", "summary.json"
COMPLETIONS, VERDICTS = "completions.jsonl", "verdicts.jsonl"


def begin(workdir: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Writes down what a run is, or refuses a folder that is another one.

  Args:
    workdir: the folder.
    settings: everything that decides the completions.

  Returns:
    What run.json holds.
  """
  path = workdir / RUN
  wanted = json.loads(json.dumps(settings))
  if not path.exists():
    run = {"format": 1, "settings": wanted}
    records.write_json(path, run)
    return run
  run = records.read_json(path)
  check_settings(workdir, run, wanted)
  return run


def check_settings(
  workdir: Path, run: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Refuses settings that differ from those which a run was begun with."""
  found = run.get("settings", {})
  for name, value in wanted.items():
    if found.get(name) != value:
      raise InputError(
        f"{workdir}: begun with {name} = {_brief(found.get(name))}, now it is "
        f"{_brief(value)}; name another --workdir, or give the same settings"
      )


def _brief(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 300 else f"{text[:300]}..."


def note(workdir: Path, half: str, facts: Mapping[str, Any]) -> None:
  """Adds what a half says about itself to run.json; seconds add up over restarts."""
  run = records.read_json(workdir / RUN)
  before = run.get(half, {})
  seconds = before.get("seconds", 0.0) + facts.get("seconds", 0.0)
  run[half] = {**before, **facts, "seconds": round(seconds, 3)}
  records.write_json(workdir / RUN, run)
