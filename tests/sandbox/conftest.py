"""One isolated sandbox for this folder, and how cases are written."""

import os

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox.program import OUTCOMES, Program
from phi1_jax.sandbox.sandbox import Sandbox


def start(**settings):
  """A sandbox of one worker; skips the test where no such isolation works."""
  try:
    return Sandbox(workers=1, **settings)
  except InputError as error:
    # This works everywhere: a fault of the sandbox itself is no reason to skip.
    Sandbox(workers=1, isolation="rlimits").close()
    pytest.skip(f"not on this machine: {error}")


@pytest.fixture(scope="package")
def sandbox():
  os.environ["PHI1_JAX_KEY"] = "secret-in-the-environment"
  # A long limit: under load, a program that uses little CPU time may need much time.
  with start(require_isolation=True, minimum_wall_seconds=60.0) as box:
    yield box
  del os.environ["PHI1_JAX_KEY"]


def judge(sandbox, code, *tests, **settings):
  (verdict,) = sandbox.run([Program("p", code, tests, **settings)])
  assert verdict.outcome in OUTCOMES
  return verdict


def cases(text):
  """The parameters of a table: expected outcomes, code and test.

  A case begins with `=== name: outcomes`; `---` stands between its code and its test,
  which is `assert f(2) == 3` without it.
  """
  made = []
  for case in text.split("=== ")[1:]:
    head, _, body = case.partition("\n")
    name, _, outcomes = head.partition(": ")
    code, _, test = body.partition("---\n")
    test = test or "assert f(2) == 3"
    made.append(pytest.param(outcomes.split(), code, test, id=name))
  return made
