"""Functions that anybody writes: a match with one of them proves nothing by itself.

Benchmarks ask for some of them. What matches such a problem is a copy only if its words
match too.
"""

from __future__ import annotations

import functools

from phi1_jax.text import source, trees

MATCH = 0.95
SNIPPETS = """
def _(a, b): return a + b
def _(a, b): return a * b
def _(a, b): return a == b
def _(n): return n % 2 == 0
def _(n): return n * n
def _(n): return n ** 2
def _(a): return len(a)
def _(a): return sum(a)
def _(a): return max(a)
def _(a): return a[-1]
def _(a, b): return a[b]
def _(a): return a[::-1]
def _(a): return sorted(a)
def _(a): return list(set(a))
def _(a): return a == a[::-1]
def _(a): return sum(a) / len(a)
def _(a): return max(a) - min(a)
def _(a): return "".join(reversed(a))
def _(a): return [x for x in a if x % 2 == 0]
def _(a): return [x ** 2 for x in a]
def _(a): return [y for x in a for y in x]

def _(a):
  total = 0
  for x in a:
    total += x
  return total

def _(a):
  total = 1
  for x in a:
    total *= x
  return total

def _(n):
  total = 0
  for x in range(1, n + 1):
    total += x
  return total

def _(a):
  best = a[0]
  for x in a:
    if x > best:
      best = x
  return best

def _(a):
  best = a[0]
  for x in a[1:]:
    if x > best:
      best = x
  return best

def _(a):
  count = 0
  for x in a:
    count += 1
  return count

def _(a):
  count = 0
  for x in a:
    if x > 0:
      count += 1
  return count

def _(a, b):
  count = 0
  for x in a:
    if x == b:
      count += 1
  return count

def _(a):
  found = []
  for x in a:
    if x not in found:
      found.append(x)
  return found

def _(a):
  found = []
  for x in a:
    if x > 0:
      found.append(x)
  return found

def _(a):
  counts = {}
  for x in a:
    if x in counts:
      counts[x] += 1
    else:
      counts[x] = 1
  return counts

def _(a):
  counts = {}
  for x in a:
    counts[x] = counts.get(x, 0) + 1
  return counts

def _(n):
  if n < 2:
    return False
  for i in range(2, int(n ** 0.5) + 1):
    if n % i == 0:
      return False
  return True

def _(n):
  if n < 2:
    return False
  for i in range(2, n):
    if n % i == 0:
      return False
  return True

def _(n):
  if n == 0:
    return 1
  return n * _(n - 1)

def _(n):
  if n <= 1:
    return 1
  else:
    return n * _(n - 1)

def _(n):
  result = 1
  for i in range(1, n + 1):
    result *= i
  return result

def _(n):
  if n == 0:
    return 0
  if n == 1:
    return 1
  return _(n - 1) + _(n - 2)

def _(n):
  if n <= 1:
    return n
  return _(n - 1) + _(n - 2)

def _(n):
  a, b = 0, 1
  for _ in range(n):
    a, b = b, a + b
  return a

def _(a, b):
  while b:
    a, b = b, a % b
  return a

def _(a, b):
  if b == 0:
    return a
  return _(b, a % b)

def _(n):
  total = 0
  while n > 0:
    total += n % 10
    n //= 10
  return total

def _(a):
  for i in range(len(a)):
    for j in range(0, len(a) - i - 1):
      if a[j] > a[j + 1]:
        a[j], a[j + 1] = a[j + 1], a[j]
  return a
"""


def known(shape: trees.Shape) -> bool:
  """Whether a function is one of `SNIPPETS`, but for its names and strings."""
  return any(trees.match_rate(shape, other, MATCH) >= MATCH for other in _shapes())


@functools.cache
def _shapes() -> tuple[trees.Shape, ...]:
  found = (trees.shape(function.node) for function in source.functions(SNIPPETS))
  return tuple(shape for shape in found if shape)
