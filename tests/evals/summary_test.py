"""Rates beside pass@1: how each outcome counts, and where they are shown."""

import dataclasses
import json
import re

import pytest

from evals import completions, execute, programs, report, summary
from evals.prompts import Prompt
from phi1_jax import storage
from phi1_jax.sandbox.program import OUTCOMES
from phi1_jax.text import settings_file

NEVER_PARSED = {"syntax_error", "worker_lost", execute.TOO_LONG}


@pytest.fixture
def judged_run(evaluate, tmp_path):
  """The summary of a run "a" of five problems, two of them solved."""
  evaluate("a", solved=(0, 1))
  return json.loads((tmp_path / "a" / "summary.json").read_text())


def results(*outcomes):
  """Results of one sample per problem with these (truncated, sanitized) outcomes."""
  completions, verdicts = {}, {}
  for number, pair in enumerate(outcomes):
    completions[f"p{number}"] = [{"key": f"k{number}", "finish": "stop", "tokens": 2}]
    for variant, outcome in zip(("truncated", "sanitized"), pair, strict=True):
      verdicts[f"k{number}", variant] = {"outcome": outcome, "attempts": 1}
  return summary.Results(completions, verdicts)


def test_every_outcome_counts_as_the_docstring_says():
  for outcome in (*OUTCOMES, execute.TOO_LONG):
    parsed = outcome not in NEVER_PARSED
    assert summary.RATES["valid_syntax"](outcome) == parsed
    assert summary.RATES["runs"](outcome) == (outcome in ("passed", "wrong"))


def test_prompts_that_the_model_cannot_read_are_counted(judged_run):
  """A problem counts once, however many samples it has."""
  assert "longer than the model" not in summary.table([("a", judged_run)])
  given = results(("wrong", "wrong"), ("passed", "passed"))
  (row,) = given.completions["p0"]
  given.completions["p0"] = [row | {"finish": "prompt_too_long"}] * 2
  folder = storage.parse("a")
  found = summary.scored(folder, given, [1])
  assert found["prompts_too_long"] == 1
  line = "a: 1 prompts are longer than the model reads; they count as failed"
  assert line in summary.table([("a", found)]).split("\n")


def test_rates_have_the_interval_of_a_proportion(tmp_path):
  (tmp_path / "run.json").write_text('{"settings": {}}')
  given = results(
    ("passed", "passed"),
    ("wrong", "wrong"),
    ("raised", "no_entry_point"),
    ("syntax_error", "no_entry_point"),
    ("syntax_error", "passed"),
  )
  # Of the fourth text, sanitizing has left nothing.
  given = dataclasses.replace(given, empty=frozenset({("k3", "sanitized")}))
  found = summary.scored(tmp_path, given, [1])["rates"]
  truncated, sanitized = found["truncated"], found["sanitized"]
  assert list(truncated) == list(sanitized) == ["valid_syntax", "runs"]
  assert (truncated["valid_syntax"]["value"], truncated["runs"]["value"]) == (0.6, 0.4)
  assert (sanitized["valid_syntax"]["value"], sanitized["runs"]["value"]) == (0.8, 0.6)
  assert truncated["valid_syntax"]["low"] == pytest.approx(0.2307, abs=1e-4)
  assert truncated["valid_syntax"]["high"] == pytest.approx(0.8824, abs=1e-4)
  assert truncated["valid_syntax"]["method"] == "wilson"


def test_a_run_says_its_rates(judged_run):
  found = judged_run
  rates = {v: {n: e["value"] for n, e in r.items()} for v, r in found["rates"].items()}
  outcomes = found["outcomes"]["truncated"]
  answered = outcomes["passed"] + outcomes.get("wrong", 0)
  assert rates["truncated"] == {"valid_syntax": 1.0, "runs": answered / 5}
  assert list(found["difference"]) == ["pass@1"]
  lines = summary.table([("a", found)]).splitlines()
  [line] = [line for line in lines if "valid_syntax" in line]
  assert re.search(r"100\.0 \[56\.6, 100\.0\] .*\+0\.0$", line)
  assert any(re.search(rf" runs +{20 * answered}\.0 \[", line) for line in lines)


def judged(folder, problems, asked, rows, sandbox):
  """Results of completions that somebody made."""
  path = folder / "made.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  settings_file.begin(folder / "run.json", {})
  completions.take(folder, path, completions.read(path, problems))
  execute.execute(folder, problems, asked, sandbox, {})
  return summary.read(folder, problems, asked)


def test_what_sanitizing_makes_of_no_function_is_no_valid_syntax(
  only_five, knowing, trusting, tmp_path
):
  asked = {problem.id: Prompt(problem.prompt, "") for problem in only_five}
  rows = [{"task_id": p.id, "completion": "x = 1\n"} for p in only_five]
  rows[0]["completion"] = only_five[0].solution
  found = judged(tmp_path, only_five, asked, rows, trusting())
  assert [variant for _, variant in found.empty] == ["sanitized"] * 4
  rates = summary.scored(tmp_path, found, [1])["rates"]
  assert rates["truncated"]["valid_syntax"]["value"] == 1.0
  assert rates["sanitized"]["valid_syntax"]["value"] == 0.2


def test_an_empty_completion_is_no_valid_syntax(only_five, knowing, trusting, tmp_path):
  """Nor is a stub that the answer adds no valid code to, though the stub is valid."""
  asked = {p.id: Prompt(p.prompt, p.prompt) for p in only_five}
  bodies = ["", "\n  \n", "    return 1\n", "    return (\n", "    pass\n"]
  rows = [
    {"task_id": p.id, "completion": body}
    for p, body in zip(only_five, bodies, strict=True)
  ]
  found = judged(tmp_path, only_five, asked, rows, trusting())
  ids = {row["key"]: name for name, (row,) in found.completions.items()}
  assert sorted((ids[key], variant) for key, variant in found.empty) == sorted(
    [(p.id, variant) for p in only_five[:2] for variant in programs.VARIANTS]
    + [(only_five[3].id, "sanitized")]
  )


def test_a_summary_without_rates_is_still_shown(judged_run, tmp_path):
  found = judged_run
  del found["rates"]
  text = summary.table([("a", found)])
  assert "40.0 [11.8, 76.9]" in text
  assert "valid_syntax" not in text
  (tmp_path / "a" / "summary.json").write_text(json.dumps(found))
  [run] = report.build([tmp_path / "a"])["runs"]
  assert run["summary"]["rates"]["truncated"]["valid_syntax"]["value"] == 1.0


def test_the_table_says_how_many_answers_were_cut_off(judged_run):
  found = judged_run
  found["finish"] = {"length": 2, "stop": 3}
  text = summary.table([("a", found)])
  assert "a: 2 of 5 answers were cut off at 512 new tokens" in text
  found["finish"] = {"None": 5}  # a file of completions does not say
  assert "cut off" not in summary.table([("a", found)])
