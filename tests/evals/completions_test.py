"""Completions of others: every form that is read, and the answer to any other."""

import dataclasses
import gzip
import json

import pytest

from evals import completions, execute, prompts, task_sets
from phi1_jax import InputError


def solutions(problems):
  return [{"task_id": p.id, "solution": p.solution} for p in problems]


def lines(found):
  return "".join(json.dumps(row) + "\n" for row in found)


@pytest.mark.parametrize(
  "content",
  [
    lambda five: lines(solutions(five)),
    lambda five: gzip.compress(lines(solutions(five)).encode()),
    lambda five: json.dumps(solutions(five)),
    lambda five: json.dumps([[p.solution] for p in five]),
    lambda five: json.dumps({"eval": {p.id: solutions([p]) for p in five}}),
    lambda five: lines({**r, "task_id": n} for n, r in enumerate(solutions(five))),
    lambda five: "\ufeff" + lines(solutions(five)),
    lambda five: "\ufeff" + json.dumps([[p.solution] for p in five]),
  ],
  ids=[
    "lines",
    "gz",
    "array",
    "generations",
    "eval_results",
    "numbers",
    "mark",
    "marked_array",
  ],
)
def test_every_form_gives_the_same_rows(five, tmp_path, content):
  path, written = tmp_path / "made", content(five)
  path.write_bytes(written if isinstance(written, bytes) else written.encode())
  found = completions.read(path, five)
  assert [(r["task_id"], r["completion"], r["whole"]) for r in found] == [
    (p.id, p.solution, True) for p in five
  ]


def test_a_solution_is_judged_without_the_prompt(five):
  prompt = prompts.build(five[0], "as-is")
  for whole, before in ((True, ""), (False, prompt.prefix)):
    row = {"completion": "x = 1\n", "whole": whole}
    judged = execute.variants(prompt, row)["truncated"]
    assert judged.code == before + "x = 1\n"


def test_other_tasks_are_left_out_with_a_note(five, tmp_path, capsys):
  path = tmp_path / "made"
  path.write_text(lines(solutions(five)))
  assert len(completions.read(path, five[:2])) == 2
  assert "left out 3 tasks that are not in the task set\n" in capsys.readouterr().out
  assert len(completions.read(path, five[:1], five[:3])) == 1
  shown = capsys.readouterr().out
  assert "left out 2 tasks that are not in the subset\n" in shown
  assert "left out 2 tasks that are not in the task set\n" in shown
  completions.read(path, five[:1], five)
  assert "task set" not in capsys.readouterr().out
  path.write_text(lines(solutions(five[1:3])))
  assert completions.ids(path, five) == [problem.id for problem in five[1:3]]


ID = '"task_id": "HumanEval/0"'


@pytest.mark.parametrize(
  ("lines", "named"),
  [
    ('{"task_id": "HumanEval/9", "completion": ""}', "no completion.*'HumanEval/9'"),
    (f"{{{ID}}}", "line 1: expected a string as 'completion'.*with task_id"),
    (f'{{{ID}, "completion": ""}}', "4 of 5 problems have no completion"),
    ('{"task_id": ["a"], "completion": ""}', r"line 1: got task_id \['a'\]"),
    (f'{{{ID}, "completion": "", "text": null}}', "expected a string as 'text'"),
    ("x", "line 1: got 'x'; expected JSON lines or a JSON array"),
    ("[3]", "item 1: got 3; expected JSON lines"),
    ('[["a"]]', "generations of 1 problems, expected 5"),
    ('{"eval": {"HumanEval/0": {"base": []}}}', "give the solutions as --completions"),
  ],
)
def test_refuses_a_file_of_completions(five, tmp_path, lines, named):
  path = tmp_path / "made.jsonl"
  path.write_text(lines)
  with pytest.raises(InputError, match=named):
    completions.read(path, five)


def test_ids_name_one_problem(five, tmp_path):
  ids = ["easy/1", "1", "hard/2", "easy/2", "easy/3"]
  problems = [dataclasses.replace(p, id=i) for p, i in zip(five, ids, strict=True)]
  path = tmp_path / "made"
  path.write_text(lines({"task_id": i, "completion": str(i)} for i in [*ids[:-1], 3]))
  found = {r["task_id"]: r["completion"] for r in completions.read(path, problems)}
  assert found == {i: i for i in ids[:-1]} | {"easy/3": "3"}
  path.write_text(lines([{"task_id": 2, "completion": ""}]))
  for given in ([problems], [problems[2:3], problems]):
    with pytest.raises(InputError, match="'2', which may be any of hard/2, easy/2"):
      completions.read(path, *given)
  with pytest.raises(InputError, match="'2', which may be any of hard/2, easy/2"):
    task_sets.subset(problems, "mine", "1,2")
  assert task_sets.subset(problems, "mine", "1,easy/2")["subset"] == ["1", "easy/2"]
  path.write_text("\ufeff1\neasy/2\n", encoding="utf-8")
  assert task_sets.subset(problems, "mine", str(path))["subset"] == ["1", "easy/2"]
