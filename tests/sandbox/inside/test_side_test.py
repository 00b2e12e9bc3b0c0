import os

import pytest

from phi1_jax.sandbox.inside import test_side, wire

PROGRAM = {"code": "", "tests": ["f()"], "in_process": False}


def judge_with(*replies, program=PROGRAM):
  """The verdict when U writes these messages and is gone."""
  read, write = os.pipe()
  for reply in replies:
    wire.send(write, reply)
  os.close(write)
  requests = os.open(os.devnull, os.O_WRONLY)
  verdict = test_side.judge(test_side.Channel(requests, read), program, ())
  os.close(read)
  os.close(requests)
  return verdict["outcome"]


def test_death_before_the_code_is_no_fault_of_the_code():
  assert judge_with() == "worker_lost"
  assert judge_with("ready") == "lost"  # S then says what became of U


@pytest.mark.parametrize("secret", ["0" * 32, None])
def test_a_pass_without_the_secret_is_forged(secret):
  """Of tests in the code's process, which may write what it likes to the channel."""
  verdict = {"outcome": "passed", "detail": "", "failed_test": None}
  forged = {"verdict": verdict, "secret": secret}
  program = {**PROGRAM, "in_process": True}
  assert judge_with("ready", {}, forged, program=program) == "opaque_result"


def test_items_that_are_none_stop_the_tests():
  function = {"value": [0], "nodes": [["iterator", [0, "f"]]], "held": []}
  read, write = os.pipe()
  requests = os.open(os.devnull, os.O_WRONLY)
  for bad in (
    {"value": 3, "nodes": [], "held": []},
    {"value": [0], "nodes": [None], "held": []},
    {"value": [0], "nodes": [["list", []]], "held": [], "then": None},
    {
      "value": [0],
      "nodes": [["list", [1, 2]]],
      "held": [],
      "then": None,
    },  # asked for one
  ):
    channel = test_side.Channel(requests, read)
    items = channel.decode(function)
    wire.send(write, bad)
    with pytest.raises(test_side.Stop, match=r"items|plain data") as stop:
      next(items)
    assert stop.value.outcome == "opaque_result"
  for descriptor in (read, write, requests):
    os.close(descriptor)


OWNER = ["object", [0, "S"]]
FORGED = {
  "fraction": [["derived", [OWNER, "Fraction", [5, 2], []]]],
  "decimal": [["derived", [OWNER, "Decimal", ["1"], []]]],
  "date": [["derived", [OWNER, "date", [1, 1, 1], []]]],
  "type": [["derived", [OWNER, "type", ["int"], []]]],
  "object": [["derived", [OWNER, "object", [0, "S"], []]]],
  "named_tuple": [["derived", [OWNER, "namedtuple", ["P", "x", 1], []]]],
  "owner": [["derived", [["derived", [OWNER, "int", ["0x1"], []]], "str", ["a"], []]]],
  "method": [["derived", [OWNER, "str", ["a"], ["__getattribute__"]]]],
}


@pytest.mark.parametrize("name", FORGED)
def test_only_built_in_types_are_extended(name):
  channel = test_side.Channel(-1, -1)
  with pytest.raises(test_side.Stop) as stop:
    channel.decode({"value": [0], "nodes": FORGED[name], "held": []})
  assert stop.value.outcome == "opaque_result"
