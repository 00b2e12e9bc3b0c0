"""Bodies, keys, bounds, prices and settings."""

import dataclasses

import pytest

from phi1_jax import InputError
from phi1_jax.llm import prices
from phi1_jax.llm import request as requests_
from phi1_jax.llm.prices import Price
from phi1_jax.llm.request import Message, Request, most_prompt_tokens
from tests.llm.conftest import configure

MESSAGES = [{"role": "user", "content": "say"}]


def ask(text="say", **changes):
  settings = {"max_tokens": 64, "prompt_id": "p", "prompt_version": "1"}
  return Request((Message("user", text),), **settings | changes)


@pytest.mark.parametrize(
  ("settings", "fields"),
  [
    ({}, {"max_tokens": 64, "temperature": 0.0}),
    ({"model": "openai/gpt-5-mini"}, {"max_completion_tokens": 64 + 4096}),
    ({"model": "gpt-5-chat-latest"}, {"max_tokens": 64, "temperature": 0.0}),
    (
      {"model": "gpt-5-mini", "length_field": "max_tokens", "reasoning_tokens": 0},
      {"max_tokens": 64},
    ),
    (
      {"extra": {"temperature": None, "a": {"b": [1]}}},
      {"max_tokens": 64, "a": {"b": [1]}},
    ),
    (
      {"model": "o3", "extra": {"temperature": 1.0}},
      {"max_completion_tokens": 4160, "temperature": 1.0},
    ),
  ],
)
def test_the_body_follows_the_model_and_the_settings(settings, fields):
  config = configure(**settings)
  body = ask(temperature=0.0).body(config)
  assert body == {"model": config.model, "messages": MESSAGES, **fields}
  longer = dataclasses.replace(ask(), doubled=True)
  assert longer.most_tokens(config) == 2 * ask().most_tokens(config)


def test_the_key_depends_on_everything_sent_and_on_nothing_else():
  # Replies that were paid for must be found by every later version.
  assert ask(sample=1).key(configure()) == (
    "58bb8a54945da34c6bb97dbdcde2c516a30732d028519e12d4befa27b76f5370"
  )
  changes = [{"max_tokens": 65}, {"prompt_id": "q"}, {"prompt_version": "2"}]
  changes += [{"sample": 1}, {"temperature": 0.5}, {"doubled": True}]
  changes += [{"messages": (Message("system", "s"), Message("user", "say"))}]
  keys = [dataclasses.replace(ask(), **each).key(configure()) for each in changes]
  others = ({}, {"model": "n"}, {"extra": {"x": 1}}, {"url": "http://other/v1"})
  keys += [ask().key(configure(**other)) for other in others]
  assert len(set(keys)) == len(changes) + len(others)
  for same in ({"api": "batch"}, {"budget_usd": 2.0}, {"concurrency": 1}):
    assert ask().key(configure(**same)) == ask().key(configure())


def test_a_schema_and_each_message_count():
  body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
  one = most_prompt_tokens(body)
  assert most_prompt_tokens(body | {"response_format": "y" * 100}) >= one + 100
  more = body | {"messages": [*body["messages"]] * 3}
  assert most_prompt_tokens(more) == one + 2 * 17
  assert requests_.likely_prompt_tokens(more) == 1


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"base_url": "localhost:8000"}, r"Llm.base_url: got 'localhost:8000'.*http://"),
    ({"journal": "gs://bucket/x"}, "got 'gs://bucket/x', expected a local"),
    ({"api": "offline"}, "one of online, batch"),
    ({"budget_usd": -1.0}, "Llm.budget_usd: got -1.0"),
    ({"budget_usd": float("nan")}, "Llm.budget_usd"),
    ({"batch_requests": 50_001}, "Llm.batch_requests"),
    ({"timeout_seconds": 0.0}, "Llm.timeout_seconds"),
    ({"extra": {"max_tokens": 5}}, "no 'max_tokens' in it"),
    ({"extra": {"x": {"y": object()}}}, "Llm.extra: got"),
  ],
)
def test_settings_are_refused_by_name(changes, expected):
  with pytest.raises(InputError, match=expected):
    configure(**changes)


def test_requests_that_no_endpoint_takes_are_refused():
  with pytest.raises(InputError, match="content"):
    ask("\ud800")
  for name, wrong in (("max_tokens", 0), ("messages", ())):
    with pytest.raises(InputError, match=name):
      dataclasses.replace(ask(), **{name: wrong})


def test_prices_are_given_or_listed():
  pytest.importorskip("genai_prices")

  def listed(model, **changes):
    free = {"input_usd_per_million": None, "output_usd_per_million": None}
    return prices.find(configure(**{"model": model, **free, **changes}))

  price = listed("gpt-4o-mini")
  assert (price.input, price.output, price.tiers) == (150_000, 600_000, ())
  assert price.source.startswith("genai-prices ")
  assert listed("gpt-4o-mini", url="https://api.openai.com/v1") == price
  assert prices.find(configure()) == Price("given", 150_000, 600_000)
  assert price.cost(1_000_000, 500_000) == prices.picodollars(0.45)
  for model in ("gpt-4o-mini-2099-01-01", "llama"):
    with pytest.raises(InputError, match=f"no price is known for '{model}'"):
      listed(model)
  with pytest.raises(InputError, match="both or neither"):
    prices.find(configure(output_usd_per_million=None))


def test_long_prompts_and_batches_have_their_price_and_caps_are_rounded_down():
  assert prices.picodollars(1.0000000000019) == 10**12 + 1
  price = Price("t", 37_501, 4, ((1000, 50_001, 8),))
  assert price.cost(1000, 1) == 37_501_004
  assert price.cost(1001, 1) == 1001 * 50_001 + 8
  assert price.batch() == Price("t, batch", 18_751, 2, ((1000, 25_001, 4),))


@pytest.mark.parametrize(
  ("amount", "text", "short"),
  [
    (0, "$0.000000", "0"),
    (1, "$0.000001", "0.000000000001"),
    (2_340_000_000, "$0.002340", "0.0024"),
    (12_345_678_900_000, "$12.3457", "13"),
    (1_234_567_000_000_000, "$1,234.57", "1300"),
  ],
)
def test_text_is_never_below_the_amount(amount, text, short):
  assert prices.text(amount) == text
  assert prices.round_up(amount) == short
