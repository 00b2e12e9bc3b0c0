import os

import pytest

from evals import execute, extraction, prompts, task_sets
from evals.config import PROMPT_STYLES
from evals.task_sets import benchmark_of
from phi1_jax.problems import mbpp
from phi1_jax.problems.problem import Problem
from phi1_jax.sampling import stopping
from tests.evals.conftest import reference_completion

ADD = Problem(
  id="Mbpp/9",
  entry_point="add",
  prompt="Add two numbers.",
  reference='def two():\n\treturn 2\ndef add(a, b=2):\n\t"""doc"""\n\treturn a + b',
  solution="",
  tests=("import math", "assert add(1) == 3", "assert add(1, 1) == two()"),
  examples=("assert add(1) == 3", "assert add(1, 1) == two()"),
  setup="import math",
)
TASK = (
  "You are an expert Python programmer, and here is your task: Add two numbers. Your "
  "code should pass these tests:\n\nassert add(1) == 3\nassert add(1, 1) == two()\n"
  "[BEGIN]\n"
)
STUB = (
  'def add(a, b=2):\n    """ Add two numbers.\n    assert add(1) == 3\n'
  '    assert add(1, 1) == two()\n    """\n'
)


def test_every_style(five):
  asked = prompts.build(five[0], "as-is")
  assert asked.text == asked.prefix == five[0].prompt
  assert prompts.build(five[1], "stripped").text == five[1].prompt.strip()
  asked = prompts.build(ADD, "docstring-one-test")
  assert asked.text == '"""\nAdd two numbers.\nassert add(1) == 3\n"""\n'
  assert asked.prefix == "import math\n"
  asked = prompts.build(ADD, "paper-3shot", [ADD])
  assert asked.text == f"{TASK}{ADD.reference}\n[DONE]\n\n{TASK}"
  asked = prompts.build(ADD, "phi-docstring")
  assert asked.text == STUB
  assert asked.prefix == "import math\n" + STUB
  scope = {}
  exec(asked.prefix + reference_completion(ADD, "phi-docstring"), scope)
  assert (scope["add"](1), scope["two"]()) == (3, 2)
  # A docstring with backslashes is raw.
  problem = Problem(**{**vars(ADD), "examples": (r"assert add('\n') == 1",)})
  exec(prompts.build(problem, "phi-docstring").text + "    return 1", scope)
  assert r"add('\n')" in scope["add"].__doc__


@pytest.mark.parametrize(
  ("task_set", "style"),
  [(n, style) for n in task_sets.KNOWN for style in PROMPT_STYLES[benchmark_of(n)]],
)
def test_stops_cut_no_reference(five, task_set, style):
  if mbpp.ENVIRONMENT not in os.environ and ("mbpp" in task_set or "plus" in task_set):
    pytest.skip(f"{mbpp.ENVIRONMENT} names no folder with MBPP")
  problems = task_sets.load(task_set)
  asked = prompts.build_all(problems, task_set, style)
  stops = prompts.stops(style)
  assert stops or style == prompts.CHAT
  for problem in problems:
    completion = reference_completion(problem, style)
    assert stopping.cut(completion, stops)[0] == completion, problem.id
    if style in ("as-is", "stripped"):
      program = asked[problem.id].prefix + completion
      assert program.strip() == problem.solution.strip()


SKETCH = "def has_close_elements(numbers, threshold):\n    {}\n"


@pytest.mark.parametrize(
  "answer",
  [
    "Sure!\n```python\nfrom __future__ import annotations\n{}```\n",
    "First:\n```python\n" + SKETCH.format("...") + "```\nFinal:\n```python\n{}```\n",
    "Wrong:\n```\n" + SKETCH.format("return 3") + "```\nRight:\n```\n{}```\nBye.\n",
    "```python\n" + SKETCH.format("return 3") + "\n\n{}```\n",
    "Sure:\n```\n{}```\nIts form:\n```\n" + SKETCH.format("pass") + "```\n",
    "Sure:\n```\n{}```\nTry:\n```\nhas_close_elements([1], 1)\n```\n",
    "{}",  # no block
  ],
  ids=["future", "sketch", "draft", "one_block", "form", "example", "none"],
)
def test_right_chat_answers_are_right(five, answer):
  problem, prompt = five[0], prompts.build(five[0], "chat")
  assert problem.prompt.strip() in prompt.text
  assert prompt.prefix == problem.prompt
  text = answer.format(problem.solution)
  row = {"text": text}
  row["completion"] = extraction.code_block(text, problem.entry_point)
  for judged in execute.variants(prompt, row).values():
    scope = {}
    exec(judged.code, scope)
    for test in problem.tests:
      exec(test, scope)
