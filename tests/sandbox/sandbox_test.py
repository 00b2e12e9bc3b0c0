import os
import signal
import sys

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox
from tests.sandbox.conftest import cases, judge

# What honest code returns, and an assert that holds in one process too.
HONEST = """
=== values: passed
import collections, datetime, math
def deque(): return collections.deque([1])
def views(): return {1: 2}.keys(), {1: 2}.items(), {1: 2}.values()
def date(): return datetime.date(2020, 1, 2)
def numbers():
  yield 1
  yield 2
def closure(n): return lambda x: x + n
def same(x): return x
def total(x): return sum(x)
def apply(g, x): return g(x)
---
import datetime
assert deque() != [1] and list(deque()) == [1]
k, i, v = views()
assert k == {1} and i == {(1, 2)} and v != [2] and list(v) == [2]
assert date() == datetime.date(2020, 1, 2)
g = numbers()
assert g != [1, 2] and list(g) == [1, 2] and list(g) == []
x = [1]
assert same(x) is x and closure(2)(3) == 5 and total(iter([1, 2])) == 3
assert apply(str, 2) == '2' and math.sqrt(4) == 2
=== name_of_a_builtin: passed
def sum(a, b): return a * b
---
assert sum(3, 4) == 12
=== arguments_in_place: passed
def f(rows, d, s):
  rows[0].append(9)
  rows.append(rows[0])
  d['k'] = 1
  s.discard(1)
def fails(x):
  x.append(1)
  raise ValueError('no')
---
row = [1]
rows, d, s = [row], {}, {1, 2}
f(rows, d, s)
assert row == [1, 9] and rows[1] is row and d == {'k': 1} and s == {2}
x = []
try: fails(x)
except ValueError: pass
assert x == [1]
=== exception: passed
class Bad(ValueError): pass
def f(): raise Bad('no')
---
try: f()
except ValueError as error: assert str(error) == 'no'
else: assert False
=== check_function: passed
def check(x): return x
---
def check(candidate):
  assert candidate(1) == 1
=== code_classes: passed
class Node:
  def __init__(self, x):
    self.x, self.next = x, None
  def twice(self): return 2 * self.x
def f(node): return node.next.x
---
a = Node(1)
a.next = Node(2)
a.next.x += 1
assert f(a) == 3 and a.next.twice() == 6 and a.next.next is None
=== files_and_threads: passed
import asyncio, threading, time
def file():
  with open('a.txt', 'w') as h: h.write('x')
  return open('a.txt').read()
def many():
  barrier, sizes = threading.Barrier(40), []
  def work():
    sizes.append(len(bytes(2000)))
    barrier.wait()
  threads = [threading.Thread(target=work) for _ in range(40)]
  for thread in threads: thread.start()
  for thread in threads: thread.join()
  return len(sizes)
async def g(x):
  await asyncio.sleep(0.001)
  return x + await asyncio.to_thread(lambda: 1)
def loop(x): return asyncio.run(g(x))
---
assert file() == 'x' and many() == 40 and loop(2) == 3
=== callable_objects: passed
import functools
class memoize:
  def __init__(self, function): self.function, self.seen = function, {}
  def __call__(self, x):
    if x not in self.seen: self.seen[x] = self.function(x)
    return self.seen[x]
@memoize
def f(x): return x + 1
@functools.lru_cache
def g(x): return x
def h(x): h.calls += g(x)
h.calls = 0
---
assert f(2) == 3 and f(2) == 3 and f.seen == {2: 3}
h(2)
h(2)
assert h.calls == 4 and g.cache_info().hits == 1
=== iterators: passed
import itertools
def raises_late():
  yield from range(500)
  raise KeyError('end')
def has_no_next():
  for i in range(60): yield i
  while True: pass
def groups(x): return itertools.groupby(x)
def sent(x):
  y = yield x
  yield y
---
import itertools
seen = []
try:
  for x in raises_late(): seen.append(x)
except KeyError: pass
assert seen == list(range(500))
assert list(itertools.islice(has_no_next(), 60)) == list(range(60))
text = 'aab' * 60
assert ''.join(x for _, g in groups(text) for x in g) == text
g = sent(2)
assert next(g) == 2 and g.send(5) == 5
"""

# Verdicts of one process; "unsupported" where that cannot be known.
VERDICTS = """
=== list_that_the_code_keeps: passed
def f(x, seen=[]):
  seen.append(x)
  return seen
---
a, b = f(1), f(2)
assert a == [1, 2] and a is b
a.append(9)
assert f(3) == [1, 2, 9, 3]
=== changes_of_what_extends_a_base: passed
import collections
class S(list):
  def total(self): return sum(self)
class D(collections.defaultdict):
  def total(self): return sum(self.values())
class O(collections.OrderedDict):
  def last(self): return [*self][-1]
def f(s): return len(s)
---
s, d, o = S(), D(int), O()
s += [3]
s[0] = 4
s.extend((5, 6))
del s[1]
assert s.total() == 10 and f(s) == 2 and s == [4, 6]
d['a'] += 2
d.setdefault('b', 3)
o['x'] = o['y'] = 1
o.move_to_end('x')
assert d.total() == 5 and d.pop('a') == 2 and o.last() == 'x'
=== text_of_what_extends_a_base: passed
class S(list):
  def __str__(self): return f'S of {len(self)}'
  def append(self, x): super().append(2 * x)
def make(): return S([1, 2])
---
s = make()
assert str(s) == 'S of 2' and s == [1, 2]
=== identity_of_a_text: unsupported
def f(x): return x[:-1] + x[-1]
---
x = 'hello'
assert f(x) is x
=== iterator_read_ahead_that_is_sent_to: unsupported
def f():
  x = 0
  while True: x = (yield x) or x + 1
---
g = f()
for _ in range(65): next(g)
g.send(5)
=== callable_object_with_an_operator: opaque_result
class Yes:
  def __call__(self): return self
  def __eq__(self, other): return True
f = Yes()
---
assert f() == 3
=== truth_of_an_object: passed
import re
def f(x): return re.match('a[0-9]', x)
---
assert f('a1') and not f('a') and not f('b1')
=== equality_of_an_object: opaque_result
import re
def f(x): return re.match('a[0-9]', x)
---
assert f('a1') == 3
=== iterator_that_the_tests_keep: unsupported
def f(x): return next(x)
---
x = iter([1, 2])
assert f(x) == 1 and next(x) == 2
"""

# With the detail of the verdict in place of the code.
DETAILS = """
=== got: wrong
AssertionError: f(2) == 3, got 4
---
assert f(2) == 3
=== got_and_expected: wrong
AssertionError: f(2) == y, got 4, expected 3
---
y = 3
assert f(2) == y
=== raised: raised
TypeError: must be real number
---
assert f('a')
=== in_the_tests: raised
unsupported operand type(s) for +: 'int' and 'str' (in the tests)
---
assert f(2) + 'a' == 3
=== no_entry_point: no_entry_point
the code does not define g
---
assert g(2)
=== passes_a_function: unsupported
in_process=True
---
f(lambda: 1)
=== broken: broken_tests
SyntaxError
---
assert f(
"""


@pytest.mark.parametrize(("outcomes", "code", "test"), cases(HONEST + VERDICTS))
def test_the_verdict_is_that_of_one_process(sandbox, outcomes, code, test):
  verdict = judge(sandbox, code, test)
  assert [verdict.outcome] == outcomes, verdict


@pytest.mark.parametrize(("outcomes", "detail", "test"), cases(DETAILS))
def test_detail_says_what_went_wrong(sandbox, outcomes, detail, test):
  code = "import math\ndef f(x):\n  return x + 2 if x == 2 else math.floor(x)\n"
  verdict = judge(sandbox, code, "f(1)", test.strip())
  assert [verdict.outcome] == outcomes
  assert detail.strip() in verdict.detail
  assert verdict.failed_test == test.strip().split("\n")[-1]


def test_failed_statement_inside_a_function_of_an_earlier_test(sandbox):
  check = "def check(c):\n  assert c(1) == 1\n  assert c(2) == 1"
  verdict = judge(sandbox, "def f(x): return x", check, "check(f)")
  assert verdict.failed_test == "assert c(2) == 1"
  assert verdict.detail == "AssertionError: c(2) == 1, got 2"


def test_in_process_is_flagged_and_judges(sandbox):
  code = "class P:\n  def __eq__(self, other): return True\ndef f(x): return x"
  tests = ("assert P() == P()", "assert f(2) == 3")
  right = judge(sandbox, code, tests[0], in_process=True)
  assert right.passed
  assert set(right.flags) == {"overrides_eq", "in_process"}
  assert judge(sandbox, code, tests[0]).outcome == "opaque_result"
  wrong = judge(sandbox, code, *tests, in_process=True)
  assert (wrong.outcome, wrong.failed_test) == ("wrong", tests[1])
  for leave in ("exit()", "__import__('os')._exit(0)"):
    code = f"def f(x): {leave}"
    assert judge(sandbox, code, tests[1], in_process=True).outcome == "exited"


def test_in_process_code_cannot_write_a_pass_of_its_own(sandbox):
  """It answers for itself on every pipe, but does not know the secret of a pass."""
  code = """
import sys, time
wire = sys.modules["inside.wire"]
verdict = {"outcome": "passed", "detail": "", "failed_test": None}
for pipe in range(3, 64):
  try:
    wire.send(pipe, {})  # the code is loaded
    wire.send(pipe, {"verdict": verdict, "secret": "0" * 32})
  except OSError:
    pass
time.sleep(99)
"""
  verdict = judge(sandbox, code, "assert f(2) == 3", in_process=True)
  assert verdict.outcome == "opaque_result"
  assert "without its secret" in verdict.detail


def test_the_tests_are_limited_too(sandbox):
  test = "f()\nwhile True: pass"
  verdict = judge(sandbox, "def f(): return 1", test, cpu_seconds=0.3)
  assert verdict.outcome == "cpu_limit"
  assert 0.3 <= verdict.cpu_seconds < 1.5
  verdict = judge(sandbox, "def f(): return 10 ** 11", "assert 'a' * f()")
  assert verdict.outcome == "memory_limit"


def test_wall_limit_is_believed_only_when_retried_alone():
  # The limit is one second for it, and twelve for the others.
  sleeper = Program("sleeper", "import time\ntime.sleep(999)", (), cpu_seconds=0.25)
  others = [Program(f"k{i}", "def f(): return 1", ("assert f()",)) for i in range(3)]
  with Sandbox(workers=1, minimum_wall_seconds=1.0) as sandbox:
    verdicts = list(sandbox.run([sleeper, *others]))
  assert [v.key for v in verdicts] == ["k0", "k1", "k2", "sleeper"]
  assert (verdicts[-1].outcome, verdicts[-1].attempts) == ("wall_limit", 2)
  assert all(v.passed and v.attempts == 1 for v in verdicts[:3])


def test_worker_killed_from_outside_loses_nothing():
  code = "import time\ndef f(): time.sleep(0.05)"
  programs = [Program(f"k{i}", code, ("assert f() is None",)) for i in range(24)]
  with Sandbox(workers=2) as sandbox:
    seen = []
    for verdict in sandbox.run(programs):
      seen.append(verdict)
      if len(seen) in (5, 15):
        os.kill(sandbox._pool[0].pid, signal.SIGKILL)
  assert sorted(v.key for v in seen) == sorted(p.key for p in programs)
  assert all(v.passed for v in seen), seen


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux")
@pytest.mark.parametrize("spare", [0, 1])
def test_a_worker_keeps_to_its_core_where_there_is_one_for_each(spare):
  # One killed worker's successor takes its core.
  cores = os.sched_getaffinity(0)
  if len(cores) <= spare:
    pytest.skip("one core only")
  code = "def f():\n  for line in open('/proc/self/status'):\n"
  code += "    if line.startswith('Cpus_allowed_list'): return line.split()[1]\n"
  with Sandbox(workers=len(cores) - spare) as sandbox:
    first = judge(sandbox, code, "assert f() == 'no'")
    os.kill(next(iter(sandbox._pool)).pid, signal.SIGKILL)
    found = {
      judge(sandbox, code, "assert f() == 'no'").detail.split()[-1] for _ in range(4)
    }
  ties = {repr(str(core)) for core in cores}
  if spare:
    assert not found & ties
  else:
    assert found <= ties
    assert first.detail.split()[-1] in ties


def test_stopping_early_leaves_the_sandbox_usable():
  sleeper = Program("sleeper", "import time\ntime.sleep(999)", ())
  quick = Program("quick", "def f(): return 1", ("f()",))
  with Sandbox(workers=2) as sandbox:
    verdicts = sandbox.run([sleeper, quick])
    assert next(verdicts).key == "quick"
    verdicts.close()
    assert [verdict.key for verdict in sandbox.run([quick])] == ["quick"]


def test_hash_order_is_the_same_in_every_worker():
  code = "def f(): return list({'a', 'b', 'c', 'd', 'e', 'f'})"
  details = set()
  for _ in range(2):
    with Sandbox(workers=1) as sandbox:
      details.add(judge(sandbox, code, "assert f() == 0").detail)
  assert len(details) == 1


def test_bad_arguments(sandbox):
  program = Program("k", "", ())
  with pytest.raises(InputError, match="two programs have the key 'k'"):
    list(sandbox.run([program, program]))
  for bad in ({"cpu_seconds": 0}, {"tests": "assert f()"}):
    with pytest.raises(InputError, match=next(iter(bad))):
      Program(**{"key": "k", "code": "", "tests": (), **bad})
  for bad in ({"workers": 0}, {"isolation": "docker"}, {"packages": ("nope",)}):
    with pytest.raises(InputError, match=next(iter(bad))):
      Sandbox(**bad)
