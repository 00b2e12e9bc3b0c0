"""Draft: a task that has been thought out, before it has a name and tests."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

SELF = "__self__"  # stands for the function's own name in a body


@dataclasses.dataclass(frozen=True)
class Argument:
  """An argument: its name, type as in `list[int]`, and what it is, in prose."""

  name: str
  type: str
  about: str


@dataclasses.dataclass
class Draft:
  """A task before it has a name and tests.

  Attributes:
    composition: what it computes.
    family: the kind of task.
    frame: the wording.
    prose: the docstring's sentences; lines that a newline begins are kept apart.
    arguments: in their order.
    returns: the type of the answer.
    answer: the answer in prose, for a "Returns:" block.
    body: lines without the function's own indentation; SELF is its name.
    name: proposes a name for the function.
    inputs: proposes this many lists of arguments.
    imports: modules that the body needs.
    before: source of a helper that stands before the function.
  """

  composition: tuple[str, ...]
  family: str
  frame: str
  prose: str
  arguments: Sequence[Argument]
  returns: str
  answer: str
  body: Sequence[str]
  name: Callable[[random.Random], str]
  inputs: Callable[[random.Random, int], Sequence[Sequence[Any]]]
  imports: Sequence[str] = ()
  before: str = ""
