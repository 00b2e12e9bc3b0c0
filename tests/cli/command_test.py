import os
import subprocess
import sys
from pathlib import Path

import pytest

from phi1_jax import InputError, storage
from phi1_jax.cli import command

# Runs commands whose main does what an argument says. Says how each ended.
ENDINGS = """
import json, sys
from phi1_jax import InputError, storage
from phi1_jax.cli import command
for body in sys.argv[1:]:
  exec(f"def main(argv):\\n  {body}")
  try:
    command.run(main)
  except SystemExit as ended:
    print("\\0", ended.code, file=sys.stderr)
import jax
print(jax.devices()[0].platform)
"""
BODIES = {
  "return print('日') or 0": (0, ""),
  "return command.PREEMPTED": (75, ""),
  "raise InputError('a: got 1, expected 2')": (2, "error: a: got 1, expected 2\n"),
  "raise command.PrintedError('a child said so')": (2, ""),
  "raise KeyboardInterrupt": (130, "interrupted\n"),
  "raise ConnectionResetError(104, 'a')": (1, "error: [Errno 104] a; run the same"),
  "raise storage.StorageError('no space')": (1, "error: no space\n"),
  "raise OSError(28, 'No space left', 'a')": (1, "error: a: No space left; make"),
  "raise RuntimeError('on fire')": (1, "Traceback"),
  "raise ModuleNotFoundError(name='rapidfuzz')": (2, "error: this needs rapidfuzz: p"),
  "raise ModuleNotFoundError(name='mine')": (1, "Traceback"),
}


def test_exit_codes_and_last_lines():
  """Also: where only libtpu is installed, it does not look for a TPU or complain."""
  environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
  environment["PYTHONIOENCODING"] = "ascii"  # text that it cannot show is escaped
  words = [sys.executable, "-c", ENDINGS, *BODIES]
  done = subprocess.run(
    words, capture_output=True, text=True, env=environment, check=True
  )
  *said, rest = done.stderr.split("\0")
  codes = [int(text.split("\n")[0]) for text in (*said[1:], rest)]
  texts = [said[0], *(text.partition("\n")[2] for text in said[1:])]
  for (body, (code, text)), found, stderr in zip(
    BODIES.items(), codes, texts, strict=True
  ):
    assert found == code, body
    assert stderr.startswith(text), body
    assert bool(stderr) == bool(text), body
  assert "libtpu" not in rest
  assert done.stdout.split()[0] == "\\u65e5"


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
    (["--gin.B="], [("B", "")]),
  ],
)
def test_bindings(parser, words, bindings):
  arguments = parser.parse(["--gin_file=a.gin", *words, "--gin_file", "b.gin"])
  assert arguments.gin_files == ["a.gin", "b.gin"]
  assert arguments.gin_bindings == bindings


@pytest.mark.parametrize("words", [["--gin_fil=a"], ["--nope"], ["a.gin"]])
def test_unknown_flags(parser, words, capsys):
  with pytest.raises(SystemExit) as ended:
    parser.parse(words)
  assert ended.value.code == command.WRONG_INPUT
  assert words[0] in capsys.readouterr().err


def test_default_workdir():
  assert str(command.default_workdir(["gin/a.gin"])) == "runs/a"
  assert str(command.default_workdir(["gin/a.gin", "x/b.gin"])) == "runs/a-b"
  # A mesh is where a run is, not which.
  assert str(command.default_workdir(["gin/a.gin", "gin/meshes/b.gin"])) == "runs/a"
  assert str(command.default_workdir(["gin/meshes/b.gin"])) == "runs/b"


def test_gin_files_in_the_cloud_name_the_same_work_directory(gcs, parser):
  names = ["gin/a.gin", "gin/meshes/b.gin"]
  for name in names:
    storage.write_text(storage.parse(f"{gcs.folder}/{name}"), name)
  words = [f"--gin_file={gcs.folder}/{name}" for name in names]
  files = parser.parse(words).gin_files
  assert [Path(file).read_text() for file in files] == names
  assert str(command.default_workdir(files)) == "runs/a"


HOSTS = "--num_processes=2 --coordinator_address="


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ("--gin.Train.seed", r"--gin\.Train\.seed: got no value"),
    ("--simulated_devices=0", "--simulated_devices: got 0"),
    ("", "--workdir"),
    ("--num_processes=2", "expected the first three together"),
    ("--distributed --process_id=0", "--distributed alone"),
    (f"--distributed {HOSTS}a:1 --process_id=0", "and --distributed; expected"),
    (f"{HOSTS}a --process_id=0", "got 'a', expected HOST:PORT"),
    (f"{HOSTS}a:1 --process_id=2", "got 2 of --num_processes=2"),
  ],
)
def test_flags_that_cannot_be_meant(parser, flags, message):
  command.add_hosts(parser)
  command.add_simulated_devices(parser)

  def start():
    arguments = parser.parse(flags.split())
    command.simulate_devices(arguments.simulated_devices)
    with command.joined(arguments):
      command.default_workdir(arguments.gin_files)

  with pytest.raises(InputError, match=message):
    start()


def test_help_does_not_wait_for_jax():
  code = "import sys, phi1_jax.compile, phi1_jax.train; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_nearest_of_the_choices(capsys):
  parser = command.PathParser()
  parser.add_argument("stage", choices=("filter", "publish"))
  with pytest.raises(SystemExit, match="2"):
    parser.parse_args(["filtr"])
  said = "got 'filtr', expected filter, publish; did you mean filter?"
  assert said in capsys.readouterr().err


def test_an_interrupt_does_not_wait_for_threads_of_jax():
  """Such as one that compiles, which the interpreter's end would crash."""
  code = """
import sys, threading, time
from phi1_jax.cli import command
def main(argv):
  import jax
  threading.Thread(target=time.sleep, args=(1000,)).start()
  print("begun")
  raise KeyboardInterrupt
command.run(main)
"""
  words = [sys.executable, "-c", code]
  done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
  assert (done.returncode, done.stdout) == (130, "begun\n")
  assert done.stderr.endswith("interrupted\n")
