import dataclasses

import pytest

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
