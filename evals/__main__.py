"""python -m evals BENCHMARK | judge | report | loss | grade | study."""

import difflib
import functools
import importlib
import re
import sys
from collections.abc import Sequence

from evals.selftest import UnfitError
from evals.study.graph import FailedError
from evals.task_sets import TASK_SETS
from phi1_jax import InputError
from phi1_jax.cli import command
from phi1_jax.llm.client import BudgetError, RequestError

FAILED = 1
_DESCRIPTION = {
  "humaneval": "Judges a model on HumanEval; the same command resumes.",
  "mbpp": "Judges a model on MBPP; the same command resumes.",
  "humaneval+": "Judges a model on HumanEval+: base and additional tests.",
  "mbpp+": "Judges a model on MBPP+: base and additional tests.",
  "custom": "Judges a model on your own problems (--problems=FILE).",
  "exercises": "Judges a model on unseen exercises of the grammar teacher.",
  "unconventional": "Judges a model on 50 problems unlike code and exercises.",
  "doctests": "Judges a model on real functions, by the examples of their docstrings.",
  "report": "Compares runs: a table here, JSON and HTML in files.",
  "grade": "Has an LLM grade the completions of runs from 0 to 10.",
  "loss": "Scores held-out texts with a checkpoint: nats per byte, by kind.",
  "judge": "Judges a checkpoint on several task sets; the same command resumes.",
  "study": "The paper's claim in miniature: trains, judges, prunes, writes a page.",
}
# Commands with a module of their own, and their examples; the others are benchmarks.
_MODULES = {
  "judge": (
    "evals.judge",
    "judge --checkpoint=runs/quickstart --workdir=runs/judged "
    "--task_set=exercises-unseen-pairs-100 --task_set=humaneval-164",
  ),
  "report": ("evals.report", "report runs/humaneval runs/humaneval_sampled"),
  "loss": ("evals.loss", "loss --checkpoint=runs/quickstart --texts=held_out.jsonl"),
  "grade": ("evals.grade", "grade runs/unconventional"),
  "study": ("evals.study.command", "study --gin_file=gin/evals/study.gin"),
}
assert _DESCRIPTION.keys() == {*TASK_SETS, *_MODULES, "custom"}


def main(argv: Sequence[str] | None = None) -> int:
  """Run the subcommand."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv and argv[0] in _DESCRIPTION:
    name, *rest = argv
    module, example = _MODULES.get(
      name, ("evals.benchmark", f"{name} --checkpoint=runs/finetune")
    )
    run = importlib.import_module(module).main  # which may take seconds
    if name not in _MODULES:
      run = functools.partial(run, name)
    parser = command.Parser(name, _DESCRIPTION[name], f"python -m evals {example}")
    parser.prog = f"python -m evals {name}"
    try:
      return run(parser, rest)
    except (UnfitError, RequestError, BudgetError, FailedError) as error:
      print(f"error: {error}", file=sys.stderr)
      return FAILED
  if argv and argv[0] not in ("-h", "--help"):
    name = re.sub(r"[-_ ]?plus$", "+", argv[0].lower())
    close = difflib.get_close_matches(name, _DESCRIPTION, 1)
    advice = f"; did you mean {close[0]}?" if close else ""
    raise InputError(f"got {argv[0]!r}, expected {', '.join(_DESCRIPTION)}{advice}")
  lines = "\n".join(f"  {name:14} {text}" for name, text in _DESCRIPTION.items())
  print(f"usage: python -m evals {'|'.join(_DESCRIPTION)} [--help]\n\n{lines}")
  return command.DONE if argv else command.WRONG_INPUT


if __name__ == "__main__":
  command.run(main)
