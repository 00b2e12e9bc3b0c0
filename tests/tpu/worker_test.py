"""What happens on the workers: setting up, starting a run."""

import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
TPU = ["--name=phi1", "--zone=us-east5-b"]
RUN = ["--workdir=/w o r k", "--", "--gin_file=a.gin", "--gin.Train.name='it''s'"]


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
  environment = {
    "PATH": f"{tmp_path}:{os.environ['PATH']}",
    "HOME": str(tmp_path),
    "TPU_WORKER_ID": "3",
  }
  words = ["bash", str(ROOT / "tpu" / "worker.sh"), "status"]
  for workdir, step in (("gs://b/run", 1000), ("gs://b/other", -1), ("/none", -1)):
    done = subprocess.run(
      [*words, workdir], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == f"worker 3 lost {step}\n"


def test_setup_installs_the_last_commit_from_the_constraints_on_all_workers(cloud):
  cloud.write("tpu-vm", "READY")
  done = cloud.run("setup_host", *TPU, "--mount=touch mounted")
  assert done.returncode == 0, done.stderr
  assert cloud.verbs() == ["scp", "ssh", "ssh", "ssh", "ssh"]
  for index in range(2):
    home = cloud.root / f"worker-{index}"
    copied = home / "phi1_jax" / "constraints.txt"
    assert copied.read_text() == (ROOT / "constraints.txt").read_text()
    assert (home / "mounted").exists()
    lines = [line for line in cloud.python() if line.startswith(f"worker {index}: ")]
    words = [line.removeprefix(f"worker {index}: ") for line in lines]
    assert words[0] == f"-m venv {home}/phi1_jax_environment"
    assert words[1] == "-m pip install --quiet -c constraints.txt -e .[tpu]"
    assert "jax.distributed.initialize" in words[2]
    assert words[2].endswith(
      f"{index} --coordinator_address=10.0.0.2:8476 --num_processes=2 "
      f"--process_id={index}"
    )


def test_a_worker_with_an_old_python_gets_one_from_uv(cloud):
  cloud.write("tpu-vm", "READY")
  cloud.write("old_python")
  assert cloud.run("setup_host", *TPU).returncode == 0
  home = cloud.root / "worker-0"
  assert [line for line in cloud.python() if "worker 0: " in line][:3] == [
    "worker 0: -m pip install --quiet --user uv",
    "worker 0: -m uv venv --quiet --seed --python 3.11 "
    + f"{home}/phi1_jax_environment",
    "worker 0: -m pip install --quiet -c constraints.txt -e .[tpu]",
  ]


def test_setting_up_again_drops_old_modules_and_keeps_what_lies_beside(ready):
  copy = ready.root / "worker-0" / "phi1_jax"
  (copy / "tpu" / "old.sh").touch()
  (copy / "stores").mkdir()
  assert ready.run("setup_host", *TPU).returncode == 0
  assert not (copy / "tpu" / "old.sh").exists()
  assert (copy / "stores").exists()
  environments = [line for line in ready.python() if "venv" in line]
  assert len(environments) == 1


def test_run_pins_the_coordinator_and_passes_arguments_through(ready):
  ready.workers(2)
  assert ready.run("setup_host", *TPU).returncode == 0
  for index in range(2):
    ready.outcomes("0@10", worker=index)
  done = ready.run("run", *TPU, *RUN)
  assert done.returncode == 0, done.stderr
  ready.wait_for(*(f"worker-{index}/phi1_jax_run/exit_code" for index in range(2)))
  for index in range(2):
    (started,) = [
      line for line in ready.python() if f"worker {index}: -m phi1_jax" in line
    ]
    assert started == (
      f"worker {index}: -m phi1_jax.train --gin_file=a.gin --gin.Train.name='it''s' "
      "--workdir=/w o r k --coordinator_address=10.0.0.2:8476 --num_processes=2 "
      f"--process_id={index}"
    )
    home = ready.root / f"worker-{index}"
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
  # It asked everybody, and started nothing anywhere.
  (asked,) = ready.calls()
  assert asked[-2:] == ["--worker=all", "--command=bash phi1_jax/tpu/worker.sh busy"]
  assert sum("phi1_jax.train" in line for line in ready.python()) == 1
