"""A stub of gcloud that plays the cloud.

Its workers are folders: what the scripts send over ssh is really run, in a worker's
home directory, with a stub of Python there. A trainer ends as `outcomes` says.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TPU = ["--name=phi1", "--zone=us-east5-b"]

GCLOUD = """#!{python} -SE
import json, os, pathlib, shutil, subprocess, sys
root = pathlib.Path({root!r})
with (root / "calls.jsonl").open("a") as file:
  file.write(json.dumps(sys.argv[1:]) + "\\n")
compute, tpus, group, verb, *words = sys.argv[1:]
flags = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
words = [word for word in words if not word.startswith("--")]
addresses = (root / "addresses").read_text().split()
states = root / group  # one a line, one a look; the last one stays
worker = flags.get("worker", "0")
workers = range(len(addresses)) if worker == "all" else [int(worker)]
homes = [root / f"worker-{{index}}" for index in range(len(addresses))]
for home in homes:
  home.mkdir(exist_ok=True)
if verb == "describe":
  if (root / "offline").exists():
    (root / "offline").unlink()
    sys.exit("ERROR: no network")
  if not states.exists():
    sys.exit("ERROR: NOT_FOUND: no such resource")
  first, *rest = states.read_text().split()
  if "networkEndpoints" in flags["format"]:
    print(";".join(addresses))
  else:
    print(first)
    if first == "ACTIVE" and not (root / "tpu-vm").exists():
      shutil.copy(root / "created-tpu-vm", root / "tpu-vm")
    states.write_text("\\n".join(rest or [first]))
elif verb == "create":
  shutil.copy(root / f"created-{{group}}", states)
elif verb == "delete":
  states.unlink()
  (root / "tpu-vm").unlink(missing_ok=True)
  for home in homes:
    shutil.rmtree(home)
elif verb == "scp":
  source, target = (word.rpartition(":") for word in words)
  if target[1]:
    for index in workers:
      shutil.copy(source[2], homes[index] / target[2])
  else:
    subprocess.run(f"cp -r {{source[2]}} {{target[2]}}", shell=True, check=True)
elif verb == "ssh":
  codes = []
  for index in workers:
    environment = {{
      "HOME": str(homes[index]),
      "PATH": f"{{root}}/bin:/usr/bin:/bin",
      "TPU_WORKER_ID": str(index),
    }}
    command = ["bash", "-c", flags["command"]]
    codes.append(subprocess.call(command, cwd=homes[index], env=environment))
  ended = (homes[0] / "phi1_jax_run" / "exit_code").exists()
  if " status " in flags["command"] and ended and (root / "flaky").exists():
    (root / "flaky").rename(root / "offline")
  sys.exit(next(filter(None, codes), 0))
"""

PYTHON = """#!/usr/bin/env bash
root={root}
case "$*" in
  '-c import ensurepip'*) [ ! -e "$root/old_python" ]; exit ;;
  --version) echo Python 3.11.9; exit ;;
esac
printf 'worker %s: %s\\n' "$TPU_WORKER_ID" "${{*//$'\\n'/ }}" >>"$root/python.log"
case "$*" in
  *venv*) mkdir -p "${{@: -1}}/bin"; cp "$0" "${{@: -1}}/bin/python" ;;
  '-m phi1_jax.train'*)
    echo "training in $PWD"
    outcomes=$root/outcomes-$TPU_WORKER_ID
    IFS=@ read -r code step <"$outcomes"
    sed -i 1d "$outcomes"
    mkdir -p "$root/work/checkpoints/$step" "$root/work/checkpoints/9999.tmp"
    case $code in
      preempted) echo PREEMPTED >"$root/tpu-vm"; exit 1 ;;
      suspended)
        rm -f "$root/tpu-vm"
        echo SUSPENDED >"$root/queued-resources"
        exit 1 ;;
      killed) kill -9 $PPID; exit 1 ;;
      slow) sleep 0.5; exit 75 ;;
      hang) echo $$ >>"$root/hanging"; exec sleep 60 ;;
    esac
    exit "$code"
    ;;
esac
"""


class Cloud:
  """A cloud of one possible TPU.

  Args:
    root: where the stubs keep what they know, and `clone`, a repository with the
      scripts.
  """

  def __init__(self, root: pathlib.Path):
    self.root = root

  def write(self, name: str, *lines: str) -> None:
    (self.root / name).write_text("".join(f"{line}\n" for line in lines))

  def workers(self, number: int) -> None:
    self.write("addresses", *(f"10.0.0.{index + 2}" for index in range(number)))

  def outcomes(self, *lines: str, worker: int = 0) -> None:
    """How a worker's trainers end, one start after another: CODE@CHECKPOINT."""
    self.write(f"outcomes-{worker}", *lines)

  def run(self, script, *flags, env=None, answer="") -> subprocess.CompletedProcess:
    """Runs a script as a user does, from the clone's top folder."""
    return subprocess.run(
      [f"tpu/{script}.sh", *flags],
      cwd=self.root / "clone",
      env=env or {"PATH": f"{self.root}/bin:/usr/bin:/bin"},
      input=answer,
      text=True,
      capture_output=True,
      timeout=60,
    )

  def watch(self, *flags: str) -> subprocess.CompletedProcess:
    """Runs watch.sh with hardly a pause between two looks."""
    flags = (*TPU, "--type=v4-8", "--every=0.02", f"--workdir={self.root}/work", *flags)
    return self.run("watch", *flags, "--", "--gin_file=a.gin")

  def without_gcloud(self) -> dict[str, str]:
    """An environment with what the scripts need, and without gcloud."""
    bare = self.root / "bare"
    bare.mkdir()
    for name in ("awk", "bash", "basename", "dirname", "git", "grep", "mktemp", "rm"):
      (bare / name).symlink_to(shutil.which(name) or name)
    return {"PATH": str(bare)}

  def calls(self) -> list[list[str]]:
    """What gcloud was called with since this was asked last."""
    path = self.root / "calls.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]

  def verbs(self) -> list[str]:
    """The calls in short, and without those that only ask."""
    return [call[3] for call in self.calls() if call[3] != "describe"]

  def python(self) -> list[str]:
    """What Python was called with on the workers."""
    path = self.root / "python.log"
    return path.read_text().splitlines() if path.exists() else []

  def wait_for(self, *names: str) -> None:
    """Waits until these files of the workers are there."""
    deadline = time.monotonic() + 60
    for name in names:
      while not (self.root / name).exists():
        assert time.monotonic() < deadline, name
        time.sleep(0.01)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> pathlib.Path:
  """A repository of the scripts alone."""
  path = tmp_path_factory.mktemp("clone")
  shutil.copytree(ROOT / "tpu", path / "tpu")
  shutil.copy(ROOT / "constraints.txt", path)
  name = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
  for command in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "all"]):
    subprocess.run(["git", *command], cwd=path, check=True)
  return path


@pytest.fixture
def cloud(tmp_path, clone):
  shutil.copytree(clone, tmp_path / "clone", symlinks=True)
  (tmp_path / "bin").mkdir()
  stubs = {"gcloud": GCLOUD.format(python=sys.executable, root=str(tmp_path))}
  for name in ("python3.11", "python3.12", "python3.13", "python3"):
    stubs[name] = PYTHON.format(root=tmp_path)
  for name, text in stubs.items():
    (tmp_path / "bin" / name).write_text(text)
    (tmp_path / "bin" / name).chmod(0o755)
  cloud = Cloud(tmp_path)
  cloud.workers(2)
  cloud.write("created-tpu-vm", "CREATING", "READY")
  cloud.write("created-queued-resources", "WAITING_FOR_RESOURCES", "ACTIVE")
  yield cloud
  if (tmp_path / "hanging").exists():
    for pid in (tmp_path / "hanging").read_text().split():
      os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def ready(cloud):
  """A TPU that is created and set up, with one worker; calls so far forgotten."""
  cloud.workers(1)
  cloud.write("tpu-vm", "READY")
  assert cloud.run("setup_host", *TPU).returncode == 0
  cloud.calls()
  return cloud
