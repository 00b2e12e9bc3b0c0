"""Creating a TPU, fetching from it, deleting it."""

import pytest

TPU = ["--name=phi1", "--zone=us-east5-b"]


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


def test_create_leaves_a_ready_tpu_alone(cloud):
  cloud.write("tpu-vm", "READY")
  done = cloud.run("create", *TPU, "--type=v4-8")
  assert (done.returncode, done.stdout) == (0, "phi1 is READY already; left alone\n")
  assert cloud.verbs() == []


def test_spot_waits_in_the_queue(cloud):
  cloud.write("queued-resources", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
  flags = [*TPU, "--type=v6e-8", "--spot", "--every=0"]
  done = cloud.run("create", *flags)
  assert done.returncode == 0
  assert "phi1 is in the queue already: WAITING_FOR_RESOURCES\n" in done.stdout
  assert "phi1 waits in the queue: PROVISIONING\n" in done.stdout
  assert done.stdout.endswith("phi1 is CREATING\nphi1 is READY\n")
  assert cloud.verbs() == []


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED", "STOPPED"])
def test_create_says_that_a_dead_tpu_must_go_first(cloud, state):
  cloud.write("tpu-vm", state)
  done = cloud.run("create", *TPU, "--type=v4-8")
  assert done.returncode == 1
  assert f"phi1 is {state}; delete it first: tpu/delete.sh" in done.stderr
  assert cloud.verbs() == []


def test_fetch_copies_what_a_run_has_left(cloud):
  work = cloud.root / "work"
  (work / "checkpoints" / "100").mkdir(parents=True)
  for name in ("config.gin", "metrics.jsonl", "summary.json", "loss.png"):
    (work / name).write_text(name)
  assert cloud.run("fetch", *TPU, f"--workdir={work}").returncode == 0
  here = cloud.root / "clone" / "runs" / "work"
  names = {"config.gin", "metrics.jsonl", "summary.json", "loss.png"}
  assert {path.name for path in here.iterdir()} == names
  flags = [f"--workdir={work}", "--to=there", "--checkpoints"]
  assert cloud.run("fetch", *TPU, *flags).returncode == 0
  assert (cloud.root / "clone" / "there" / "checkpoints" / "100").is_dir()
  assert {word for call in cloud.calls() for word in call if "worker" in word} == {
    "--worker=0"
  }


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
  assert deleted[2:] == [
    *("queued-resources", "delete", "phi1", "--zone=us-east5-b", "--force", "--quiet")
  ]
  again = cloud.run("delete", *TPU, "--yes")
  assert again.stdout == "phi1 is not there; nothing to delete\n"
  assert (again.returncode, cloud.verbs()) == (0, [])


def test_an_answer_that_is_no_state_is_not_taken_for_absence(cloud):
  (cloud.root / "bin" / "gcloud").write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
  done = cloud.run("delete", *TPU, "--yes")
  assert (done.returncode, done.stderr) == (1, "no network\n")


def test_spot_asks_through_a_queued_resource(cloud):
  done = cloud.run("create", *TPU, "--type=v6e-8", "--spot", "--every=0")
  assert done.returncode == 0
  (made,) = [call for call in cloud.calls() if call[3] == "create"]
  assert made == [
    *("compute", "tpus", "queued-resources", "create", "phi1", "--zone=us-east5-b"),
    *("--node-id=phi1", "--accelerator-type=v6e-8"),
    *("--runtime-version=v2-alpha-tpuv6e", "--spot"),
  ]
