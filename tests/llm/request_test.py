import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from phi1_jax import InputError
from phi1_jax.llm import request as requests_
from phi1_jax.llm.request import Message, Request, clean, most_prompt_tokens


def ask(text="say", **changes):
  settings = {"max_tokens": 64, "prompt_id": "p", "prompt_version": "1"}
  return Request((Message("user", text),), **settings | changes)


def test_the_body_holds_what_was_set_and_nothing_else(configure):
  config = configure(length_field="max_completion_tokens", extra={"effort": "low"})
  assert ask(temperature=0.0, stop=("\n",), seed=0).body(config) == {
    "model": "m",
    "messages": [{"role": "user", "content": "say"}],
    "max_completion_tokens": 64,
    "temperature": 0.0,
    "stop": ["\n"],
    "seed": 0,
    "effort": "low",
  }


def test_the_key_is_the_same_for_ever(configure):
  # A journal that was paid for must be found again by every later version.
  assert ask(sample=1).key(configure()) == (
    "36a0772a47b3307027df17c71dd12e4e6f523131b270b5e4f02bba4de3c66599"
  )


@pytest.mark.parametrize(
  "changes",
  [
    {"max_tokens": 65},
    {"prompt_id": "q"},
    {"prompt_version": "2"},
    {"sample": 1},
    {"temperature": 0.5},
    {"top_p": 0.5},
    {"stop": ("x",)},
    {"seed": 1},
    {"response_format": {"type": "json_object"}},
    {"messages": (Message("system", "s"), Message("user", "say"))},
  ],
)
def test_the_key_depends_on_everything_sent(configure, changes):
  changed = dataclasses.replace(ask(), **changes)
  assert changed.key(configure()) != ask().key(configure())


def test_the_key_depends_on_the_model_but_not_on_the_way(configure):
  key = ask().key(configure())
  assert ask().key(configure(model="n")) != key
  assert ask().key(configure(extra={"x": 1})) != key
  for same in ({"api": "batch"}, {"budget_usd": 2.0}, {"concurrency": 1}):
    assert ask().key(configure("http://other/v1", **same)) == key


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_prompt_has_no_more_tokens_than_bytes(text):
  body = {"model": "m", "messages": [{"role": "user", "content": text}]}
  assert most_prompt_tokens(body) >= len(text.encode()) + 256


def test_a_schema_and_each_message_count():
  body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
  one = most_prompt_tokens(body)
  assert most_prompt_tokens(body | {"response_format": "y" * 100}) >= one + 100
  more = body | {"messages": [*body["messages"]] * 3}
  assert most_prompt_tokens(more) == one + 2 * 17
  assert requests_.likely_prompt_tokens(more) == 1


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("a\ud800b", "a\ufffdb"),
    ("\udc00", "\ufffd"),
    ("\ud83d\ude00", "\U0001f600"),
    ("x\ud83d", "x\ufffd"),
    ("\0\x1b\u2028é", "\0\x1b\u2028é"),
  ],
)
def test_clean_text_can_be_written(text, expected):
  assert clean(text) == expected
  clean(text).encode()


@pytest.mark.parametrize(
  ("make", "expected"),
  [
    (lambda: ask("\ud800"), "content"),
    (lambda: ask(max_tokens=0), "max_tokens is 0"),
    (lambda: ask(sample=-1), "sample"),
    (lambda: ask(messages=()), "messages"),
    (lambda: dataclasses.replace(ask(), messages=(Message("u", "x"),)), "role is 'u'"),
  ],
)
def test_refuses_what_no_endpoint_takes(make, expected):
  with pytest.raises((InputError, TypeError), match=expected):
    make()
