"""The folder of an evaluation: what was asked, what came back, how it was judged.

  run.json           what decides the completions (settings, model), and what each half
                     noted about itself; written when a half begins and ends
  completions.jsonl  one line per sample, append-only
  verdicts.jsonl     one line per sample and variant, append-only
  summary.json       the scores, written last

How the files survive being killed: `phi1_jax.text.records`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi1_jax.text import records

RUN, SUMMARY = "run.json", "summary.json"
COMPLETIONS, VERDICTS = "completions.jsonl", "verdicts.jsonl"


def note(workdir: Path, half: str, facts: Mapping[str, Any]) -> None:
  """Adds what a half says about itself to run.json; seconds add up over restarts."""
  run = records.read_json(workdir / RUN)
  before = run.get(half, {})
  seconds = before.get("seconds", 0.0) + facts.get("seconds", 0.0)
  run[half] = {**before, **facts, "seconds": round(seconds, 3)}
  records.write_json(workdir / RUN, run)
