"""Our verdicts beside published ones, in every form in which EvalPlus wrote them."""

import json

import pytest

from evals import compare
from phi1_jax import InputError
from phi1_jax.problems import evalplus

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
    assert compare.read(tmp_path / "file")[0] == expected
  else:
    with pytest.raises(InputError, match=r"--compare: got .* expected EvalPlus'"):
      compare.read(tmp_path / "file")


def test_a_plus_pass_needs_the_base_tests():
  passed, wrong = {"outcome": "passed", "detail": ""}, {"outcome": "wrong"}

  def samples(**suites):
    of = {"a": passed, "b": wrong}
    variants = ("truncated", "sanitized")
    return {
      name: [{"sample": 0, "variants": {v: verdict | suites for v in variants}}]
      for name, verdict in of.items()
    }

  ours = samples(plus=passed)
  found = compare.compare(ours, THEIRS)
  assert found["samples"] == 2
  names = ("both pass", "both fail", "only ours", "only theirs")
  counts = {of: [row[n] for n in names] for of, row in found["counts"].items()}
  assert counts["truncated, base"] == [1, 1, 0, 0]
  assert counts["truncated, plus"] == [0, 1, 1, 0]
  assert {d["problem"] for d in found["differences"]} == {"a"}
  base = compare.compare(samples(), THEIRS)
  assert base["counts"].keys() == {"truncated, base", "sanitized, base"}


@pytest.mark.parametrize(
  ("task_set", "of", "warned"),
  [
    ("humaneval-plus-164", "humaneval-plus-164-v0.1.9", True),
    ("humaneval-plus-164[3 of 164: ids ab]", "humaneval-plus-164-v0.1.9", True),
    ("mbpp-plus-378", "mbpp-plus-399", True),
    ("humaneval-plus-164", "humaneval-plus-164", False),
    ("humaneval-plus-164", None, False),
    ("humaneval-plus-164", "another", False),
    ("humaneval-164", "humaneval-plus-164", False),  # has base tests alone
  ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_verdicts_of_another_version_are_told(tmp_path, task_set, of, warned, mark):
  md5 = evalplus.TASK_SETS[of][2] if of in evalplus.TASK_SETS else of
  theirs = {"date": "2024", "eval": NEW} | ({"hash": md5} if of else {})
  path = tmp_path / "theirs.json"
  path.write_text(mark + json.dumps(theirs), encoding="utf-8")
  (tmp_path / "run.json").write_text(json.dumps({"settings": {"task_set": task_set}}))
  shown = compare.write(tmp_path, {}, *compare.read(path))
  said = f"these verdicts are of {of}, the run is of {task_set.partition('[')[0]}"
  assert (said in shown) == ("these verdicts" in shown) == warned
  written = json.loads((tmp_path / "compare.json").read_text())
  assert (written["file"], written["hash"]) == (str(path), md5)
