"""Messages of the code's process: what they may hold, and what they stand for."""

import os

import pytest

from phi1_jax.sandbox.inside import test_side, wire

PROGRAM = {"code": "", "tests": ["f()"], "in_process": False}
PASSED = {"outcome": "passed", "detail": "", "failed_test": None}


def no_special(*arguments):
  raise wire.Opaque(str(arguments))


@pytest.mark.parametrize(
  "nodes",
  [
    [["module", "os"]],
    [["type", ["eval"]]],
    [["tuple", [[7]]]],
    [["tuple", [[0]]]],  # in itself
    [["set", [8, 1, [1]]], ["list", []]],  # unhashable
  ],
)
def test_malformed_nodes_raise(nodes):
  with pytest.raises((wire.Opaque, LookupError, TypeError, ValueError, RecursionError)):
    wire.Decoder(nodes, no_special).value([0])


def test_an_argument_cannot_come_back_as_another_type():
  with pytest.raises(wire.Opaque, match="argument 0"):
    wire.Decoder([["dict", []]], no_special, [[1]])


@pytest.fixture
def ends():
  """Ends of a pipe, to read and to write, and a descriptor that nobody reads."""
  read, write = os.pipe()
  with open(read, "rb") as r, open(write, "wb") as w, open(os.devnull, "wb") as null:
    yield r, w, null


def _channel(ends):
  return test_side.Channel(ends[2].fileno(), ends[0].fileno())


def test_a_stop_for_what_is_not_json_holds_where_tests_swallow_it(ends):
  channel = _channel(ends)
  os.write(ends[1].fileno(), b"\1\0\0\0{")
  with pytest.raises(test_side.Stop) as caught:
    channel.ask({})
  assert channel.stopped is caught.value
  assert channel.stopped.outcome == "opaque_result"


def test_message_sizes_are_limited(ends):
  read, write, _ = (end.fileno() for end in ends)
  with pytest.raises(wire.TooLarge):
    wire.send(write, "x" * wire.MESSAGE_BYTES)
  os.write(write, b"\xff\xff\xff\xff")
  with pytest.raises(wire.TooLarge):
    wire.receive(read)


@pytest.mark.parametrize(
  ("replies", "in_process", "outcome"),
  [
    # Death before the code is no fault of the code; later S says what became of it.
    ([], False, "worker_lost"),
    (["ready"], False, "lost"),
    # A pass of tests in the code's process, which may write what it likes.
    (["ready", {}, {"verdict": PASSED, "secret": "0" * 32}], True, "opaque_result"),
    (["ready", {}, {"verdict": PASSED, "secret": None}], True, "opaque_result"),
  ],
)
def test_the_verdict_when_the_code_sends_this_and_is_gone(
  ends, replies, in_process, outcome
):
  for reply in replies:
    wire.send(ends[1].fileno(), reply)
  ends[1].close()
  program = {**PROGRAM, "in_process": in_process}
  assert test_side.judge(_channel(ends), program, ())["outcome"] == outcome


@pytest.mark.parametrize(
  "bad",
  [
    {"value": 3, "nodes": []},
    {"value": [0], "nodes": [None]},
    {"value": [0], "nodes": [["list", []]], "then": None},
    {"value": [0], "nodes": [["list", [1, 2]]], "then": None},  # asked for one
  ],
)
def test_items_that_are_none_stop_the_tests(ends, bad):
  function = {"value": [0], "nodes": [["iterator", [0, "f"]]], "held": []}
  items = _channel(ends).decode(function)
  wire.send(ends[1].fileno(), {"held": [], **bad})
  with pytest.raises(test_side.Stop, match=r"items|plain data") as stop:
    next(items)
  assert stop.value.outcome == "opaque_result"


OWNER = ["object", [0, "S"]]


@pytest.mark.parametrize(
  "derived",
  [
    [OWNER, "Fraction", [5, 2], []],
    [OWNER, "Decimal", ["1"], []],
    [OWNER, "date", [1, 1, 1], []],
    [OWNER, "type", ["int"], []],
    [OWNER, "object", [0, "S"], []],
    [OWNER, "namedtuple", ["P", "x", 1], []],
    [["derived", [OWNER, "int", ["0x1"], []]], "str", ["a"], []],
    [OWNER, "str", ["a"], ["__getattribute__"]],
  ],
)
def test_only_built_in_types_are_extended(derived):
  nodes = [["derived", derived]]
  with pytest.raises(test_side.Stop) as stop:
    test_side.Channel(-1, -1).decode({"value": [0], "nodes": nodes, "held": []})
  assert stop.value.outcome == "opaque_result"
