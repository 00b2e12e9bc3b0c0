import json

import pytest

from phi1_jax.llm import reply
from phi1_jax.llm.reply import UnreadableError, Usage


def completion(content="hi", finish="stop", **message):
  return {
    "model": "m-1",
    "choices": [{"message": {"content": content, **message}, "finish_reason": finish}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
  }


def test_reads_a_completion():
  found = reply.read("k", completion(), 7)
  assert (found.text, found.finish, found.model) == ("hi", "stop", "m-1")
  assert (found.usage, found.picodollars) == (Usage(3, 2), 7)


def test_parts_are_joined_and_a_refusal_is_kept():
  parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 5]
  assert reply.read("k", completion(parts), 0).text == "ab"
  assert reply.read("k", completion(None, refusal="no"), 0).refusal == "no"
  assert reply.read("k", completion(None, "length"), 0).text == ""


@pytest.mark.parametrize(
  "raw",
  [
    b"",
    b"not json",
    b'{"choices": [{"message": {"content": "cut',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 100_000,
    b"null",
    b"[]",
    b'{"choices": []}',
    b'{"choices": null}',
    b'{"choices": {"0": 1}}',
    b'{"choices": [null]}',
    b'{"choices": [{"message": null}]}',
    b'{"choices": [{"message": {"content": null}}]}',
    b'{"choices": [{"message": {"content": 5}}]}',
    b'{"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]}',
    b'{"error": {"message": "overloaded"}}',
  ],
)
def test_poison_is_unreadable_and_nothing_worse(raw):
  content = reply.load(raw)
  assert reply.usage_of(content) is None
  with pytest.raises(UnreadableError):
    reply.read("k", content, 0)


def test_poisoned_text_can_be_written():
  text = 'a\ud800\0\x1b[2J\u202e{"x": [1, {"y": "' + "z" * 5_000_000
  found = reply.read("k", reply.load(json.dumps(completion(text)).encode()), 0)
  assert found.text == text.replace("\ud800", "\ufffd")
  assert len(found.text.encode()) > 5_000_000


@pytest.mark.parametrize(
  "usage",
  [
    None,
    [],
    {},
    {"prompt_tokens": 1},
    {"prompt_tokens": -1, "completion_tokens": 1},
    {"prompt_tokens": 1.5, "completion_tokens": 1},
    {"prompt_tokens": True, "completion_tokens": 1},
    {"prompt_tokens": "1", "completion_tokens": 1},
    {"prompt_tokens": 10**400, "completion_tokens": 1},
  ],
)
def test_usage_that_cannot_be_believed_is_none(usage):
  assert reply.usage_of({"usage": usage}) is None
