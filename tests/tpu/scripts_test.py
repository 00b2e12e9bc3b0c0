"""The scripts of tpu/ with a stub of gcloud: what they refuse, send and start again."""

import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ["create", "delete", "fetch", "run", "setup_host", "watch"]
TPU = ["--name=phi1", "--zone=us-east5-b"]
RUN = ["--workdir=/w o r k", "--", "--gin_file=a.gin", "--gin.Train.name='it''s'"]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="it is not installed")
def test_shellcheck_finds_nothing():
  files = sorted(path.name for path in (ROOT / "tpu").glob("*.sh"))
  command = ["shellcheck", "-x", *files]
  found = subprocess.run(command, cwd=ROOT / "tpu", capture_output=True, text=True)
  assert found.stdout + found.stderr == ""


@pytest.mark.parametrize(
  ("script", "flags", "message"),
  [
    *((script, ["--help"], None) for script in SCRIPTS),
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
  if message is None:
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n  tpu/{script}.sh --name=phi1 --zone=us-east5-b" in done.stdout
  else:
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
  assert cloud.calls() == []


@pytest.mark.parametrize(
  ("script", "flags"),
  [
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
  ("chips", "version"),
  [
    ("v6e-8", "v2-alpha-tpuv6e"),
    ("v5litepod-16", "v2-alpha-tpuv5-lite"),
    ("v5p-8", "v2-alpha-tpuv5"),
    ("v4-8", "tpu-ubuntu2204-base"),
  ],
)
def test_create_waits_until_ready(cloud, chips, version):
  flags = ["--project", "mine", "--type", chips, "--every=0"]
  done = cloud.run("create", *TPU, *flags)
  assert (done.returncode, done.stdout) == (0, "phi1 is CREATING\nphi1 is READY\n")
  where = ["phi1", "--zone=us-east5-b", "--project=mine"]
  look = ["compute", "tpus", "tpu-vm", "describe", *where, "--format=value(state)"]
  make = ["compute", "tpus", "tpu-vm", "create", *where]
  make += [f"--accelerator-type={chips}", f"--version={version}"]
  assert cloud.calls() == [look, make, look, look]


@pytest.mark.parametrize(
  ("state", "code", "said"),
  [
    ("READY", 0, "phi1 is READY already; left alone\n"),
    ("PREEMPTED", 1, "phi1 is PREEMPTED; delete it first: tpu/delete.sh"),
  ],
)
def test_create_makes_no_second_tpu(cloud, state, code, said):
  cloud.write("tpu-vm", state)
  done = cloud.run("create", *TPU, "--type=v4-8")
  assert done.returncode == code
  assert said in done.stdout + done.stderr
  assert cloud.verbs() == []


def test_spot_waits_in_the_queue(cloud):
  flags = [*TPU, "--type=v6e-8", "--spot", "--every=0"]
  assert cloud.run("create", *flags).returncode == 0
  (made,) = [call for call in cloud.calls() if call[3] == "create"]
  assert made == [
    *("compute", "tpus", "queued-resources", "create", "phi1", "--zone=us-east5-b"),
    *("--node-id=phi1", "--accelerator-type=v6e-8"),
    *("--runtime-version=v2-alpha-tpuv6e", "--spot"),
  ]
  (cloud.root / "tpu-vm").unlink()
  cloud.write("queued-resources", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
  done = cloud.run("create", *flags)
  assert done.returncode == 0
  assert "phi1 is in the queue already: WAITING_FOR_RESOURCES\n" in done.stdout
  assert "phi1 waits in the queue: PROVISIONING\n" in done.stdout
  assert done.stdout.endswith("phi1 is CREATING\nphi1 is READY\n")
  assert cloud.verbs() == []


def test_fetch_copies_what_a_run_has_left(cloud):
  work = cloud.root / "work"
  (work / "checkpoints" / "100").mkdir(parents=True)
  names = {"config.gin", "metrics.jsonl", "summary.json", "loss.png"}
  for name in names:
    (work / name).write_text(name)
  assert cloud.run("fetch", *TPU, f"--workdir={work}").returncode == 0
  here = cloud.root / "clone" / "runs" / "work"
  assert {path.name for path in here.iterdir()} == names
  flags = [f"--workdir={work}", "--to=there", "--checkpoints"]
  assert cloud.run("fetch", *TPU, *flags).returncode == 0
  assert (cloud.root / "clone" / "there" / "checkpoints" / "100").is_dir()
  workers = {word for call in cloud.calls() for word in call if "worker" in word}
  assert workers == {"--worker=0"}


def test_delete_asks(cloud):
  cloud.write("tpu-vm", "READY")
  done = cloud.run("delete", *TPU, answer="n\n")
  assert (done.returncode, done.stderr) == (1, "error: nothing was deleted\n")
  assert cloud.verbs() == []
  assert cloud.run("delete", *TPU, answer="y\n").returncode == 0
  assert not (cloud.root / "tpu-vm").exists()


def test_delete_takes_the_queued_resource_and_may_be_repeated(cloud):
  cloud.write("tpu-vm", "PREEMPTED")
  cloud.write("queued-resources", "SUSPENDED")
  assert cloud.run("delete", *TPU, "--yes").returncode == 0
  (deleted,) = [call for call in cloud.calls() if call[3] == "delete"]
  words = ["queued-resources", "delete", "phi1", "--zone=us-east5-b", "--force"]
  assert deleted[2:] == [*words, "--quiet"]
  again = cloud.run("delete", *TPU, "--yes")
  assert again.stdout == "phi1 is not there; nothing to delete\n"
  assert (again.returncode, cloud.verbs()) == (0, [])
  # An answer that names no state does not mean that the machine is absent.
  (cloud.root / "bin" / "gcloud").write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
  done = cloud.run("delete", *TPU, "--yes")
  assert (done.returncode, done.stderr) == (1, "no network\n")


@pytest.mark.parametrize(
  ("outcomes", "flags", "code", "starts", "said"),
  [
    (["75@100 143@200 0@300"], [], 0, 3, "worker 0 143 200\n"),
    (["2@10 0@20"], [], 2, 1, "error: the run was refused"),
    (["1@10 0@20"], [], 1, 1, "error: the run failed"),
    (["killed@10 0@20"], [], 0, 2, "worker 0 lost 10\n"),
    (["75@1 75@2 75@3 75@3 75@3 0@4"], ["--restarts=2"], 1, 5, "gave up after 2"),
    # It waits until all have ended. A worker may fail beside a preempted one.
    (["75@10 0@20", "slow@10 0@20"], [], 0, 4, "worker 1 0 20\n"),
    (["75@10 0@20", "1@10 0@20"], [], 0, 4, "worker 1 0 20\n"),
  ],
)
def test_watch_starts_again_while_that_helps(
  request, outcomes, flags, code, starts, said
):
  """From nothing, where there are two workers."""
  cloud = request.getfixturevalue("ready" if len(outcomes) == 1 else "cloud")
  for worker, lines in enumerate(outcomes):
    cloud.outcomes(*lines.split(), worker=worker)
  done = cloud.watch(*flags)
  assert done.returncode == code, done.stderr
  assert said in done.stdout + done.stderr
  if code == 0:
    assert "done; see tpu/fetch.sh" in done.stdout
  elif not flags:
    assert "worker 0: training in " in done.stderr  # the log
  assert sum("phi1_jax.train" in line for line in cloud.python()) == starts
  if len(outcomes) == 1:
    assert set(cloud.verbs()) == {"ssh"}


@pytest.mark.parametrize("how", ["preempted", "suspended"])
def test_watch_creates_a_preempted_tpu_again(ready, how):
  ready.write("queued-resources", "ACTIVE")
  ready.outcomes(f"{how}@100", "0@200")
  done = ready.watch("--spot", "--mount=touch mounted")
  assert done.returncode == 0, done.stderr
  calls = ready.calls()
  kept = [call for call in calls if call[3] in ("create", "delete", "scp")]
  verbs = [["queued-resources", verb] for verb in ("delete", "create")]
  assert [call[2:4] for call in kept] == [*verbs, ["tpu-vm", "scp"]]
  first, last = (call for call in calls if "worker.sh start" in call[-1])
  assert first == last
  assert calls.index(first) < calls.index(kept[0]) < calls.index(kept[2])
  assert (ready.root / "worker-0/mounted").exists()


@pytest.mark.parametrize("state", ["STOPPED", "REPAIRING", None])
def test_watch_leaves_alone_what_is_not_preempted(ready, state):
  """Nor does a network that fails when it is asked after a failure delete anything."""
  if state:
    ready.write("tpu-vm", state, state, "READY")
  else:
    ready.write("flaky")
  ready.outcomes("0@10" if state else "1@10")
  done = ready.watch()
  assert done.returncode == (0 if state else 1), done.stderr
  said = f"phi1 is {state}\nphi1 is {state}\n" if state else "ERROR: no network"
  assert said in done.stdout + done.stderr
  assert set(ready.verbs()) == {"ssh"}


def test_status_of_a_run_in_a_bucket(tmp_path):
  """Only saves that came to their end count, and the newest by number."""
  fake = tmp_path / "gcloud"
  fake.write_text(
    "#!/bin/sh\n"
    '[ "$*" = "storage ls gs://b/run/checkpoints/*/commit_success.txt" ] || exit 1\n'
    "for step in 9 1000 200; do\n"
    "  echo gs://b/run/checkpoints/$step/commit_success.txt\n"
    "done\n"
  )
  fake.chmod(0o755)
  path = f"{tmp_path}:{os.environ['PATH']}"
  environment = {"PATH": path, "HOME": str(tmp_path), "TPU_WORKER_ID": "3"}
  words = ["bash", str(ROOT / "tpu" / "worker.sh"), "status"]
  for workdir, step in (("gs://b/run", 1000), ("gs://b/other", -1), ("/none", -1)):
    done = subprocess.run(
      [*words, workdir], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == f"worker 3 lost {step}\n"


def test_setup_and_run_on_all_workers(cloud):
  """Of the last commit, from the constraints; arguments are passed through."""
  cloud.write("tpu-vm", "READY")
  done = cloud.run("setup_host", *TPU, "--mount=touch mounted")
  assert done.returncode == 0, done.stderr
  assert cloud.verbs() == ["scp", "ssh", "ssh", "ssh", "ssh"]
  for index in range(2):
    cloud.outcomes("0@10", worker=index)
  done = cloud.run("run", *TPU, *RUN)
  assert done.returncode == 0, done.stderr
  for index in range(2):
    cloud.wait_for(f"worker-{index}/phi1_jax_run/exit_code")
    home = cloud.root / f"worker-{index}"
    copied = home / "phi1_jax" / "constraints.txt"
    assert copied.read_text() == (ROOT / "constraints.txt").read_text()
    assert (home / "mounted").exists()
    start = f"worker {index}: "
    words = [x.removeprefix(start) for x in cloud.python() if x.startswith(start)]
    assert words[0] == f"-m venv {home}/phi1_jax_environment"
    assert words[1] == "-m pip install --quiet -c constraints.txt -e .[tpu]"
    assert "jax.distributed.initialize" in words[2]
    hosts = "--coordinator_address=10.0.0.2:8476 --num_processes=2 --process_id="
    assert words[2].endswith(f"{index} {hosts}{index}")
    assert words[3:] == [
      "-m phi1_jax.train --gin_file=a.gin --gin.Train.name='it''s' "
      f"--workdir=/w o r k {hosts}{index}"
    ]
    assert (home / "phi1_jax_run" / "exit_code").read_text() == "0\n"
    log = (home / "phi1_jax_run" / "log").read_text()
    assert f"training in {home}/phi1_jax\n" in log


def test_no_trainer_is_started_beside_another(ready):
  ready.outcomes("hang@0", "0@10")
  assert ready.run("run", *TPU, *RUN).returncode == 0
  ready.wait_for("hanging")
  ready.workers(2)
  shutil.copytree(ready.root / "worker-0/phi1_jax", ready.root / "worker-1/phi1_jax")
  ready.calls()
  done = ready.run("run", *TPU, *RUN)
  log = ready.root / "worker-0/phi1_jax_run/log"
  assert done.returncode == 2
  assert done.stderr == f"error: worker 0: a trainer is still running; see {log}\n"
  # It asked all workers, and started nothing anywhere.
  (asked,) = ready.calls()
  assert asked[-2:] == ["--worker=all", "--command=bash phi1_jax/tpu/worker.sh busy"]
  assert sum("phi1_jax.train" in line for line in ready.python()) == 1
