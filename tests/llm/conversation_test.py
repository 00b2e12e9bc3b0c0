"""Remedies for replies that cannot be used."""

import pytest

from phi1_jax import InputError
from phi1_jax.llm import conversation
from phi1_jax.llm.reply import Reply
from tests.llm.conftest import configure, parse, requests

(ORIGIN,) = requests(1)


def requests_of(parse, *replies):
  """The requests of a conversation with replies of these texts and finishes."""
  turns = conversation.converse(ORIGIN, parse)
  found = [next(turns)]
  for text, finish in replies:
    found.append(turns.send(Reply("k", text, "", finish, None, "m", None, 0)))
  return found


def test_an_empty_reply_is_corrected_without_two_turns_of_one_speaker():
  _, corrected = requests_of(parse, ("", "stop"))
  (message,) = corrected.messages
  assert message.content.startswith("exercise 0\n\n")


def test_an_input_error_of_the_parser_goes_on():
  def refuse(text):
    raise InputError(text)

  with pytest.raises(InputError):
    requests_of(refuse, ("answer", "stop"))


@pytest.mark.parametrize("finishes", [("stop", "length"), ("length", "stop")])
def test_the_worst_turns_cost_at_least_as_much_as_any(finishes):
  def cost(request):
    body = request.body(configure())
    return sum(len(m["content"].encode()) for m in body["messages"]), body["max_tokens"]

  def malformed(text):
    raise conversation.Malformed("w" * 9999)

  text = "\U0001f600" * 20_000
  found = requests_of(malformed, *((text, finish) for finish in finishes))
  worst = conversation.worst_turns(ORIGIN)
  for bound, request in zip(map(cost, worst), map(cost, found), strict=True):
    assert all(a >= b for a, b in zip(bound, request, strict=True))
