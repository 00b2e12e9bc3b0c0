"""The frame of every command: flags in, exit code out.

Exit codes: 0 done; 1 it failed while running; 2 what was given is wrong; 75 stopped
by preemption after saving, or another process still holds the folder (EX_TEMPFAIL: run
the same command to go on); 130 Ctrl-C.
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

from phi1_jax import InputError, storage

DONE = 0
WRONG_INPUT = 2
PREEMPTED = 75
INTERRUPTED = 130
# Errors of a disk that end a command with one line.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Names, to a command that another one runs, a pipe that ends with that one, and what is
# written there before it is told to stop.
PARENT, TOLD = "PHI1_JAX_PARENT", b"!"


class PathParser(argparse.ArgumentParser):
  """An argument parser whose flags may have `type=storage.parse`."""

  def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
    if action.type is storage.parse:
      return storage.parse(arg_string)  # argparse would hide its InputError
    return super()._get_value(action, arg_string)


class Parser(PathParser):
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
    arguments.gin_files = [_local_gin_file(name) for name in arguments.gin_files]
    return arguments

  def _nearest(self, word: str) -> str:
    """The flag that somebody who wrote `word` may have meant."""
    name = word.partition("=")[0].replace("-", "_").replace("__", "--", 1)
    close = difflib.get_close_matches(name, self._option_string_actions, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _local_gin_file(name: str) -> str:
  """Return the name of a local gin file: itself, or a copy of one in the cloud."""
  path = storage.parse(name)
  if not storage.is_remote(path):
    return name
  digest = hashlib.sha256(name.encode()).hexdigest()
  local = storage.cache_folder() / "gin" / digest[:16]
  local.mkdir(parents=True, exist_ok=True)
  try:
    storage.write_bytes(local / path.name, storage.read_bytes(path))
  except FileNotFoundError:
    raise InputError(f"{name}: no such gin file") from None
  return str(local / path.name)


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


def leave_tpu_alone() -> None:
  """Keeps JAX from looking for a TPU where none is, if only its compiler is installed.

  libtpu would complain on every start, before the first line of ours. Where there is a
  GPU, or JAX has been told what to use, nothing is changed.
  """
  devices = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*", "kfd")
  if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
    return
  if not any(found for pattern in devices for found in Path("/dev").glob(pattern)):
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # it has read the environment already
      sys.modules["jax"].config.update("jax_platforms", "cpu")


def add_hosts(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that `joined` takes."""
  parser.add_argument(
    "--coordinator_address",
    metavar="HOST:PORT",
    help="many hosts: address of process 0, the same on all",
  )
  parser.add_argument(
    "--num_processes", type=int, metavar="N", help="many hosts: how many processes"
  )
  parser.add_argument(
    "--process_id", type=int, metavar="K", help="many hosts: which one this is, from 0"
  )
  parser.add_argument(
    "--distributed",
    action="store_true",
    help="many hosts: ask the TPU pod or SLURM job for the three above",
  )


@contextlib.contextmanager
def joined(arguments: argparse.Namespace) -> Iterator[None]:
  """Within it, this process is one of the many that the flags of `add_hosts` name.

  Without such flags it is alone, and nothing is done. Otherwise an exception inside
  ends the process here, as `run` would, but without waiting for hosts that are gone.
  """
  if not _check_hosts(arguments):
    yield
    return
  from phi1_jax.parallel import hosts  # it imports JAX, which not every command needs

  hosts.join(
    arguments.coordinator_address, arguments.num_processes, arguments.process_id
  )
  if not hosts.is_first():
    logging.getLogger("phi1_jax").setLevel(logging.WARNING)
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    if line := hosts.lost(error):
      hosts.end(f"error: {line}", 1)
    hosts.leave(_tell(error))
  hosts.part()


def _check_hosts(arguments: argparse.Namespace) -> bool:
  """Whether there are other hosts; refuses flags that do not belong together."""
  address, count = arguments.coordinator_address, arguments.num_processes
  number = arguments.process_id
  given = [value is not None for value in (address, count, number)]
  if arguments.distributed and any(given):
    raise InputError(
      "--distributed: got --coordinator_address, --num_processes or --process_id "
      "too, expected it alone (it asks the TPU pod or SLURM job for them)"
    )
  if not any(given):
    return arguments.distributed
  if not all(given):
    raise InputError(
      f"got --coordinator_address={address}, --num_processes={count}, "
      f"--process_id={number}; expected all three, or none"
    )
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
  """`runs/<names of the gin files>`: where a run lives unless --workdir says.

  Those of gin/meshes are left out: a run may go on on another machine.
  """
  if not gin_files:
    raise InputError("--workdir: got none and no --gin_file to name it after; give one")
  files = [Path(file) for file in gin_files]
  named = [file.stem for file in files if file.parent.name != "meshes"]
  return Path("runs") / "-".join(named or [files[-1].stem])


def _end_with_parent() -> None:
  """A child of another command stops when that one is gone, however it went."""
  pipe = os.environ.pop(PARENT, None)
  if pipe is None:
    return

  def wait() -> None:
    if os.read(int(pipe), 1) != TOLD:  # it has ended
      os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=wait, daemon=True).start()


def run(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
  """Runs a command's `main(argv)` and exits with its code.

  An `InputError` becomes its message on stderr and exit code 2, without traceback;
  a full disk, or storage that kept failing, becomes one line and 1; any other exception
  keeps its traceback and exits with 1.
  """
  _end_with_parent()
  if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error is from the start
    sys.stdout.reconfigure(errors="backslashreplace")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anybody loads it
  leave_tpu_alone()
  # Libraries may have put a handler there when they were imported.
  logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
  logging.getLogger("phi1_jax").setLevel(logging.INFO)
  # Orbax logs pages about a failed save, which it raises as well.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  try:
    code = main(None)
  except BrokenPipeError:  # the reader of our output left, as `| head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 1
  except (Exception, KeyboardInterrupt) as error:
    code = _tell(error)
  sys.stdout.flush()
  sys.exit(code)


def _tell(error: BaseException) -> int:
  """Tells the user what went wrong; returns the exit code for it."""
  if isinstance(error, InputError):
    print(f"error: {error}", file=sys.stderr)
    return WRONG_INPUT
  if isinstance(error, storage.HeldError):
    print(f"error: {error}", file=sys.stderr)
    return PREEMPTED
  if isinstance(error, storage.StorageError):
    print(f"error: {error}", file=sys.stderr)
    return 1
  if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
    place = f"{error.filename}: " if error.filename else ""
    print(f"error: {place}{error.strerror}", file=sys.stderr)
    return 1
  if isinstance(error, KeyboardInterrupt):
    print("interrupted", file=sys.stderr)
    return INTERRUPTED
  traceback.print_exception(error)
  return 1
