"""All scripts of tpu/: the files, what they refuse, dry runs, the README."""

import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from phi1_jax.telemetry.throughput import DEVICES

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ["create", "delete", "fetch", "run", "setup_host", "watch"]
FILES = sorted(path.name for path in (ROOT / "tpu").glob("*.sh"))
TPU = ["--name=phi1", "--zone=us-east5-b"]
RUN = ["--workdir=/w o r k", "--", "--gin_file=a.gin", "--gin.Train.name='it''s'"]


@pytest.mark.parametrize("name", FILES)
def test_shellcheck_finds_nothing(name):
  if shutil.which("shellcheck") is None:
    pytest.skip("shellcheck is not installed")
  command = ["shellcheck", "-x", name]
  found = subprocess.run(command, cwd=ROOT / "tpu", capture_output=True, text=True)
  assert found.stdout + found.stderr == ""


@pytest.mark.parametrize("name", FILES)
def test_bash_can_read_it(name):
  subprocess.run(["bash", "-n", ROOT / "tpu" / name], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_an_example(cloud, script):
  done = cloud.run(script, "--help")
  assert done.returncode == 0
  assert f"\n  tpu/{script}.sh --name=phi1 --zone=us-east5-b" in done.stdout
  assert cloud.calls() == []


def test_the_readme_names_every_file():
  text = (ROOT / "docs" / "tpu.md").read_text()
  assert [name for name in FILES if f"`{name}`" not in text] == []


def test_the_readmes_costs_are_its_arithmetic():
  text = (ROOT / "docs" / "tpu.md").read_text()
  kinds = {"v3": "v3", "v4": "v4", "v5e": "v5 lite", "v5p": "v5", "v6e": "v6 lite"}
  flops = 36_000 * 2_097_152 * 8.48e9
  rows = re.findall(
    r"^\| (v\w+) \| (\d+) TFLOP/s \| (.+) \| (.+) \| (.+) \|$", text, re.M
  )
  assert [row[0] for row in rows] == list(kinds)
  for chip, peak, price, hours, cost in rows:
    cores = 2 if chip == "v3" else 1
    assert int(peak) * 1e12 == cores * DEVICES[f"TPU {kinds[chip]}"].peak_flops
    expected = flops / (int(peak) * 1e12 * 0.5 * 3600)
    assert float(hours.replace(",", "")) == pytest.approx(expected, rel=2e-3)
    bill = float(price) * expected
    assert float(cost.replace(",", "")) == pytest.approx(bill, rel=2e-3)


@pytest.mark.parametrize(
  ("script", "flags", "message"),
  [
    (
      "create",
      [*TPU, "--tpye=v4-8"],
      "no such flag: --tpye=v4-8; see create.sh --help",
    ),
    ("create", [*TPU, "--type"], "--type: got no value; see create.sh --help"),
    ("create", ["--name", "--zone=z"], "--name: got no value; see create.sh --help"),
    ("create", ["--zone=z"], "--name is missing; see create.sh --help"),
    ("create", TPU, "--type is missing; see create.sh --help"),
    (
      "create",
      [*TPU, "--type=v5e-8"],
      "--type: got v5e-8, expected such as v4-8, v5litepod-16 (v5e), v5p-8, v6e-8",
    ),
    ("delete", ["--name=phi1"], "--zone is missing; see delete.sh --help"),
    ("setup_host", [*TPU, "extra"], "no such flag: extra; see setup_host.sh --help"),
    ("fetch", TPU, "--workdir is missing; see fetch.sh --help"),
    (
      "run",
      [*TPU, "--workdir=runs/a", "--", "-x"],
      "--workdir: got runs/a, expected gs:// or a full path that all workers share",
    ),
    (
      "run",
      [*TPU, "--workdir=/a"],
      "the trainer's arguments are missing: end with -- --gin_file=gin/pretrain.gin",
    ),
    ("watch", [*TPU, *RUN], "--type is missing; see watch.sh --help"),
  ],
)
def test_wrong_input_exits_with_2_and_one_line(cloud, script, flags, message):
  done = cloud.run(script, *flags)
  assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
  assert cloud.calls() == []


def test_a_missing_gcloud_is_said(cloud):
  done = cloud.run("create", *TPU, "--type=v4-8", env=cloud.without_gcloud())
  assert done.returncode == 2
  assert done.stderr.startswith("error: gcloud is not installed; see https://")


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
  ids=["create", "create-spot", "setup_host", "run", "fetch", "delete", "watch"],
)
def test_a_dry_run_prints_commands_and_runs_nothing(cloud, script, flags):
  bare = cloud.without_gcloud()
  before = sorted(cloud.root.rglob("*"))
  done = cloud.run(script, *TPU, "--dry_run", *flags, env=bare)
  assert (done.returncode, done.stderr) == (0, "")
  assert sorted(cloud.root.rglob("*")) == before
  for line in done.stdout.splitlines():
    assert shlex.split(line.removeprefix("addresses=$("))[0] in (
      "gcloud",
      "git",
      "mkdir",
    )


@pytest.mark.parametrize(
  ("script", "flags", "state"),
  [
    ("create", ["--type=v4-8", "--every=0"], None),
    ("setup_host", ["--mount=true && echo 'it''s mounted'"], "READY"),
    ("run", RUN, "READY"),
    ("fetch", ["--workdir=/work"], "READY"),
  ],
  ids=["create", "setup_host", "run", "fetch"],
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
