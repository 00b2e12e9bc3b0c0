"""Memory of a step on a CPU, in a process of its own: its allocator keeps settings."""

import subprocess
import sys

from phi1_jax.telemetry.writers import read_metrics

HOOK = """
import resource

def faults(setup, store):
  count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  return lambda step, state: {"faults": count()}.items()
"""


def test_steps_reuse_their_memory(tmp_path, tiny_run, words_store):
  """Otherwise the system would clear all of it again for each step."""
  words_store(tmp_path / "store", documents=200)
  (tmp_path / "memory_hook.py").write_text(HOOK)
  sizes = {"Train.batch_size": 16, "Train.sequence_length": 128}
  sizes |= {"Model.max_length": 128, "Model.mlp_dim": 1024, "Train.total_steps": 201}
  hooks = {"Runtime.hooks": {"memory_hook:faults": 100}}
  (tmp_path / "run.gin").write_text(tiny_run(sizes | hooks))
  words = [
    sys.executable,
    "-m",
    "phi1_jax.train",
    "--gin_file=run.gin",
    "--workdir=run",
  ]
  done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
  faults = {row["step"]: row["faults"] for row in rows if "faults" in row}
  pages = (faults[200] - faults[100]) / 100
  assert pages < 300, faults  # a step's temporaries have thousands
