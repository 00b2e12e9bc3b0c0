"""python -m evals grade: an LLM grades the completions of finished runs."""

from collections.abc import Sequence
from pathlib import Path

from evals import report, workdir
from evals.grading import asking, grades
from phi1_jax import storage
from phi1_jax.cli import command
from phi1_jax.llm.config import LlmConfig


def main(about: str, argv: Sequence[str]) -> int:
  """Grades runs, or says what that would cost."""
  parser = command.Parser("grade", about, "python -m evals grade runs/unconventional")
  parser.prog = "python -m evals grade"
  add = parser.add_argument
  add(
    "runs",
    nargs="+",
    type=storage.parse,
    metavar="RUN",
    help="work directories, executed",
  )
  add(
    "--workdir",
    type=storage.parse,
    default=Path("runs/grades"),
    help="default: runs/grades",
  )
  add("--estimate", action="store_true", help="say what it costs, send nothing, stop")
  report.add_benchmarks(parser)
  arguments = parser.parse(argv)
  from phi1_jax.cli import gin_config  # after --help

  files = arguments.gin_files or ["gin/evals/grade.gin"]
  classes = {"Grade": asking.GradeConfig, "Llm": LlmConfig}
  parts = gin_config.load(files, arguments.gin_bindings, classes)
  config, llm = parts["Grade"], parts["Llm"]
  pool = asking.gather(arguments.runs, config, arguments.benchmarks)
  print(pool.text(config.repeats), flush=True)
  if arguments.estimate:
    print(grades.estimate(pool, config, llm))
    return command.DONE
  with workdir.opened(arguments.workdir, "grading") as mirror:
    print(grades.table(grades.make(mirror.local, pool, config, llm)))
  print(f"written to {arguments.workdir / asking.RESULT}")
  return command.DONE
