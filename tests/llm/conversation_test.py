"""Remedies for replies that cannot be used."""

import pytest

from phi1_jax import InputError
from phi1_jax.llm import conversation
from phi1_jax.llm.conversation import Turn
from phi1_jax.llm.reply import Reply
from phi1_jax.llm.request import Message, Request

ORIGIN = Request((Message("user", "say"),), 64, "p", "1")
START = Turn(ORIGIN, ORIGIN)


def reply(text="answer", finish="stop", refusal=None):
  return Reply("k", text, "", finish, refusal, "m", None, 0)


def test_an_empty_reply_is_corrected_without_two_turns_of_one_speaker(parse):
  turn = conversation.respond(START, reply(""), parse)
  (message,) = turn.request.messages
  assert message.content.startswith("say\n\n")


def test_an_input_error_of_the_parser_goes_on():
  def refuse(text):
    raise InputError(text)

  with pytest.raises(InputError):
    conversation.respond(START, reply(), refuse)


def test_the_worst_turns_cost_at_least_as_much_as_any(configure):
  def cost(request):
    body = request.body(configure())
    return sum(len(m["content"].encode()) for m in body["messages"]), body["max_tokens"]

  def malformed(text):
    raise conversation.Malformed("w" * 9999)

  for first, second in (("stop", "length"), ("length", "stop")):
    turns = [START]
    for finish in (first, second):
      text = "\U0001f600" * 20_000
      turns.append(conversation.respond(turns[-1], reply(text, finish), malformed))
    worst = list(conversation.worst_turns(ORIGIN))
    assert len(worst) == len(turns)
    for bound, turn in zip(map(cost, worst), turns, strict=True):
      assert all(a >= b for a, b in zip(bound, cost(turn.request), strict=True))
