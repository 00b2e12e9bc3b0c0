"""Remedies for replies that cannot be used."""

import pytest

from phi1_jax import InputError
from phi1_jax.llm import conversation
from phi1_jax.llm.reply import Reply
from phi1_jax.llm.request import Message, Request

ORIGIN = Request((Message("user", "say"),), 64, "p", "1")


def reply(text="answer", finish="stop", refusal=None):
  return Reply("k", text, "", finish, refusal, "m", None, 0)


def requests_of(parse, *replies):
  """The requests of a conversation with these replies."""
  turns = conversation.converse(ORIGIN, parse)
  return [next(turns), *map(turns.send, replies)]


def test_an_empty_reply_is_corrected_without_two_turns_of_one_speaker(parse):
  _, corrected = requests_of(parse, reply(""))
  (message,) = corrected.messages
  assert message.content.startswith("say\n\n")


def test_an_input_error_of_the_parser_goes_on():
  def refuse(text):
    raise InputError(text)

  with pytest.raises(InputError):
    requests_of(refuse, reply())


@pytest.mark.parametrize("finishes", [("stop", "length"), ("length", "stop")])
def test_the_worst_turns_cost_at_least_as_much_as_any(configure, finishes):
  def cost(request):
    body = request.body(configure())
    return sum(len(m["content"].encode()) for m in body["messages"]), body["max_tokens"]

  def malformed(text):
    raise conversation.Malformed("w" * 9999)

  text = "\U0001f600" * 20_000
  found = requests_of(malformed, *(reply(text, finish) for finish in finishes))
  worst = list(conversation.worst_turns(ORIGIN))
  for bound, request in zip(map(cost, worst), map(cost, found), strict=True):
    assert all(a >= b for a, b in zip(bound, request, strict=True))
