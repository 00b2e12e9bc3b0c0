"""Solutions are run: their answers on a pool of inputs become asserts.

The code comes from the tables, which are trusted, and runs in this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

LONGEST_LITERAL = 70
FEWEST_TESTS, TESTS = 5, 6
_INPUTS = 28
_SECONDS = 10.0  # for a solution on all inputs


@dataclasses.dataclass(frozen=True)
class Call:
  """A call of a solution: the literals of its arguments and of its answer."""

  arguments: str
  answer: str

  def test(self, name: str) -> str:
    """Return the assert of a function of this name."""
    sign = "is" if self.answer in ("None", "True", "False") else "=="
    return f"assert {name}({self.arguments}) {sign} {self.answer}"


def literal(value: Any) -> str:
  """Return Python source of a value, the same whatever the order of a set.

  >>> literal([{"b", "a"}])
  "[{'a', 'b'}]"
  """
  text = repr(value)
  if "{" not in text:
    return text
  if isinstance(value, set | frozenset):
    return f"{{{', '.join(sorted(map(literal, value)))}}}" if value else "set()"
  if isinstance(value, list):
    return f"[{', '.join(map(literal, value))}]"
  if isinstance(value, dict):
    return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
  return text


@contextlib.contextmanager
def limited() -> Iterator[None]:
  """Run code of the tables in a block with a limit of time, in the main thread.

  Raises:
    TimeoutError: it takes longer than 10 seconds. A call of C code ends first.
    RuntimeError: it ends the process.
  """

  def stop(*_: Any) -> None:
    raise TimeoutError(f"no answer within {_SECONDS:g} s")

  timed = threading.current_thread() is threading.main_thread()
  try:
    if timed:
      before = signal.signal(signal.SIGALRM, stop)
      # Again and again, since the code may catch the error.
      signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)
    try:
      yield
    finally:
      if timed:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
  except SystemExit as error:
    raise RuntimeError(f"the code calls exit({error.code})") from None


@functools.lru_cache(1 << 16)
def compiled(source: str) -> Callable[..., Any]:
  """Return the function `f` of a program."""
  space: dict[str, Any] = {}
  exec(source, space)
  return space["f"]


def inputs(pools: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
  """Return tuples of arguments from the pool of each argument."""
  count = max(_INPUTS, *map(len, pools)) if len(pools) > 1 else len(pools[0])
  steps = (1, 5, 11, 17)
  return [
    tuple(pool[(n * steps[i] + i) % len(pool)] for i, pool in enumerate(pools))
    for n in range(count)
  ]


def solved(
  functions: Sequence[Callable[..., Any]],
  given: Sequence[Sequence[Any]],
  constants: Sequence[Any],
  key: str,
) -> tuple[Call, ...] | None:
  """Return calls, of which the first `TESTS` are for asserts.

  Args:
    functions: the solution, and wrong ones that the asserts must tell from it; each
      takes an input and the constants.
    given: inputs, each a sequence of arguments.
    constants: more arguments.
    key: decides which of the calls are taken.

  Returns:
    None if no input tells a wrong function, or if a constant answer, or an argument
    given back, would pass too many asserts.

  Raises:
    Exception: whatever the solution raises; a task is wrong then.
  """
  function, *wrong = functions
  offset = zlib.crc32(key.encode()) % len(given)
  known = [(a, function(*a, *constants)) for a in (*given[offset:], *given[:offset])]
  groups: dict[str, list[tuple[Any, Any]]] = {}
  for arguments, value in known:
    name = f"{type(value).__name__} {value!r}"
    groups.setdefault(name, []).append((arguments, value))
  if len(groups) < 2 or (len(groups) == 2 and min(map(len, groups.values())) < 2):
    return None
  ordered = []
  for other in wrong:
    telling = next((k for k in known if _differs(other, *k, constants)), None)
    if telling is None:
      return None
    ordered.append(telling)
  for row in itertools.zip_longest(*groups.values()):
    ordered += [each for each in row if each is not None]
    if len(ordered) > 3 * TESTS:
      break
  return _taken(ordered)


def _differs(function, arguments, value, constants) -> bool:
  try:
    return function(*arguments, *constants) != value
  except Exception:  # it is wrong on purpose
    return True


def _taken(ordered: Sequence[tuple[Any, Any]]) -> tuple[Call, ...] | None:
  """Return the first calls that are short, and do not only give an argument back."""
  taken: list[Call] = []
  seen: set[str] = set()
  echoes = [0] * len(ordered[0][0])  # by argument: how often it is the answer
  for arguments, value in ordered:
    echo = [type(value) is type(a) and value == a for a in arguments]
    call = Call(", ".join(map(literal, arguments)), literal(value))
    fits = len(call.arguments) <= LONGEST_LITERAL >= len(call.answer)
    many = any(e and n >= FEWEST_TESTS - 2 for e, n in zip(echo, echoes, strict=True))
    if not fits or many or call.arguments in seen:
      continue
    echoes = [n + e for e, n in zip(echo, echoes, strict=True)]
    seen.add(call.arguments)
    taken.append(call)
    if len(taken) == TESTS + 3:
      break
  varied = len({call.answer for call in taken[:TESTS]}) > 1
  return tuple(taken) if len(taken) >= FEWEST_TESTS and varied else None
