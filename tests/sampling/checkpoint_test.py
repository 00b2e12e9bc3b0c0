"""Where a checkpoint may be opened; tests/sample_test.py opens some."""

import jax
import pytest

from evals import __main__ as evals
from phi1_jax import InputError, convert, sample
from phi1_jax.sampling import checkpoint


@pytest.mark.parametrize(
  ("main", "words"),
  [
    (sample.main, ["--checkpoint={run}", "--prompt=a"]),
    (convert.main, ["to-hf", "{run}", "{run}/out"]),
    (evals.main, ["loss", "--checkpoint={run}", "--texts={run}/texts.jsonl"]),
  ],
)
def test_several_hosts_are_refused(tmp_path, monkeypatch, main, words):
  (tmp_path / "texts.jsonl").write_text('{"text": "x"}\n')
  for name in ("meta", "state"):  # as a step folder has
    (tmp_path / name).mkdir()
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(InputError, match="got devices of 2 hosts, expected those of one"):
    main([word.format(run=tmp_path) for word in words])


@pytest.mark.parametrize(
  ("environment", "hosts"),
  [
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, 2),
    ({"TPU_PROCESS_ADDRESSES": "a,b,c"}, 3),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, 1),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_PROCESS_BOUNDS": "1,1,1"}, 1),
  ],
)
def test_a_slice_of_several_hosts_is_refused_at_once(monkeypatch, environment, hosts):
  """JAX would wait for the others; no device is touched before."""
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr(jax, "process_count", lambda: 1)
  before = jax.config.values["jax_platforms"]
  jax.config.update("jax_platforms", "tpu")
  try:
    if hosts == 1:
      checkpoint.check_one_host()
    else:
      with pytest.raises(InputError, match=f"got devices of {hosts} hosts"):
        checkpoint.check_one_host()
  finally:
    jax.config.update("jax_platforms", before)
