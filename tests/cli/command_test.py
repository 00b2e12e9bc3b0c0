import os
import subprocess
import sys
from pathlib import Path

import pytest

from phi1_jax import InputError, storage
from phi1_jax.cli import command


def ending(body):
  """Exit code, stdout and stderr of a command whose main does `body`."""
  program = (
    "from phi1_jax.cli import command\nfrom phi1_jax import InputError\n"
    f"def main(argv):\n  {body}\ncommand.run(main)\n"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
  )
  return run.returncode, run.stdout, run.stderr


@pytest.mark.parametrize(
  ("body", "code", "err"),
  [
    ("return 0", 0, ""),
    ("return command.PREEMPTED", 75, ""),
    ("raise InputError('a: got 1, expected 2')", 2, "error: a: got 1, expected 2\n"),
    ("raise command.PrintedError('a child said so')", 2, ""),
    ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ("raise ConnectionResetError(104, 'a')", 1, "error: [Errno 104] a; run the same"),
    ("raise RuntimeError('on fire')", 1, "Traceback"),
    (
      "raise ModuleNotFoundError(name='rapidfuzz')",
      2,
      "error: this needs rapidfuzz: pip",
    ),
    ("raise ModuleNotFoundError(name='mine')", 1, "Traceback"),
  ],
)
def test_exit_codes(body, code, err):
  ended, out, said = ending(body)
  assert (ended, out) == (code, "")
  assert said.startswith(err)
  assert bool(said) == bool(err)


def test_a_reader_that_leaves_is_no_traceback():
  program = (
    "from phi1_jax.cli import command\n"
    "def main(argv):\n  while True: print('x' * 1000, flush=True)\ncommand.run(main)"
  )
  run = subprocess.Popen(
    [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  )
  run.stdout.readline()
  run.stdout.close()
  assert run.wait(60) == 1
  assert run.stderr.read() == b""


@pytest.fixture
def parser():
  return command.Parser("train", "Trains.", "python -m phi1_jax.train")


@pytest.mark.parametrize(
  ("words", "bindings"),
  [
    (["--gin.Train.seed=3"], [("Train.seed", "3")]),
    (["--gin.Train.seed", "3"], [("Train.seed", "3")]),
    (["--gin.A=x=y", "--gin.A= z "], [("A", "x=y"), ("A", " z ")]),
    (["--gin.A="], [("A", "")]),
  ],
)
def test_bindings(parser, words, bindings):
  arguments = parser.parse(["--gin_file=a.gin", *words, "--gin_file", "b.gin"])
  assert arguments.gin_files == ["a.gin", "b.gin"]
  assert arguments.gin_bindings == bindings


def test_a_binding_without_value(parser):
  with pytest.raises(InputError, match=r"--gin\.Train\.seed: got no value"):
    parser.parse(["--gin.Train.seed"])


@pytest.mark.parametrize("words", [["--gin_fil=a"], ["--nope"], ["a.gin"]])
def test_unknown_flags(parser, words, capsys):
  with pytest.raises(SystemExit) as ended:
    parser.parse(words)
  assert ended.value.code == command.WRONG_INPUT
  assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("devices", [0, -1])
def test_simulated_devices(devices):
  with pytest.raises(InputError, match=f"--simulated_devices: got {devices}"):
    command.simulate_devices(devices)


def test_default_workdir():
  assert str(command.default_workdir(["gin/a.gin"])) == "runs/a"
  assert str(command.default_workdir(["gin/a.gin", "x/b.gin"])) == "runs/a-b"
  # A mesh is where a run is, not which.
  assert str(command.default_workdir(["gin/a.gin", "gin/meshes/b.gin"])) == "runs/a"
  assert str(command.default_workdir(["gin/meshes/b.gin"])) == "runs/b"
  with pytest.raises(InputError, match=r"--workdir"):
    command.default_workdir([])


def test_gin_files_in_the_cloud_name_the_same_work_directory(gcs, parser):
  names = ["gin/a.gin", "gin/meshes/b.gin"]
  for name in names:
    storage.write_text(storage.parse(f"{gcs.folder}/{name}"), name)
  words = [f"--gin_file={gcs.folder}/{name}" for name in names]
  files = parser.parse(words).gin_files
  assert [Path(file).read_text() for file in files] == names
  assert str(command.default_workdir(files)) == "runs/a"


JOINED = ("coordinator_address=a:1", "num_processes=2", "process_id=0")


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--num_processes=2"], "expected the first three together"),
    (["--coordinator_address=a:1", "--process_id=0"], "the first three together"),
    (["--distributed", "--process_id=0"], "--distributed alone"),
    (
      [f"--{name}" for name in ("distributed", *JOINED)],
      "and --distributed; expected .* --distributed alone",
    ),
    (
      ["--coordinator_address=a", "--num_processes=2", "--process_id=0"],
      "got 'a', expected HOST:PORT",
    ),
    (
      ["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"],
      "got 2 of --num_processes=2",
    ),
  ],
)
def test_hosts_that_cannot_be_meant(parser, words, message):
  command.add_hosts(parser)
  with (
    pytest.raises(InputError, match=message),
    command.joined(parser.parse(words)),
  ):
    pass


def test_a_compiler_is_not_a_tpu():
  """Where only libtpu is installed, a command starts without its complaints."""
  environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
  program = (
    "import jax; from phi1_jax.cli import command; command.leave_tpu_alone();"
    "print(jax.devices()[0].platform)"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], env=environment, capture_output=True, text=True
  )
  assert run.returncode == 0, run.stderr
  assert "libtpu" not in run.stderr
