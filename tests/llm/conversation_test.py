import dataclasses
import json

import pytest

from phi1_jax import InputError
from phi1_jax.llm import conversation
from phi1_jax.llm.conversation import Answered, Failed, Turn
from phi1_jax.llm.reply import Reply, UnreadableError
from phi1_jax.llm.request import Message, Request

ORIGIN = Request((Message("user", "say"),), 64, "p", "1")
START = Turn(ORIGIN, ORIGIN)


def reply(text="answer", finish="stop", refusal=None):
  return Reply("k", text, finish, refusal, "m", None, 0)


def respond(parse, turn, found):
  def read():
    if isinstance(found, Exception):
      raise found
    return found

  return conversation.respond(turn, "k", read, parse)


def test_a_good_reply_is_an_answer(parse):
  assert respond(parse, START, reply()) == Answered(ORIGIN, "answer", reply())


def test_a_cut_reply_is_asked_for_with_twice_the_tokens_once(parse):
  turn = respond(parse, START, reply("ans", "length"))
  assert turn.request == dataclasses.replace(ORIGIN, max_tokens=128)
  cut = reply("answer 1, 2, ", "length")
  assert respond(parse, turn, cut) == Answered(ORIGIN, "answer 1, 2, ", cut)


def test_longer_than_the_server_allows_takes_what_is_there(parse):
  turn = respond(parse, START, reply("answer, cut", "length"))
  found = conversation.refused(turn, "k", "400", parse)
  assert found == Answered(ORIGIN, "answer, cut", reply("answer, cut", "length"))
  turn = respond(parse, START, reply("ans", "length"))
  assert isinstance(conversation.refused(turn, "k", "400", parse), Failed)
  assert conversation.refused(START, "k", "400", parse).reason == "400"


def test_a_malformed_reply_is_corrected_once(parse):
  turn = respond(parse, START, reply("sorry"))
  roles = [message.role for message in turn.request.messages]
  assert roles == ["user", "assistant", "user"]
  assert turn.request.messages[1].content == "sorry"
  assert "it does not begin with answer" in turn.request.messages[2].content
  failed = respond(parse, turn, reply("sorry"))
  assert failed == Failed(ORIGIN, failed.reason, "k")
  assert "malformed, and again when corrected" in failed.reason


# What parsers stumble over: a text, and what they do with it.
STUMBLES = [
  ("1e999", lambda text: int(float(text)), "OverflowError: cannot convert"),
  ("[" * 100_000, json.loads, "RecursionError"),
  ("9" * 5000, int, "ValueError: Exceeds the limit"),
  ("{}", lambda text: json.loads(text)["code"], "KeyError: 'code'"),
  ("null", lambda text: json.loads(text).strip(), "AttributeError: 'NoneType'"),
  ("5", lambda text: json.loads(text)[0], "TypeError: 'int'"),
  ("def", lambda text: compile(text, "reply", "exec"), "SyntaxError: invalid"),
  ("1" * 19, lambda text: " " * int(text), "MemoryError"),
]


@pytest.mark.parametrize(("text", "parse", "expected"), STUMBLES)
def test_a_reply_that_trips_the_parser_is_malformed(text, parse, expected):
  turn = respond(parse, START, reply(text))
  note = turn.request.messages[-1].content
  assert f"could not be used: {expected}" in note
  failed = respond(parse, turn, reply(text))
  assert isinstance(failed, Failed)
  assert expected in failed.reason
  cut = respond(parse, START, reply(text, "length"))
  assert expected in conversation.refused(cut, "k", "400", parse).reason


def test_what_a_parser_says_is_short_and_can_be_sent():
  def parse(text):
    raise LookupError("\ud800" + "x" * 5_000_000)

  turn = respond(parse, START, reply())
  said = "LookupError: \ufffd" + "x" * 199 + ". Answer"
  assert said in turn.request.messages[-1].content
  respond(parse, turn, reply()).reason.encode()
  cut = respond(parse, START, reply("x", "length"))
  conversation.refused(cut, "k", "400", parse).reason.encode()


def test_what_a_malformed_reply_is_told_for_can_be_sent():
  def parse(text):
    raise conversation.Malformed(f"got {json.loads(text)}")

  turn = respond(parse, START, reply('"\\ud800"'))
  assert "got \ufffd" in turn.request.messages[-1].content


@pytest.mark.parametrize("error", [InputError("Parse.menu"), KeyboardInterrupt()])
def test_what_is_not_the_replys_fault_goes_on(error):
  def parse(text):
    raise error

  with pytest.raises(type(error)):
    respond(parse, START, reply())


def test_an_unreadable_reply_is_asked_for_in_other_words(parse):
  turn = respond(parse, START, UnreadableError("cut off"))
  assert len(turn.request.messages) == 1
  assert turn.request.messages[0].content.startswith("say\n\nYour reply")
  assert respond(parse, turn, reply()).value == "answer"


def test_a_huge_bad_reply_is_not_paid_for_again_as_a_prompt(parse):
  turn = respond(parse, START, reply("x" * 5_000_000))
  assert len(turn.request.messages[1].content) == 16_000


@pytest.mark.parametrize(
  "found", [reply(refusal="no"), reply("answer", "content_filter")]
)
def test_a_refusal_is_final(parse, found):
  assert isinstance(respond(parse, START, found), Failed)


def test_no_request_is_sent_twice_in_the_same_words(parse, configure):
  """Whatever comes back, at most three calls, all different."""
  kinds = [reply("x", "length"), reply("x"), UnreadableError("x")]

  def walk(turn, seen):
    key = turn.request.key(configure())
    assert key not in seen
    assert len(seen) < 3
    for found in kinds:
      step = respond(parse, turn, found)
      if isinstance(step, Turn):
        walk(step, {*seen, key})
      else:
        assert isinstance(step, Failed)

  walk(START, set())
