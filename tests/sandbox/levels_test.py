import os
import pathlib
import tempfile

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


# Ordinary programs change no mode, owner or time.
TEMPORARY = """
import os, shutil, tempfile
def f():
  temporary = tempfile.NamedTemporaryFile("w+")
  with tempfile.TemporaryDirectory() as folder, temporary as one:
    one.write("abc")
    one.truncate(2)
    one.flush()
    copy = shutil.copyfile(one.name, os.path.join(folder, "copy"))
    os.makedirs(os.path.join(folder, "a", "b"))
    shutil.move(copy, os.path.join(folder, "a", "b"))
    with open(os.path.join(folder, "a", "b", "copy")) as file:
      return file.read()
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


@pytest.mark.parametrize("level", levels.LEVELS)
def test_given_packages_can_be_imported_and_no_others(level):
  code = "import numpy\ndef f(x):\n  import numpy.f2py.auxfuncs as late\n"
  code += "  return float(numpy.sum(x)) if late else None\n"
  other = "import scipy\n"
  try:
    sandbox = Sandbox(workers=1, isolation=level, packages=("numpy",))
  except InputError as error:
    pytest.skip(f"no {level} on this machine: {error}")
  with sandbox:
    assert list(sandbox.record()["packages"]) == ["numpy"]
    programs = [
      Program("a", code, ("assert f([1, 2]) == 3.0",)),
      Program("b", other, ("1",)),
    ]
    verdicts = {v.key: v for v in sandbox.run(programs)}
  assert verdicts["a"].passed, verdicts["a"]
  assert "ModuleNotFoundError" in verdicts["b"].detail
  with Sandbox(workers=1, isolation=level) as without:
    (verdict,) = without.run(programs[:1])
    assert "ModuleNotFoundError" in verdict.detail


def test_under_rlimits_code_can_open_no_file_of_others():
  """Everybody may write this file, so only Landlock keeps the code from it."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "verdicts.jsonl")
    path.write_text("kept")
    path.chmod(0o666)
    pathlib.Path(folder).chmod(0o777)
    code = f"open({str(path)!r}, {{mode!r}})\n"
    with Sandbox(workers=1, isolation="rlimits") as sandbox:
      if sandbox.record()["files"] != "landlock":
        pytest.skip("no Landlock in this kernel")
      modes = ["r", "w", "a"]
      programs = [Program(m, code.format(mode=m), ("1",)) for m in modes]
      programs += [
        Program("own", "open('x', 'w').write('1')\nopen('x').read()", ("1",))
      ]
      programs += [Program("temporary", TEMPORARY, ("assert f() == 'ab'",))]
      verdicts = {v.key: v for v in sandbox.run(programs)}
    for name in ("own", "temporary"):
      assert verdicts[name].passed, verdicts[name]
    for mode in modes:
      assert verdicts[mode].detail.startswith("PermissionError"), verdicts[mode]
    assert path.read_text() == "kept"


def test_a_user_whose_files_are_in_reach_is_refused(monkeypatch):
  def nothing(*_):
    raise levels.Unavailable("no such program here")

  monkeypatch.setattr(levels, "_bubblewrap", nothing)
  monkeypatch.setattr(levels, "_nsjail", nothing)
  greeting = {"python": "3", "seccomp": "on", "uid": os.getuid(), "files": "open"}
  monkeypatch.setattr(Sandbox, "_probe", lambda *_: greeting)
  with pytest.raises(InputError, match=r"could overwrite your files.*Landlock"):
    Sandbox(workers=1)
  assert Sandbox(workers=1, isolation="rlimits").isolation == "rlimits"
  monkeypatch.setenv("PHI1_JAX_ISOLATION", "rlimits")
  assert Sandbox(workers=1).isolation == "rlimits"


def test_a_package_that_is_not_installed():
  with pytest.raises(InputError, match="--packages: nope is not installed here"):
    Sandbox(workers=1, packages=("nope",))


@pytest.mark.parametrize(
  ("body", "test"),
  [
    (
      "numpy.array(x) > 1",
      "import numpy\nassert (f([1, 2]) == numpy.array([0, 1])).all()",
    ),
    ("numpy.cumsum(x)", "assert f([1, 2]).tolist() == [1, 3]"),
    (
      "numpy.any(x)",
      "assert f([0, 2]) and isinstance(f([1]), __import__('numpy').bool_)",
    ),
  ],
)
def test_arrays_cross_to_the_tests(numbers, body, test):
  code = f"import numpy\ndef f(x):\n  return {body}\n"
  (verdict,) = numbers.run([Program("p", code, (test,))])
  assert verdict.passed, verdict


def test_an_array_of_objects_is_no_plain_data(numbers):
  code = "import numpy\ndef f():\n  return numpy.array([{}], dtype=object)\n"
  (verdict,) = numbers.run([Program("p", code, ("assert f() == 1",))])
  assert verdict.outcome == "opaque_result"


@pytest.fixture(scope="module")
def numbers():
  with Sandbox(workers=1, packages=("numpy",)) as sandbox:
    yield sandbox
