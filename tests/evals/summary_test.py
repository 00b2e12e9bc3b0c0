"""Rates beside pass@1: how each outcome counts, and where they are shown."""

import json
import re

import pytest

from evals import completions, execute, summary
from evals.prompts import Prompt
from phi1_jax.text import settings_file
from tests.evals.conftest import Trusting

SHOWN = {"code": "x = 1", "flags": []}


def results(*outcomes):
  """One sample per problem with these (truncated, sanitized) outcomes."""
  return {
    f"p{number}": [
      {"key": f"k{number}", "task_id": f"p{number}", "finish": "stop", "tokens": 2}
      | {
        "variants": {
          variant: {"outcome": outcome, "attempts": 1, "empty": False, **SHOWN}
          for variant, outcome in zip(execute.VARIANTS, pair, strict=True)
        }
      }
    ]
    for number, pair in enumerate(outcomes)
  }


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
  given["p3"][0]["variants"]["sanitized"]["empty"] = True
  # A problem counts once, however many samples it has.
  (row,) = given["p0"]
  given["p0"] = [row | {"finish": "prompt_too_long"}] * 2
  found = summary.scored(tmp_path, given, [1])
  assert found["prompts_too_long"] == 1
  rates = {v: {n: e["value"] for n, e in r.items()} for v, r in found["rates"].items()}
  assert rates["truncated"] == {"valid_syntax": 0.6, "runs": 0.4}
  assert rates["sanitized"] == {"valid_syntax": 0.8, "runs": 0.6}


def test_the_table_of_a_run(evaluate, tmp_path):
  evaluate("a", solved=(0, 1))
  path = tmp_path / "a" / "summary.json"
  found = json.loads(path.read_text())
  outcomes = found["outcomes"]["truncated"]
  answered = outcomes["passed"] + outcomes.get("wrong", 0)
  lines = summary.table([("a", found)]).splitlines()
  [line] = [line for line in lines if "valid_syntax" in line]
  assert re.search(r"100\.0 \[56\.6, 100\.0\] .*\+0\.0$", line)
  assert any(re.search(rf" runs +{20 * answered}\.0 \[", line) for line in lines)
  assert not any("longer than" in line for line in lines)
  other = found | {"settings": found["settings"] | {"task_set": "mbpp-full-500"}}
  assert "\n2 task sets: compare" in summary.table([("a", found), ("b", other)])
  found["prompts_too_long"], found["finish"] = 1, {"length": 2, "stop": 3}
  text = summary.table([("a", found)])
  assert "a: 2 of 5 answers were cut off at 512 new tokens" in text
  assert "a: 1 prompts are longer than the model reads; they count as failed" in text
  found["finish"] = {"None": 5}  # a file of completions does not say
  assert "cut off" not in summary.table([("a", found)])


@pytest.mark.parametrize(
  ("stub", "bodies", "empty"),
  [
    (False, [None] + ["x = 1\n"] * 4, {1: "s", 2: "s", 3: "s", 4: "s"}),
    # Nor is a stub that the answer adds no valid code to, though the stub is valid.
    (
      True,
      ["", "\n  \n", "    return 1\n", "    return (\n", "    pass\n"],
      {0: "ts", 1: "ts", 3: "s"},
    ),
  ],
)
def test_an_empty_program_is_no_valid_syntax(five, tmp_path, stub, bodies, empty):
  asked = {p.id: Prompt(p, p.prompt, p.prompt * stub) for p in five}
  rows = [
    {"task_id": p.id, "completion": p.solution if body is None else body}
    for p, body in zip(five, bodies, strict=True)
  ]
  path = tmp_path / "made.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  settings_file.begin(tmp_path / "run.json", {})
  completions.take(tmp_path, path, completions.read(path, five))
  execute.execute(tmp_path, asked, Trusting(), lambda: None)
  found = summary.read(tmp_path, asked)
  of = {"t": "truncated", "s": "sanitized"}
  expected = {(five[n].id, of[v]) for n, variants in empty.items() for v in variants}
  variants = {name: row["variants"].items() for name, (row,) in found.items()}
  found_empty = {
    (n, v) for n, of in variants.items() for v, each in of if each["empty"]
  }
  assert found_empty == expected
  rates = summary.scored(tmp_path, found, [1])["rates"]
  invalid = sum("s" in variants for variants in empty.values())
  assert rates["sanitized"]["valid_syntax"]["value"] == pytest.approx(1 - invalid / 5)


FILE = [{"settings": {"sampling": None}}, "; a solution or a generation is judged"]
MODEL = [{"settings": {"sampling": {"max_new_tokens": 9}}}, ""]


@pytest.mark.parametrize(("run", "advice"), [FILE, MODEL])
@pytest.mark.parametrize(
  ("field", "one", "said"),
  [
    ("solution", "    return 3\n", True),  # bodies, as if they continued the prompt
    ("solution", "", True),
    ("solution", None, False),
    ("completion", "    return 3\n", False),
  ],
)
def test_answers_without_their_function_are_told(
  five, tmp_path, run, advice, field, one, said
):
  rows = [{"task_id": p.id, field: "    return 3\n"} for p in five]
  rows[2][field] = five[2].prompt + "    return 3\n" if one is None else one
  path = tmp_path / "made.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  settings = run["settings"] | {"task_set": "humaneval-164", "prompt_style": "as-is"}
  settings_file.begin(tmp_path / "run.json", settings)
  completions.take(tmp_path, path, completions.read(path, five))
  asked = {p.id: Prompt(p, p.prompt, p.prompt) for p in five}
  execute.execute(tmp_path, asked, Trusting(), lambda: None)
  found = summary.scored(tmp_path, summary.read(tmp_path, asked), [1])
  text = summary.table([("a", found)])
  line = f"a: none of the 5 answers defines its function{advice}"
  assert (line in text) == ("answers defines" in text) == said
  assert ("without the prompt" in text) == (said and bool(advice))
