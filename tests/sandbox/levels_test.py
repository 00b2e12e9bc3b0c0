import os

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox import levels
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox

# Reports packages and sources of the host that can be read, and what can be written.
LOOK = """
import os
def f():
  seen, written = [], []
  for folder, inner, _ in os.walk("/usr"):
    for name in inner:
      path = os.path.join(folder, name)
      hidden = name in ("site-packages", "dist-packages") or path in (
        "/usr/src", "/usr/local/src")
      if hidden and os.listdir(path): seen.append(path)
      if hidden:
        try: os.chmod(path, 0o777)
        except OSError: pass
        try: written.append(open(path + "/x", "w").name)
        except OSError: pass
  return seen + written
"""


@pytest.mark.parametrize("level", ["bubblewrap", "nsjail"])
def test_packages_and_sources_of_the_host_look_empty(level):
  try:
    sandbox = Sandbox(workers=1, isolation=level)
  except InputError as error:
    pytest.skip(f"no {level} on this machine: {error}")
  with sandbox:
    program = Program("look", LOOK, ("assert f() == []",), cpu_seconds=20)
    (verdict,) = sandbox.run([program])
    assert verdict.passed, verdict


def test_hidden_folders_are_found_below_any_root(tmp_path):
  packages = tmp_path / "app" / "lib" / "python3.11" / "site-packages"
  (packages / "inner" / "site-packages").mkdir(parents=True)
  found = levels._hidden_folders((str(tmp_path),), "/usr/bin/python3")
  assert [f for f in found if f.startswith(str(tmp_path))] == [str(packages)]
  assert ("/usr/local" in found) == os.path.isdir("/usr/local")
  found = levels._hidden_folders((str(tmp_path),), "/usr/local/bin/python3")
  assert "/usr/local" not in found
