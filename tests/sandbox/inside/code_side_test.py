"""What honest code does that needs more of U and T than plain calls."""

import textwrap

import pytest

from phi1_jax.sandbox.program import Program

HONEST = {
  "class_based_decorator": (
    """
    class memoize:
      def __init__(self, function): self.function, self.seen = function, {}
      def __call__(self, x):
        if x not in self.seen: self.seen[x] = self.function(x)
        return self.seen[x]
    @memoize
    def f(x): return x + 1
    """,
    "assert f(2) == 3 and f(2) == 3 and f.seen == {2: 3}",
  ),
  "attributes_of_functions": (
    """
    import functools
    @functools.lru_cache
    def g(x): return x
    def f(x): f.calls += g(x)
    f.calls = 0
    """,
    "f(2)\nf(2)\nassert f.calls == 4 and g.cache_info().hits == 1",
  ),
  "generator_that_raises_late": (
    "def f():\n  yield from range(500)\n  raise KeyError('end')",
    "seen = []\ntry:\n  for x in f(): seen.append(x)\nexcept KeyError: pass\n"
    "assert seen == list(range(500))",
  ),
  "generator_without_a_next_item": (
    """
    def f():
      for i in range(60): yield i
      while True: pass
    """,
    "import itertools\nassert list(itertools.islice(f(), 60)) == list(range(60))",
  ),
  "groups_are_read_before_the_next": (
    "import itertools\ndef f(x): return itertools.groupby(x)",
    "text = 'aab' * 60\nassert ''.join(x for _, g in f(text) for x in g) == text",
  ),
  "generator_that_is_sent_to": (
    "def f(x):\n  y = yield x\n  yield y",
    "g = f(2)\nassert next(g) == 2 and g.send(5) == 5",
  ),
  "many_threads": (
    """
    import threading
    def f():
      barrier, sizes = threading.Barrier(40), []
      def work():
        sizes.append(len(bytes(2000)))
        barrier.wait()
      threads = [threading.Thread(target=work) for _ in range(40)]
      for thread in threads: thread.start()
      for thread in threads: thread.join()
      return len(sizes)
    """,
    "assert f() == 40",
  ),
  "argument_changed_before_an_exception": (
    "def f(x):\n  x.append(1)\n  raise ValueError('no')",
    "x = []\ntry:\n  f(x)\nexcept ValueError: pass\nassert x == [1]",
  ),
  "event_loop": (
    """
    import asyncio, time
    async def g(x):
      await asyncio.sleep(0.001)
      return x + await asyncio.to_thread(lambda: 1)
    def f(x): return asyncio.run(g(x))
    """,
    "assert f(2) == 3",
  ),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_code_passes(sandbox, name):
  code, test = HONEST[name]
  program = Program(name, textwrap.dedent(code), (test,))
  (verdict,) = sandbox.run([program])
  assert verdict.passed, verdict


def test_a_callable_object_has_no_operators(sandbox):
  code = "class Yes:\n  def __call__(self): return self\n"
  code += "  def __eq__(self, other): return True\nf = Yes()\n"
  (verdict,) = sandbox.run([Program("k", code, ("assert f() == 3",))])
  assert verdict.outcome == "opaque_result", verdict


VERDICTS = {  # of one process; "unsupported" where that cannot be known
  "list_that_the_code_keeps": (
    "def f(x, seen=[]):\n  seen.append(x)\n  return seen",
    "a, b = f(1), f(2)\nassert a == [1, 2] and a is b\na.append(9)\n"
    "assert f(3) == [1, 2, 9, 3]",
    "passed",
  ),
  "changes_of_what_extends_a_list": (
    "class S(list):\n  def total(self): return sum(self)\ndef f(s): return len(s)",
    "s = S()\ns += [3]\ns[0] = 4\ns.extend((5, 6))\ndel s[1]\n"
    "assert s.total() == 10 and f(s) == 2 and s == [4, 6]",
    "passed",
  ),
  "changes_of_what_extends_a_dictionary": (
    "import collections\nclass S(collections.defaultdict):\n"
    "  def total(self): return sum(self.values())\n"
    "class O(collections.OrderedDict):\n  def last(self): return [*self][-1]",
    "s, o = S(int), O()\ns['a'] += 2\ns.setdefault('b', 3)\no['x'] = o['y'] = 1\n"
    "o.move_to_end('x')\nassert s.total() == 5 and s.pop('a') == 2 and o.last() == 'x'",
    "passed",
  ),
  "identity_of_a_text": (
    "def f(x): return x[:-1] + x[-1]",
    "x = 'hello'\nassert f(x) is x",
    "unsupported",
  ),
  "iterator_that_the_tests_keep": (
    "def f(x): return next(x)",
    "x = iter([1, 2])\nassert f(x) == 1 and next(x) == 2",
    "unsupported",
  ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_is_that_of_one_process(sandbox, name):
  code, test, outcome = VERDICTS[name]
  (verdict,) = sandbox.run([Program(name, code, (test,))])
  assert verdict.outcome == outcome, verdict


def test_an_iterator_read_ahead_cannot_be_sent_to(sandbox):
  code = "def f():\n  x = 0\n  while True: x = (yield x) or x + 1\n"
  tests = ("g = f()\nfor _ in range(65): next(g)\ng.send(5)",)
  (verdict,) = sandbox.run([Program("k", code, tests)])
  assert verdict.outcome == "unsupported", verdict
