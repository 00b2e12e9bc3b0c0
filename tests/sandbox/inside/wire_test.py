import os

import pytest

from phi1_jax.sandbox.inside import wire


def no_special(*arguments):
  raise wire.Opaque(str(arguments))


BAD_NODES = {
  "unknown_tag": [["module", "os"]],
  "type_that_is_none": [["type", ["eval"]]],
  "huge_reference": [["tuple", [[7]]]],
  "tuple_in_itself": [["tuple", [[0]]]],
  "unhashable": [["set", [8, 1, [1]]], ["list", []]],
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
