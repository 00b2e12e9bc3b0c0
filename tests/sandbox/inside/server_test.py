import textwrap

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
