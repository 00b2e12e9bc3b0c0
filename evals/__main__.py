"""python -m evals BENCHMARK | judge | report | loss | grade | study."""

import functools
import importlib
import sys
from collections.abc import Sequence

from evals.config import TASK_SETS
from evals.execute import UnfitError
from evals.study.graph import FailedError
from phi1_jax import InputError
from phi1_jax.cli import command
from phi1_jax.llm.client import BudgetError, RequestError

FAILED = 1
_DESCRIPTION = {
  "humaneval": "Judges a model on HumanEval; the same command goes on.",
  "mbpp": "Judges a model on MBPP; the same command goes on.",
  "humaneval+": "Judges a model on HumanEval+: base and additional tests.",
  "mbpp+": "Judges a model on MBPP+: base and additional tests.",
  "custom": "Judges a model on your own problems (--problems=FILE).",
  "exercises": "Judges a model on unseen exercises of the grammar teacher.",
  "unconventional": "Judges a model on 50 problems unlike code and exercises.",
  "doctests": "Judges a model on real functions, by the examples of their docstrings.",
  "report": "Compares runs: a table here, JSON and HTML in files.",
  "grade": "Has an LLM grade the completions of runs from 0 to 10.",
  "loss": "Scores held-out texts with a checkpoint: nats per byte, by kind.",
  "judge": "Judges a checkpoint on several task sets; the same command goes on.",
  "study": "The paper's claim in miniature: trains, judges, prunes, writes a page.",
}
# Commands with a module of their own; the others are benchmarks.
_MODULES = {
  "judge": "evals.judge",
  "report": "evals.report",
  "loss": "evals.loss",
  "grade": "evals.grading.command",
  "study": "evals.study.command",
}
assert _DESCRIPTION.keys() == {*TASK_SETS, *_MODULES, "custom"}


def main(argv: Sequence[str] | None = None) -> int:
  """Picks the subcommand."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv and argv[0] in _DESCRIPTION:
    name, *rest = argv
    try:
      return _command(name)(_DESCRIPTION[name], rest)
    except (UnfitError, RequestError, BudgetError, FailedError) as error:
      print(f"error: {error}", file=sys.stderr)
      return FAILED
  lines = "\n".join(f"  {name:14} {text}" for name, text in _DESCRIPTION.items())
  print(f"usage: python -m evals {'|'.join(_DESCRIPTION)} [--help]\n\n{lines}")
  if argv and argv[0] not in ("-h", "--help"):
    raise InputError(f"got {argv[0]!r}, expected {', '.join(_DESCRIPTION)}")
  return command.DONE if argv else command.WRONG_INPUT


def _command(name: str):
  """The `main(about, argv)` of a subcommand; what it imports may take seconds."""
  if name in _MODULES:
    return importlib.import_module(_MODULES[name]).main
  return functools.partial(importlib.import_module("evals.benchmark").main, name)


if __name__ == "__main__":
  command.run(main)
