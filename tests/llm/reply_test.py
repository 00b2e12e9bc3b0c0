"""Raw replies, whatever is in them."""

import pytest

from phi1_jax.llm import reply
from phi1_jax.llm.reply import Usage


def completion(content="hi", **message):
  choice = {"message": {"content": content, **message}, "finish_reason": "stop"}
  usage = {"prompt_tokens": 3, "completion_tokens": 2}
  return {"model": "m-1", "choices": [choice], "usage": usage}


def test_reads_a_completion():
  found = reply.read("k", completion(), 7)
  assert (found.text, found.finish, found.model) == ("hi", "stop", "m-1")
  assert (found.usage, found.picodollars) == (Usage(3, 2), 7)
  assert reply.read("k", completion("x\ud800\0"), 0).text == "x\ufffd\0"
  parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 5]
  assert reply.read("k", completion(parts), 0).text == "ab"
  assert reply.read("k", completion(None, refusal="no"), 0).refusal == "no"


@pytest.mark.parametrize(
  ("content", "answer", "reasoning"),
  [
    ("  x ", "  x ", ""),
    ("<think>a</think>\n\nx\n", "x", "a"),
    ("a</think>x", "x", "a"),
    ("<THINK>a</think>b<think>c</think> x", "x", "abc"),
    ("[THINK]a[/THINK]x", "x", "a"),
    ("<think>a, and no end", "", "a,andnoend"),
    ("<think>a</think>x <think>b", "x", "ab"),
  ],
)
def test_reasoning_is_no_part_of_the_answer(content, answer, reasoning):
  found = reply.read("k", completion(content), 0)
  assert found.text == answer
  assert "".join(found.reasoning.split()) == reasoning


@pytest.mark.parametrize(
  "raw",
  [
    *(b"", b"not json", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 100_000, b"null"),
    b'{"choices": [{"message": {"content": "cut',
    b'{"choices": []}',
    b'{"choices": {"0": 1}}',
    b'{"choices": [null]}',
    b'{"choices": [{"message": null}]}',
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]}',
    b'{"error": {"message": "overloaded"}}',
  ],
  ids=range(13),
)
def test_what_is_not_a_completion_is_told_apart(raw):
  content = reply.load(raw)
  assert reply.usage_of(content) is None
  assert reply.problem(content)


@pytest.mark.parametrize("count", [None, -1, 1.5, True, 10**10, "3"])
def test_a_usage_that_cannot_be_is_not_believed(count):
  usage = {"prompt_tokens": 3, "completion_tokens": count}
  assert reply.usage_of({"usage": usage}) is None
