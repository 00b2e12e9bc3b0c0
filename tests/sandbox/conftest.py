"""One isolated sandbox for the tests of this folder."""

import os

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox.sandbox import Sandbox


@pytest.fixture(scope="package")
def sandbox():
  os.environ["PHI1_JAX_KEY"] = "secret-in-the-environment"
  try:
    box = Sandbox(workers=1, require_isolation=True, minimum_wall_seconds=5.0)
  except InputError as error:
    pytest.skip(f"no isolation on this machine: {error}")
  with box:
    yield box
  del os.environ["PHI1_JAX_KEY"]
