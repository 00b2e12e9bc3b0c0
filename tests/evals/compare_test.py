"""Our verdicts beside published ones, in every form in which EvalPlus wrote them."""

import dataclasses
import json

import pytest

from evals import compare, summary
from phi1_jax import InputError

OLD = {
  "a": {"nfiles": 1, "base": [["success", []]], "plus": [["failed", []]]},
  "b": {"nfiles": 1, "base": [["timed out", []]], "plus": [["success", []]]},
}
NEW = {
  "a": [{"base_status": "pass", "plus_status": "fail"}],
  "b": [{"base_status": "timeout", "plus_status": "pass"}],
}
THEIRS = {"a": [{"base": True, "plus": False}], "b": [{"base": False, "plus": True}]}


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    (json.dumps({"eval": OLD}), THEIRS),
    (json.dumps({"eval": NEW}), THEIRS),
    ('{"task_id": "a", "passed": true}\n' * 2, {"a": [{"base": True}] * 2}),
    *[(text, None) for text in ('{"eval": 3}', '{"eval": {"a": {}}}', "{}", "x")],
  ],
)
def test_reads_every_version_and_refuses_another_file(tmp_path, text, expected):
  (tmp_path / "file").write_text(text)
  if expected:
    assert compare.read(tmp_path / "file") == expected
  else:
    with pytest.raises(InputError, match=r"--compare: got .* expected EvalPlus'"):
      compare.read(tmp_path / "file")


def test_a_plus_pass_needs_the_base_tests():
  rows = {"a": [{"key": "k", "sample": 0}], "b": [{"key": "l", "sample": 0}]}
  of = {"k": {"outcome": "passed", "detail": ""}, "l": {"outcome": "wrong"}}
  verdicts = {(k, v): of[k] for k in "kl" for v in ("truncated", "sanitized")}
  ours = summary.Results(rows, verdicts, plus=dict.fromkeys(verdicts, of["k"]))
  found = compare.compare(ours, THEIRS)
  assert found["samples"] == 2
  names = ("both pass", "both fail", "only ours", "only theirs")
  counts = {of: [row[n] for n in names] for of, row in found["counts"].items()}
  assert counts["truncated, base"] == [1, 1, 0, 0]
  assert counts["truncated, plus"] == [0, 1, 1, 0]
  assert {d["problem"] for d in found["differences"]} == {"a"}
  base = compare.compare(dataclasses.replace(ours, plus={}), THEIRS)
  assert base["counts"].keys() == {"truncated, base", "sanitized, base"}
