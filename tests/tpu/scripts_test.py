"""All scripts of tpu/: the files, what they refuse, dry runs, the README."""

import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ["create", "delete", "fetch", "run", "setup_host", "watch"]
FILES = sorted(path.name for path in (ROOT / "tpu").glob("*.sh"))
TPU = ["--name=phi1", "--zone=us-east5-b"]
RUN = ["--workdir=/w o r k", "--", "--gin_file=a.gin", "--gin.Train.name='it''s'"]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="it is not installed")
def test_shellcheck_finds_nothing():
  command = ["shellcheck", "-x", *FILES]
  found = subprocess.run(command, cwd=ROOT / "tpu", capture_output=True, text=True)
  assert found.stdout + found.stderr == ""


def test_help_shows_an_example(cloud):
  for script in SCRIPTS:
    done = cloud.run(script, "--help")
    assert done.returncode == 0
    assert f"\n  tpu/{script}.sh --name=phi1 --zone=us-east5-b" in done.stdout
  assert cloud.calls() == []


@pytest.mark.parametrize(
  ("script", "flags", "message"),
  [
    ("create", [*TPU, "--tpye=v4-8"], "no such flag: --tpye=v4-8"),
    ("create", ["--name", "--zone=z"], "--name: got no value"),
    ("create", [*TPU, "--type=v5e-8"], "--type: got v5e-8, expected such as v4-8"),
    ("delete", ["--name=phi1"], "--zone is missing"),
    ("setup_host", [*TPU, "extra"], "no such flag: extra"),
    ("fetch", TPU, "--workdir is missing"),
    ("run", [*TPU, "--workdir=runs/a", "--", "-x"], "--workdir: got runs/a, expected"),
    ("run", [*TPU, "--workdir=/a"], "the trainer's arguments are missing"),
    ("watch", [*TPU, *RUN], "--type is missing"),
  ],
)
def test_wrong_input_exits_with_2_and_one_line(cloud, script, flags, message):
  done = cloud.run(script, *flags)
  assert done.returncode == 2
  assert done.stderr.startswith(f"error: {message}")
  assert done.stderr.count("\n") == 1
  assert cloud.calls() == []


@pytest.mark.parametrize(
  ("script", "flags"),
  [
    ("create", ["--type=v4-8"]),
    ("create", ["--type=v6e-8", "--spot"]),
    ("setup_host", ["--mount=mount it && echo 'it''s mounted'"]),
    ("run", RUN),
    ("fetch", ["--workdir=/work", "--checkpoints"]),
    ("delete", []),
    ("watch", ["--type=v4-8", *RUN]),
  ],
)
def test_a_dry_run_prints_commands_and_runs_nothing(cloud, script, flags):
  bare = cloud.without_gcloud()
  before = sorted(cloud.root.rglob("*"))
  done = cloud.run(script, *TPU, "--dry_run", *flags, env=bare)
  assert (done.returncode, done.stderr) == (0, "")
  assert sorted(cloud.root.rglob("*")) == before
  for line in done.stdout.splitlines():
    command = shlex.split(line.removeprefix("addresses=$("))[0]
    assert command in ("gcloud", "git", "mkdir")


@pytest.mark.parametrize(
  ("script", "flags", "state"),
  [
    ("create", ["--type=v4-8", "--every=0"], None),
    ("setup_host", ["--mount=true && echo 'it''s mounted'"], "READY"),
    ("run", RUN, "READY"),
    ("fetch", ["--workdir=/work"], "READY"),
  ],
)
def test_what_a_dry_run_prints_is_what_a_run_does(ready, script, flags, state):
  """Pasted into a shell, the lines send gcloud what the script itself sends."""
  ready.write("created-tpu-vm", "READY")
  ready.workers(2)
  shutil.copytree(ready.root / "worker-0", ready.root / "worker-1")
  sent = []
  for paste in (False, True):
    for index in range(2):
      ready.outcomes("0@10", worker=index)
    (ready.root / "tpu-vm").unlink(missing_ok=True)
    if state:
      ready.write("tpu-vm", state)
    if paste:
      lines = ready.run(script, *TPU, "--dry_run", *flags).stdout
      path = f"{ready.root}/bin:/usr/bin:/bin"
      folder = ready.root / "clone"
      subprocess.run(["bash", "-c", lines], cwd=folder, env={"PATH": path})
    else:
      ready.run(script, *TPU, *flags)
    if script == "run":
      names = [f"worker-{index}/phi1_jax_run/exit_code" for index in range(2)]
      ready.wait_for(*names)
      for name in names:
        (ready.root / name).unlink()
    sent.append(ready.calls())
  assert sent[0] == sent[1] != []
