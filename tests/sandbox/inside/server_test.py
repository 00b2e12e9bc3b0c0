import textwrap

import pytest

from phi1_jax.sandbox.inside import server
from phi1_jax.sandbox.program import Program


def test_no_memory_of_the_tests_in_the_codes_process(sandbox):
  """A scan of all of its memory finds neither these tests nor the last program's."""
  code = """
    import ctypes, re  # marker_of_the_code
    def f(x):
      wanted = re.compile(b"marker[_]of_the_tests")  # does not find itself
      control = re.compile(b"marker[_]of_the_code")
      found = []
      for line in open("/proc/self/maps"):
        area, mode = line.split()[:2]
        if mode.startswith("rw") and "[v" not in line:
          start, end = (int(part, 16) for part in area.split("-"))
          data = ctypes.string_at(start, end - start)
          found += [bool(wanted.search(data)), bool(control.search(data))]
          del data
      return any(found[1::2]), any(found[::2])
    """
  code = textwrap.dedent(code)
  tests = (
    "assert f(2) == (True, False), 'marker_of_the_tests'",
    "assert f(3) == 'marker_of_the_tests'",  # fails, and so is quoted
  )
  for _ in range(2):
    (verdict,) = sandbox.run([Program("scan", code, tests, cpu_seconds=20)])
    assert verdict.failed_test == tests[1], verdict


SPOILERS = {
  "default_acl": """
    import ctypes, struct
    entries = [(1, 5), (4, 5), (0x20, 0)]
    acl = struct.pack("<I", 2)
    for tag, mode in entries: acl += struct.pack("<HHI", tag, mode, 0xFFFFFFFF)
    name = b"system.posix_acl_default"
    def f(x):
      libc = ctypes.CDLL(None)
      return [libc.setxattr(folder, name, acl, len(acl), 0)
              for folder in (b"/tmp", b"/dev/shm")] != [-1, -1]
    """,
  "mode_of_shared_memory": """
    import os
    def f(x): os.chmod("/dev/shm", 0o555)
    """,
  "deep_folders": """
    import os
    def f(x):
      for i in range(3000):
        os.mkdir("d")
        os.chdir("d")
    """,
  "wide_folders": """
    import os
    def f(x):
      for i in range(50):
        os.mkdir(f"/dev/shm/{i}")
        for j in range(50): os.mkdir(f"/dev/shm/{i}/{j}")
    """,
}


@pytest.mark.parametrize("name", SPOILERS)
def test_the_next_programs_find_their_folders_as_ever(sandbox, name):
  code = "def f(x):\n  for name in ('a', '/tmp/a', '/dev/shm/a'):\n"
  code += "    with open(name, 'w') as file: file.write('x')\n  return x + 1\n"
  programs = [
    Program("spoiler", textwrap.dedent(SPOILERS[name]), ("assert not f(2)",)),
    *(Program(f"next{i}", code, ("assert f(2) == 3",)) for i in range(3)),
  ]
  verdicts = list(sandbox.run(programs))
  assert [v.passed for v in verdicts] == [True] * 4, verdicts
  assert all(v.attempts == 1 for v in verdicts), verdicts


@pytest.mark.parametrize("filtered", [True, False])
def test_landlock_guards_no_files_without_a_filter(monkeypatch, filtered):
  monkeypatch.setattr(server.landlock, "version", lambda: 3)
  worker = object.__new__(server.Server)
  worker.settings, worker.filter = {"own_pid_namespace": False}, filtered
  assert worker._files() == ("landlock" if filtered else "open")


def test_a_program_without_threads_pays_for_none(sandbox):
  code = "import sys\ndef f(x): return 'threading' in sys.modules"
  (verdict,) = sandbox.run([Program("p", code, ("assert f(2) is False",))])
  assert verdict.passed, verdict
