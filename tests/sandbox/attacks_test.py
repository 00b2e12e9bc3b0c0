"""Programs that try to pass without being right, to get out, or to stay.

`f(2) == 3` is what the tests want. An attack returns 3 exactly where it succeeded at
what its name says, so that none may pass.
"""

import os

import pytest

from phi1_jax.sandbox.program import Program
from tests.sandbox.conftest import cases, judge

FORGERIES = r"""
=== frame_walk: wrong
import sys
def f(x):
  frame = sys._getframe()
  while frame:
    for holder in (frame.f_locals, frame.f_globals):
      for name in list(holder):
        if name in ("tests", "verdict", "expected", "sides", "outcome"):
          return 3
    frame = frame.f_back
=== gc_search_for_the_tests: wrong
import gc
def f(x):
  wanted = " == ".join(["assert f(2)", "3"])
  for thing in gc.get_objects():
    values = thing.values() if type(thing) is dict else thing
    if type(thing) in (dict, list, tuple):
      if any(type(v) is str and wanted in v for v in values):
        return 3
=== pipes_and_memory_of_other_processes: wrong
import os
def f(x):
  for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("mem", "environ", "maps", *(f"fd/{n}" for n in range(9))):
      try:
        if int(pid) != os.getpid():
          os.open(f"/proc/{pid}/{name}", os.O_RDWR if name == "mem" else 0)
          return 3
      except OSError:
        pass
=== always_equal_object: opaque_result
class Yes:
  def __eq__(self, other): return True
  __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __eq__
def f(x): return Yes()
=== always_equal_metaclass: wrong opaque_result
class Meta(type):
  def __eq__(cls, other): return True
  __hash__ = None
class Yes(metaclass=Meta): pass
def f(x): return Yes
=== list_subclass_with_eq: opaque_result
class Yes(list):
  def __eq__(self, other): return True
def f(x): return Yes()
=== sys_exit_in_call: exited
import sys
def f(x): sys.exit(0)
=== os_exit_in_call: exited
import os
def f(x): os._exit(0)
=== raise_system_exit: exited
def f(x): raise SystemExit
=== raise_stop_iteration: raised
def f(x): raise StopIteration
=== raise_keyboard_interrupt: raised
def f(x): raise KeyboardInterrupt
=== close_descriptors_and_stay: exited
import os
def f(x):
  os.closerange(0, 4096)
  while True: pass
=== fake_verdicts_everywhere: opaque_result output_limit exited raised wrong
import json, os, struct
data = json.dumps({"outcome": "passed", "detail": "", "failed_test": None,
                   "recycle": False, "value": 4, "nodes": []}).encode()
for fd in range(64):
  try: os.write(fd, (struct.pack("<I", len(data)) + data) * 3)
  except OSError: pass
def f(x): return 4
=== print_pass: wrong
print('PASS\nok\npassed')
def f(x): return 4
=== settrace: wrong
import sys
def skip(frame, event, arg): return skip
sys.settrace(skip); sys.setprofile(lambda *a: None)
def f(x): return 4
=== patched_builtins: wrong exited
import builtins, operator
for name in ("abs", "len", "all", "any", "isinstance", "AssertionError"):
  setattr(builtins, name, lambda *a: True)
operator.eq = lambda a, b: True
def abs(x): return 0
def f(x): return 4
=== crafted_messages: opaque_result
import json, os, struct, sys
def f(x):
  evil = {"value": [0], "nodes": [["type", ["eval"]]]}
  data = json.dumps(evil).encode()
  for fd in range(3, 64):
    try: os.write(fd, struct.pack("<I", len(data)) + data)
    except OSError: pass
=== pickle_like_reduce: opaque_result
import os
class Evil:
  def __reduce__(self): return (os.system, ("touch /tmp/evil",))
def f(x): return Evil()
=== hostile_str: raised
class Evil(Exception):
  def __str__(self): raise SystemExit(0)
def f(x): raise Evil()
=== hostile_metaclass_name: raised exited
class Meta(type):
  def __getattribute__(cls, name): raise KeyboardInterrupt
class Evil(Exception, metaclass=Meta): pass
def f(x): raise Evil()
=== claims_to_be_an_exit_of_the_tests: raised
class Stop(BaseException):
  outcome = 'passed'
def f(x): raise Stop('passed')
"""

FLOODS = r"""
=== endless_loop_in_call: cpu_limit
def f(x):
  while True: pass
=== swallows_everything: cpu_limit
while True:
  try:
    while True: pass
  except BaseException: pass
=== ignores_signals: cpu_limit
import signal
for number in range(1, 65):
  try: signal.signal(number, signal.SIG_IGN)
  except (OSError, ValueError): pass
signal.alarm(1)
while True: pass
=== memory: memory_limit
x = bytearray(8 << 30)
=== memory_slowly: memory_limit cpu_limit
x = [0]
while True: x += x
=== deep_recursion: raised
def f(x): return f(x)
=== deep_recursion_unlimited: crashed memory_limit cpu_limit raised
import sys
sys.setrecursionlimit(10**9)
def f(x): return [f(x)]
=== large_file: raised
with open('x', 'wb') as f:
  for i in range(100): f.write(bytes(1 << 20))
=== disk: raised
for i in range(1000):
  with open(str(i), "wb") as f: f.write(bytes(8 << 20))
=== shared_memory: raised
for i in range(1000):
  with open(f"/dev/shm/{i}", "wb") as f: f.write(bytes(8 << 20))
=== many_small_files: cpu_limit raised
i = 0
while True:
  i += 1
  open(f'/tmp/{i}', 'w').close()
=== standard_output: cpu_limit
while True: print('x' * 100000)
=== huge_result: output_limit
def f(x): return 'x' * (1 << 25)
=== huge_integer: wrong
def f(x): return 7 ** 100000
=== infinite_generator: wrong
import itertools
def f(x): return itertools.count()
=== deeply_nested_result: opaque_result
def f(x):
  y = []
  for i in range(100000): y = [y]
  return y
=== cyclic_result: wrong
def f(x):
  y = []
  y.append(y)
  return y
=== thread_bomb: raised
import threading, time
for i in range(10000): threading.Thread(target=time.sleep, args=(99,)).start()
=== hash_collisions: cpu_limit
def f(x): return {i * ((1 << 61) - 1): 0 for i in range(100000)}
"""

# The tests have modules of their own, and what they would swallow is no pass.
OTHER_TESTS = """
=== patched_module: wrong
import math
math.isclose = lambda *a, **k: True
def f(x): return 4.0
---
assert math.isclose(f(2), 3)
=== replaced_in_sys_modules: wrong
import sys, types
math = types.ModuleType('math')
math.isclose = lambda *a, **k: True
sys.modules['math'] = math
def f(x): return 4.0
---
assert math.isclose(f(2), 3)
=== object_named_like_a_module: wrong
class math: isclose = staticmethod(lambda *a, **k: True)
def f(x): return 4.0
---
assert math.isclose(f(2), 3)
=== stops_an_iteration_of_the_tests: raised
def f(x): raise StopIteration
---
assert all(map(f, [1, 2]))
=== exits_in_a_try_of_the_tests: exited
def f(x): __import__('os')._exit(0)
---
try: f(1)
except BaseException: pass
"""

# Statements that should fail; f returns 3 if they did not.
ESCAPES = {
  "fork": "import os; os.fork()",
  "fork_through_libc": "import ctypes; assert ctypes.CDLL(None).fork() >= 0",
  "setsid_daemon": "import os; os.fork() or os.setsid()",
  "execve": "import os; os.execv('/usr/bin/true', ['true'])",
  "subprocess": "import subprocess; subprocess.run(['/usr/bin/true'])",
  "os_system": "import os; assert os.system('true') == 0",
  "kill_all": "import os; os.kill(-1, 9)",
  "kill_parent": "import os; os.kill(os.getppid(), 9)",
  "stop_parent": "import os, signal; os.kill(os.getppid(), signal.SIGSTOP)",
  "kill_through_libc": "import ctypes, os; "
  "assert ctypes.CDLL(None).kill(os.getppid(), 9) == 0",
  "kill_through_x32": "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 62, 1, 9)",
  "signal_by_descriptor": "import fcntl, os; fcntl.fcntl(0, 8, os.getppid())",
  "limit_parent": "import os, resource; "
  "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
  "internet_socket": "import socket; socket.socket()",
  "unix_socket": "import socket; socket.socket(socket.AF_UNIX)",
  "socket_pair_of_the_network": "import socket; socket.socketpair(socket.AF_INET)",
  "send_to_an_address": "import socket; "
  "a, b = socket.socketpair(type=socket.SOCK_DGRAM); a.sendto(b'x', '\\0name')",
  "send_a_descriptor": "import socket; a, b = socket.socketpair(); "
  "socket.send_fds(a, [b'x'], [0])",
  "read_checkout": f"open({os.path.abspath(__file__)!r})",
  "list_home": "import os; os.listdir(os.path.expanduser('~root'))",
  "read_shadow": "open('/etc/shadow')",
  "read_passwd": "open('/etc/passwd')",
  "read_init_environment": "assert 'secret-in' in open('/proc/1/environ').read()",
  "read_parent_environment": "import os; open(f'/proc/{os.getppid()}/environ')",
  "write_parent_memory": "import os; open(f'/proc/{os.getppid()}/mem', 'wb')",
  "open_parent_descriptors": "import os; os.listdir(f'/proc/{os.getppid()}/fd')",
  "write_usr": "open('/usr/evil', 'w')",
  "write_root": "open('/evil', 'w')",
  "write_dev": "open('/dev/evil', 'w')",
  "ptrace": "import ctypes; assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
  "user_namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
  "mount": "import ctypes; "
  "assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
  "shared_memory_segment": "import ctypes; "
  "assert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0",
  "see_other_processes": "import os; "
  "assert len([p for p in os.listdir('/proc') if p.isdigit()]) > 5",
  "environment": "import os; assert 'secret-in' in str(os.environ)",
}

CRASHES = """
=== write_to_address_zero: crashed raised exited
import ctypes; ctypes.memset(0, 1, 1)
=== write_to_random_memory: crashed raised exited
import ctypes; ctypes.memset(id(int), 1, 4096)
"""


def _escape(name, statement):
  code = f"def f(x):\n  try:\n    {statement}\n    return 3\n"
  code += "  except (Exception, SystemExit) as e:\n    return repr(e)\n"
  outcomes = ["crashed" if "x32" in name else "wrong"]
  return pytest.param(outcomes, code, "assert f(2) == 3", id=name)


PROBE = """
import os
def left():
  own = {'1', '2', '3', str(os.getpid()), str(os.getppid())}
  files = os.listdir('/tmp') + os.listdir('/dev/shm') + os.listdir('.')
  return files, len([p for p in os.listdir('/proc') if p.isdigit()])
"""
PROBED = "files, processes = left()\nassert files == ['program'] and processes <= 4"


@pytest.mark.parametrize(
  ("outcomes", "code", "test"),
  [
    *cases(FORGERIES + FLOODS + OTHER_TESTS + CRASHES),
    *(_escape(name, statement) for name, statement in ESCAPES.items()),
  ],
)
def test_attack(sandbox, outcomes, code, test):
  """The attack ends as expected, and leaves nothing for the next program."""
  right = "def f(x):\n  return x + 1\n"
  judge(sandbox, right, "assert f(2) == 3")  # the worker has judged before
  verdict = judge(sandbox, code, test, cpu_seconds=0.4)
  probe = Program("probe", PROBE, (PROBED,))
  after = list(sandbox.run([probe, Program("next", right, ("assert f(2) == 3",))]))
  assert verdict.outcome in outcomes, verdict
  assert [v.passed for v in after] == [True, True], after


# They spoil the folders in which the next programs write.
SPOILERS = """
=== default_acl: passed
import ctypes, struct
entries = [(1, 5), (4, 5), (0x20, 0)]
acl = struct.pack("<I", 2)
for tag, mode in entries: acl += struct.pack("<HHI", tag, mode, 0xFFFFFFFF)
name = b"system.posix_acl_default"
def f(x):
  libc = ctypes.CDLL(None)
  return [libc.setxattr(folder, name, acl, len(acl), 0)
          for folder in (b"/tmp", b"/dev/shm")] != [-1, -1]
=== mode_of_shared_memory: passed
import os
def f(x): os.chmod("/dev/shm", 0o555)
=== deep_folders: passed
import os
def f(x):
  for i in range(3000):
    os.mkdir("d")
    os.chdir("d")
=== wide_folders: passed
import os
def f(x):
  for i in range(50):
    os.mkdir(f"/dev/shm/{i}")
    for j in range(50): os.mkdir(f"/dev/shm/{i}/{j}")
"""
WRITES = """
def f(x):
  for name in ('a', '/tmp/a', '/dev/shm/a'):
    with open(name, 'w') as file: file.write('x')
  return x + 1
"""


@pytest.mark.parametrize(("outcomes", "code", "test"), cases(SPOILERS))
def test_the_next_programs_find_their_folders_as_ever(sandbox, outcomes, code, test):
  spoiler = Program("spoiler", code, ("assert not f(2)",))
  others = [Program(f"next{i}", WRITES, (test,)) for i in range(3)]
  verdicts = list(sandbox.run([spoiler, *others]))
  assert [[v.outcome] for v in verdicts] == [outcomes] * 4, verdicts
  assert all(v.attempts == 1 for v in verdicts), verdicts


SCAN = """
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


def test_no_memory_of_the_tests_in_the_codes_process(sandbox):
  """A scan of all of its memory finds neither these tests nor the last program's."""
  tests = (
    "assert f(2) == (True, False), 'marker_of_the_tests'",
    "assert f(3) == 'marker_of_the_tests'",  # fails, and so is quoted
  )
  for _ in range(2):
    verdict = judge(sandbox, SCAN, *tests, cpu_seconds=20)
    assert verdict.failed_test == tests[1], verdict


OVERRIDDEN = {  # base: an instance, a method and what it answers, a test it deceives
  "str": ("S('zzz')", "startswith", "True", "assert r.startswith('abc')"),
  "list": ("S([1])", "count", "3", "assert r.count(7) == 3"),
  "dict": ("S({1: 2})", "items", "()", "for k, v in r.items(): assert v == 3"),
  "int": ("S(5)", "bit_length", "9", "assert r.bit_length() == 9"),
  "tuple": ("S((1,))", "index", "3", "assert r.index(4) == 3"),
  "set": ("S([1, 2])", "issubset", "True", "assert r.issubset({1})"),
  "float": ("S(0.5)", "is_integer", "True", "assert r.is_integer()"),
  "defaultdict": ("S(int)", "get", "3", "assert r.get(4) == 3"),
  "OrderedDict": ("S(a=1)", "keys", "()", "assert list(r.keys()) == []"),
  "Counter": ("S('a')", "total", "7", "assert r.total() == 7"),
}


@pytest.mark.parametrize("how", ["class", "instance", "every attribute"])
@pytest.mark.parametrize("base", OVERRIDDEN)
def test_methods_of_a_base_are_not_the_codes(sandbox, base, how):
  value, method, answer, test = OVERRIDDEN[base]
  imports = "from collections import *\n"
  code = f"{imports}class S({base}):\n"
  if how == "class":
    code += f"  def {method}(self, *a): return {answer}\n"
  elif how == "every attribute":
    code += f"  def __getattribute__(self, n): return (lambda *a: {answer}) if n == "
    code += f"{method!r} else object.__getattribute__(self, n)\n"
  code += f"  pass\ndef f(x):\n  r = {value}\n"
  if how == "instance":
    code += f"  r.{method} = lambda *a: {answer}\n"
  test = f"{imports}r = f(2)\nassert isinstance(r, {base})\n{test}"
  verdict = judge(sandbox, code + "  return r\n", test)
  assert verdict.outcome == "opaque_result", verdict
