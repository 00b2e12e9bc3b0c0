"""python -m evals grade: an LLM grades the completions of finished runs."""

from collections.abc import Sequence
from pathlib import Path

from evals import workdir
from evals.grading import asking, grades
from phi1_jax import storage
from phi1_jax.cli import command
from phi1_jax.llm.client import Client
from phi1_jax.llm.config import LlmConfig


def main(parser: command.Parser, argv: Sequence[str]) -> int:
  """Grade runs, or print what that would cost."""
  add, path = parser.add_argument, storage.parse
  words = "work directories, executed"
  add("runs", nargs="+", type=path, metavar="RUN", help=words)
  add("--workdir", type=path, default=Path("runs/grades"), help="default: runs/grades")
  words = "print what it costs, send nothing, stop"
  add("--estimate", action="store_true", help=words)
  workdir.add_benchmarks(parser)
  arguments = parser.parse(argv)
  from phi1_jax.cli import gin_config  # after --help

  files = arguments.gin_files or ["gin/evals/grade.gin"]
  classes = {"Grade": asking.GradeConfig, "Llm": LlmConfig}
  parts = gin_config.load(files, arguments.gin_bindings, classes)
  config, llm = parts["Grade"], parts["Llm"]
  pool = asking.gather(arguments.runs, config, arguments.benchmarks)
  print(pool.text(config.repeats), flush=True)
  if arguments.estimate:
    asked = asking.requests(pool, config, asking.load_prompt())
    with Client(llm) as client:
      print(client.estimate(request for _, _, request in asked).text())
    return command.DONE
  with workdir.opened(arguments.workdir, "grading") as mirror:
    print(grades.table(grades.make(mirror.local, pool, config, llm)))
  print(f"written to {arguments.workdir / asking.RESULT}")
  return command.DONE
