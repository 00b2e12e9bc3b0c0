import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi1_jax.sandbox.inside import wire


def no_special(*arguments):
  raise wire.Opaque(str(arguments))


def round_trip(value):
  encoder = wire.Encoder(no_special)
  encoded = encoder.value(value)
  read, write = os.pipe()
  wire.send(write, [encoded, encoder.nodes])
  os.close(write)
  encoded, nodes = wire.receive(read)
  os.close(read)
  return wire.Decoder(nodes, no_special).value(encoded)


ATOMS = (
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats(allow_nan=False)
  | st.text(st.characters())
  | st.binary()
)
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.booleans())
VALUES = st.recursive(
  ATOMS,
  lambda inner: (
    st.lists(inner)
    | st.tuples(inner, inner)
    | st.dictionaries(KEYS, inner)
    | st.sets(KEYS)
    | st.frozensets(KEYS)
  ),
  max_leaves=20,
)


@given(VALUES)
def test_values_survive(value):
  back = round_trip(value)
  assert repr(back) == repr(value) or (back == value and type(back) is type(value))


def test_a_reply_refills_the_objects_of_its_request():
  inner = [1]
  sent = [inner, {"k": inner}]
  request = wire.Encoder(no_special)
  encoded = request.value(sent)
  there = wire.Decoder(request.nodes, no_special)
  copy = there.value(encoded)
  before = [wire.contents(x) for x in there.objects()]
  copy[0].append(2)
  copy[1]["new"] = copy[0]
  reply = wire.Encoder(no_special, there.objects())
  result = reply.value(copy[0])
  reply.refresh(before)
  back = wire.Decoder(reply.nodes, no_special, request.objects).value(result)
  assert back is inner
  assert inner == [1, 2]
  assert sent[1]["new"] is inner


BAD_NODES = {
  "unknown_tag": [["module", "os"]],
  "type_that_is_none": [["type", "eval"]],
  "huge_reference": [["tuple", [[7]]]],
  "tuple_in_itself": [["tuple", [[0]]]],
  "unhashable": [["set", [[1]]], ["list", []]],
  "object_instead_of_node": [{"tag": "list"}],
  "mapping_inside": [["tuple", [{"a": 1}]]],
}


@pytest.mark.parametrize("name", BAD_NODES)
def test_malformed_nodes_raise(name):
  with pytest.raises((wire.Opaque, LookupError, TypeError, ValueError, RecursionError)):
    wire.Decoder(BAD_NODES[name], no_special).value([0])


def test_an_argument_cannot_come_back_as_another_type():
  with pytest.raises(wire.Opaque, match="argument 0"):
    wire.Decoder([["dict", []]], no_special, [[1]])


def test_message_sizes_are_limited():
  read, write = os.pipe()
  with pytest.raises(wire.TooLarge):
    wire.send(write, "x" * wire.MESSAGE_BYTES)
  os.write(write, b"\xff\xff\xff\xff")
  with pytest.raises(wire.TooLarge):
    wire.receive(read)
  os.close(write)
  os.close(read)
