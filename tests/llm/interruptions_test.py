"""The benchmark of interruptions, small: its own checks decide."""

import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("openai")
BENCHMARK = pathlib.Path(__file__).parents[2] / "benchmarks/interruptions.py"


def test_kills_cost_nothing_and_change_nothing(tmp_path):
  command = [sys.executable, str(BENCHMARK), f"--folder={tmp_path}/runs", "--kills=5"]
  command += ["--requests=24", "--latency=0.02", "--seed=1"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert "output identical: True" in done.stdout
  found = re.findall(r"billed (\d+) calls, journalled (\d+), paid twice 0", done.stdout)
  assert len(found) >= 4
  assert all(billed == journalled for billed, journalled in found)
