"""The frame of every command: flags in, exit code out.

Exit codes: 0 done; 1 it failed while running; 2 what was given is wrong; 75 stopped
by preemption after saving (EX_TEMPFAIL: run the same command to go on); 130 Ctrl-C.
"""

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from phi1_jax import InputError

DONE = 0
WRONG_INPUT = 2
PREEMPTED = 75
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
  """An argument parser that knows the flags which all commands share.

  `--gin_file` may be repeated; `--gin.NAME=VALUE` binds one parameter or macro
  after the files are read, as in t5x. `parse` returns both as `gin_files` and
  `gin_bindings`.
  """

  def __init__(self, command: str, description: str, example: str):
    super().__init__(
      prog=f"python -m phi1_jax.{command}",
      description=description,
      epilog=f"example:\n  {example}",
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    self.add_argument(
      "--gin_file",
      dest="gin_files",
      action="append",
      default=[],
      metavar="FILE",
      help="a gin file, relative to the repository root (repeatable)",
    )
    self.add_argument(
      "--gin.NAME",
      dest="gin_bindings",
      metavar="VALUE",
      default=[],
      help="bind a parameter (Train.seed) or a macro (TOTAL_STEPS) over the files",
    )

  def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses flags; exits with 2 on a flag that does not exist."""
    argv = list(sys.argv[1:] if argv is None else argv)
    bindings, rest = [], []
    while argv:
      word = argv.pop(0)
      if not word.startswith("--gin."):
        rest.append(word)
        continue
      name, equals, value = word.removeprefix("--gin.").partition("=")
      if not equals:  # `--gin.NAME VALUE`, as every other flag may be written
        if not argv:
          raise InputError(f"--gin.{name}: got no value, expected --gin.{name}=VALUE")
        value = argv.pop(0)
      bindings.append((name, value))
    arguments, unknown = self.parse_known_args(rest)
    if unknown:
      self.error(f"no such flag: {' '.join(unknown)}{self._nearest(unknown[0])}")
    arguments.gin_bindings = bindings
    return arguments

  def _nearest(self, word: str) -> str:
    """The flag that somebody who wrote `word` may have meant."""
    name = word.partition("=")[0].replace("-", "_").replace("__", "--", 1)
    close = difflib.get_close_matches(name, self._option_string_actions, 1)
    return f"; did you mean {close[0]}?" if close else ""


def add_simulated_devices(parser: argparse.ArgumentParser) -> None:
  """Adds the flag that `simulate_devices` takes."""
  parser.add_argument(
    "--simulated_devices",
    type=int,
    metavar="N",
    help="run on N simulated CPU devices",
  )


def simulate_devices(number: int | None) -> None:
  """Makes JAX see N CPU devices; must come before any device is touched."""
  if number is None:
    return
  if number < 1:
    raise InputError(f"--simulated_devices: got {number}, expected at least 1")
  import jax  # not every command needs it

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", number)


def default_workdir(gin_files: Sequence[str]) -> Path:
  """`runs/<name of the last gin file>`: where a run lives unless --workdir says."""
  if not gin_files:
    raise InputError("--workdir: got none and no --gin_file to name it after; give one")
  return Path("runs") / Path(gin_files[-1]).stem


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
  """Runs a command's `main(argv)` and exits with its code.

  An `InputError` becomes its message on stderr and exit code 2, without traceback;
  any other exception keeps its traceback and exits with 1.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anybody loads it
  # Libraries may have put a handler there when they were imported.
  logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
  logging.getLogger("phi1_jax").setLevel(logging.INFO)
  try:
    code = main(None)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    code = WRONG_INPUT
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    code = INTERRUPTED
  except BrokenPipeError:  # the reader of our output left, as `| head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 1
  sys.stdout.flush()
  sys.exit(code)
