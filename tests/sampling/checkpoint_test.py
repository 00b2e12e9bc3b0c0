"""Where a checkpoint may be opened; tests/sample_test.py opens some."""

import os
import subprocess
import sys

import jax
import pytest

from evals import __main__ as evals
from phi1_jax import InputError, convert, sample
from phi1_jax.sampling import checkpoint


@pytest.mark.parametrize(
  ("main", "words"),
  [
    (sample.main, ["--checkpoint={run}", "--prompt=a"]),
    (convert.main, ["from-hf", "{run}", "{run}/out"]),
    (convert.main, ["to-hf", "{run}", "{run}/out"]),
    (evals.main, ["loss", "--checkpoint={run}", "--texts={run}/texts.jsonl"]),
  ],
)
def test_several_hosts_are_refused(tmp_path, monkeypatch, main, words):
  (tmp_path / "texts.jsonl").write_text('{"text": "x"}\n')
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(InputError, match="got devices of 2 hosts, expected those of one"):
    main([word.format(run=tmp_path) for word in words])


def test_a_slice_of_several_hosts_is_refused_at_once():
  """JAX would wait for the others; no device is touched before."""
  environment = {**os.environ, "JAX_PLATFORMS": "tpu", "TPU_WORKER_HOSTNAMES": "a,b"}
  ran = subprocess.run(
    [sys.executable, "-m", "phi1_jax.sample", "--checkpoint=runs/x", "--prompt=a"],
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert ran.returncode == 2
  assert ran.stderr.startswith("error: got devices of 2 hosts, expected those of one")
  assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("environment", "hosts"),
  [
    ({"TPU_PROCESS_ADDRESSES": "a,b,c"}, 3),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, 1),
    ({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_PROCESS_BOUNDS": "1,1,1"}, 1),
    ({}, 1),
  ],
)
def test_hosts_of_a_slice(monkeypatch, environment, hosts):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert checkpoint._slice_hosts() == hosts
