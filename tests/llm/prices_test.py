import pytest

from phi1_jax import InputError
from phi1_jax.llm import prices
from phi1_jax.llm.prices import Price


def listed(configure, model):
  return configure(model=model, input_usd_per_million=None, output_usd_per_million=None)


def test_table_and_given_prices_are_whole_picodollars(configure):
  price = prices.find(listed(configure, "gpt-4o-mini"))
  assert price == Price(prices.TABLE_NAME, 150_000, 600_000)
  assert prices.find(configure()) == Price("given", 150_000, 600_000)
  assert price.cost(1_000_000, 500_000) == prices.picodollars(0.45)


@pytest.mark.parametrize("model", ["gpt-4o-mini-2099-01-01", "GPT-4o-mini", "llama"])
def test_an_unknown_price_is_refused_by_name(configure, model):
  with pytest.raises(InputError, match=f"no price is known for '{model}'"):
    prices.find(listed(configure, model))


def test_one_price_alone_is_refused(configure):
  with pytest.raises(InputError, match="both or neither"):
    prices.find(configure(output_usd_per_million=None))


def test_the_batch_price_is_half_rounded_up():
  assert Price("t", 37_501, 4).batch() == Price("t, batch", 18_751, 2)


def test_every_listed_price_is_exact_and_halves_exactly():
  for model, texts in prices.TABLE.items():
    for text in texts:
      assert prices.picodollars(float(text)) % (2 * 10**6) == 0, model


def test_a_cap_is_never_rounded_up():
  assert prices.picodollars(0.1) == 10**11
  assert prices.picodollars(1e-13) == 0
  assert prices.picodollars(1.0000000000019) == 10**12 + 1


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
