import dataclasses
import itertools
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from evals import generate, prompts, workdir
from evals.backends import CheckpointBackend, EndpointBackend, Wanted
from evals.config import EvaluationConfig
from phi1_jax import InputError, storage
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.llm.completions import Completion, RefusedError, RequestError
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel import sharding
from phi1_jax.text import settings_file
from phi1_jax.text import tokenizer as tokenizers

CONFIG = EvaluationConfig("humaneval-164", "as-is", slots=3, max_new_tokens=4)
WANTED = [Wanted(key, f"prompt {key}", ("\ndef",), 4, 0) for key in "abcde"]


class Endpoint:
  base_url, model, api, left_out = "http://x/v1", "m", "completions", ()

  def __init__(self, *, fails=(), refuses=(), refusal=None):
    self.asked, self._fails, self._refuses = [], fails, refuses
    self._refusal = refusal

  def complete(self, prompt, **options):
    self.asked.append((prompt, options))
    if prompt[-1] in self._fails:
      raise RequestError("busy")
    if prompt[-1] in self._refuses:
      raise self._refusal
    return Completion(f"text {prompt[-1]}", "stop", 2, None, 0.5)


def test_endpoint():
  client = Endpoint()
  sampled = dataclasses.replace(CONFIG, temperature=0.2, top_p=0.9, samples=2)
  backend = EndpointBackend(client, sampled)
  found = {one.key: one for one in backend.complete(WANTED)}
  assert {key: one.text for key, one in found.items()} == {
    key: f"text {key}" for key in "abcde"
  }
  assert (found["a"].tokens, found["a"].log_probs, found["a"].seconds) == (2, None, 0.5)
  options = client.asked[0][1]
  assert (options["temperature"], options["top_p"], options["top_k"]) == (
    0.2,
    0.9,
    None,
  )
  assert (options["max_tokens"], options["stops"]) == (4, ("\ndef",))
  assert len({options["seed"] for _, options in client.asked}) == 5
  assert backend.identity()["model"] == "m"


def test_failures_are_no_completions():
  backend = EndpointBackend(Endpoint(fails="bd"), CONFIG)
  answers = backend.complete(WANTED)
  assert sorted(next(answers).key for _ in range(3)) == ["a", "c", "e"]
  with pytest.raises(RequestError, match=r"2 of 5 requests failed.*busy"):
    next(answers)


def test_a_request_that_is_refused_for_good_is_not_called_passing():
  client = Endpoint(fails="b", refuses="d", refusal=RefusedError("400 too long"))
  with pytest.raises(RequestError, match=r"2 of 5 .* 1 of them for good.*400") as error:
    list(EndpointBackend(client, CONFIG).complete(WANTED))
  assert "again" not in str(error.value)


@pytest.mark.parametrize("error", [InputError, KeyError])  # the second is a mistake
def test_a_refusal_ends_it_and_loses_nothing(error):
  many = [Wanted(f"{n}{'x' if n == 4 else 'a'}", "", (), 4, 0) for n in range(200)]
  many = [dataclasses.replace(one, prompt=one.key) for one in many]
  client = Endpoint(refuses="x", refusal=error("no such key"))
  found = []

  def collect():
    for one in EndpointBackend(client, CONFIG).complete(many):
      found.append(one.key)
      time.sleep(0.01)  # answers finish faster than they are taken

  with pytest.raises(error, match="no such key"):
    collect()
  # Every answer that came was handed on; the rest was not asked for.
  assert len(found) == len(client.asked) - 1


@pytest.fixture
def ctrl_c():
  """Sends the signal of a Ctrl-C to the main thread."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  main = threading.main_thread().ident
  try:
    yield lambda: signal.pthread_kill(main, signal.SIGINT)
  finally:
    signal.signal(signal.SIGINT, before)


def test_what_is_under_way_at_a_ctrl_c_is_on_the_disk(five, tmp_path, ctrl_c):
  class Slow(Endpoint):
    number = itertools.count(1)

    def complete(self, prompt, **options):
      reply = super().complete(prompt, **options)
      if next(self.number) == 4:
        ctrl_c()
      time.sleep(0.1)
      return reply

  config = dataclasses.replace(CONFIG, temperature=0.2, samples=4)
  client = Slow()
  backend = EndpointBackend(client, config)
  asked = prompts.build_all(five, "humaneval-164", "as-is")
  settings_file.begin(
    tmp_path / workdir.RUN, generate.settings(config, backend.identity())
  )
  with pytest.raises(KeyboardInterrupt):
    generate.generate(tmp_path, five, asked, config, backend)
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  rows = storage.read_lines(tmp_path / workdir.COMPLETIONS)
  assert len(rows) == len(client.asked) < 20
  # The next start pays for none of them again.
  generate.generate(tmp_path, five, asked, config, backend)
  assert (
    len(client.asked) == len({options["seed"] for _, options in client.asked}) == 20
  )


_HANGS = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored
from evals.backends import EndpointBackend, Wanted
from evals.config import EvaluationConfig
from phi1_jax.cli import command

class Hanging:
  def complete(self, prompt, **options):
    print("asked", flush=True)
    time.sleep(600)

def main(argv):
  backend = EndpointBackend(Hanging(), EvaluationConfig("humaneval-164", "as-is"))
  return list(backend.complete([Wanted("k", "p", (), 4, 0)]))

command.run(main)
"""


def test_a_second_ctrl_c_waits_for_nothing():
  process = subprocess.Popen(
    [sys.executable, "-c", _HANGS],
    cwd=pathlib.Path(__file__).parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  with process:
    assert process.stdout.readline() == "asked\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert "once more to quit at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130
    assert time.monotonic() - started < 300
    assert process.stderr.read() == "interrupted\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """A random model of a few thousand parameters in a run's work directory."""
  folder = tmp_path_factory.mktemp("run")
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n"] * 9, 300)
  tokenizer.save(folder / tokenizers.FILE_NAME)
  model = ModelConfig(
    vocabulary_size=320,
    num_layers=1,
    num_heads=8,
    head_dim=4,
    rotary_dim=2,
    embed_dim=16,
    mlp_dim=16,
    max_length=2048,
    dtype="float32",
  )
  tokens_BT = jnp.zeros((1, 1), jnp.int32)
  init = jax.jit(Decoder(model).init)
  params = sharding.unbox(init(jax.random.key(0), tokens_BT)["params"])
  saved = Checkpoints(folder / "checkpoints", CheckpointConfig())
  meta = {
    "config": {"model": dataclasses.asdict(model)},
    "tokenizer": tokenizer.digest,
    "tokens_seen": 123,
  }
  saved.save(7, {"params": params}, meta)
  saved.close()
  return folder


def test_checkpoint(checkpoint, five, tmp_path):
  config = dataclasses.replace(CONFIG, slots=8, dtype="float32")
  backend = CheckpointBackend(str(checkpoint), config)
  assert set(backend.identity()) == {"kind", "digest", "dtype"}
  halved = CheckpointBackend(
    str(checkpoint), dataclasses.replace(config, dtype="bfloat16")
  )
  assert halved.identity()["dtype"] == "bfloat16"
  assert halved.identity()["digest"] == backend.identity()["digest"]
  asked = prompts.build_all(five, "humaneval-164", "as-is")
  settings_file.begin(
    tmp_path / workdir.RUN, generate.settings(config, backend.identity())
  )
  assert generate.generate(tmp_path, five, asked, config, backend) == 5
  rows = storage.read_lines(tmp_path / workdir.COMPLETIONS)
  assert {row["task_id"] for row in rows} == {problem.id for problem in five}
  assert all(row["log_probs"] < 0 and 0 < row["tokens"] <= 4 for row in rows)
  noted = storage.read_json(tmp_path / workdir.RUN)["generate"]
  assert (noted["step"], noted["tokens_seen"], noted["slots"]) == (7, 123, 8)
  assert noted["devices"] == jax.device_count()
  assert set(noted["versions"]) == {"jax", "jaxlib", "flax"}
  # Nothing is left to do, and nothing is forgotten.
  again = CheckpointBackend(str(checkpoint), config)
  assert generate.generate(tmp_path, five, asked, config, again) == 0
  assert storage.read_json(tmp_path / workdir.RUN)["generate"] == noted


def test_no_checkpoint(tmp_path):
  with pytest.raises(InputError, match="no checkpoint here"):
    CheckpointBackend(str(tmp_path), CONFIG)
