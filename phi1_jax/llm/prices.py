"""Prices of tokens in whole picodollars (1e-12 $), so that sums are exact.

List prices come from the package genai-prices, which reads no network.
"""

import dataclasses
import datetime
import decimal
import importlib
import importlib.metadata
from decimal import Decimal
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm.config import LlmConfig

PICODOLLARS = 10**12
_TOKENS = 10**6  # that a price is quoted for


@dataclasses.dataclass(frozen=True)
class Price:
  """The price of a token."""

  source: str  # where the numbers come from: a package and its version, or "given"
  input: int  # picodollars for a token of the prompt
  output: int  # picodollars for a token of the reply
  # (tokens, input, output): a prompt with more tokens than that costs this.
  tiers: tuple[tuple[int, int, int], ...] = ()

  def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
    """Return the picodollars for so many tokens."""
    prices = self.input, self.output
    for start, *tier in self.tiers:
      if prompt_tokens > start:
        prices = tuple(tier)
    return prices[0] * prompt_tokens + prices[1] * completion_tokens

  def batch(self) -> "Price":
    """Return the price of the Batch API: half, rounded up."""
    tiers = tuple((start, -(-a // 2), -(-b // 2)) for start, a, b in self.tiers)
    return Price(
      f"{self.source}, batch", -(-self.input // 2), -(-self.output // 2), tiers
    )


def find(config: LlmConfig) -> Price:
  """Return the price that the settings give, or else the list price; never batch's.

  Raises:
    InputError: the model's list price is unknown, or only one price is given.
  """
  given = config.input_usd_per_million, config.output_usd_per_million
  if None not in given:
    a, b = (_per_token(Decimal(str(dollars))) for dollars in given)
    return Price("given", a, b)
  if given != (None, None):
    raise InputError(
      f"Llm.input_usd_per_million, Llm.output_usd_per_million: got {given[0]} and "
      f"{given[1]}, expected both or neither"
    )
  try:
    return _listed(config)
  except ImportError:
    reason = "list prices need the package genai-prices (extra llm)"
  except (LookupError, AttributeError):
    reason = f"no price is known for {config.model!r}"
  raise InputError(
    f"Llm.model: {reason}, so no budget can be kept\nset Llm.input_usd_per_million and "
    "Llm.output_usd_per_million (0.0 for your own server)"
  )


def _listed(config: LlmConfig) -> Price:
  """Return the list price, without the discount on cached prompts.

  Raises:
    ImportError: the package is not installed.
    LookupError, AttributeError: the model is unknown, or not one for text.
  """
  snapshot = importlib.import_module("genai_prices.data_snapshot").get_snapshot()
  try:
    provider = snapshot.find_provider(None, None, config.base_url)
  except LookupError:  # a proxy: the name of the model decides
    provider = None
  _, model = snapshot.find_provider_model(config.model, provider, None, None)
  tier = (config.extra or {}).get("service_tier")
  now = datetime.datetime.now(datetime.UTC)
  found = model.get_prices(now, {"service_tier": tier} if tier else None)
  kinds = [found.input_mtok, found.output_mtok]
  # What is written to a cache may be dearer than other tokens of the prompt.
  written = getattr(found, "cache_write_mtok", None) or found.input_mtok
  starts = {tier.start for kind in kinds for tier in getattr(kind, "tiers", ())}
  rows = [
    (start, max(_at(kinds[0], start), _at(written, start)), _at(kinds[1], start))
    for start in (0, *sorted(starts))
  ]
  source = f"genai-prices {importlib.metadata.version('genai-prices')}"
  return Price(source, *rows[0][1:], tiers=tuple(rows[1:]))


def _at(price: Any, start: int) -> int:
  """Return the price of a token of a prompt with more than so many."""
  found = getattr(price, "base", price)
  for tier in getattr(price, "tiers", ()):
    found = tier.price if tier.start <= start else found
  if found is None:
    raise AttributeError("not a model for text")
  return _per_token(found)


def picodollars(dollars: float) -> int:
  """Return an amount in picodollars, rounded down."""
  amount = Decimal(str(dollars)) * PICODOLLARS
  return int(amount.to_integral_value(decimal.ROUND_FLOOR))


def text(amount: int) -> str:
  """Return picodollars for people, rounded up: $12.34; small sums with more digits."""
  digits = 2 if amount >= 100 * PICODOLLARS else 4 if amount >= 10**10 else 6
  unit = 10 ** (12 - digits)
  units = -(-amount // unit)
  return f"${units // 10**digits:,}.{units % 10**digits:0{digits}d}"


def round_up(amount: int) -> str:
  """Return dollars as a short number that is not below the amount: 0.0023, 12, 350."""
  unit = 10 ** max(0, len(str(amount)) - 2)
  return f"{Decimal(-(-amount // unit) * unit) / PICODOLLARS:f}"


def _per_token(dollars_per_million: Decimal) -> int:
  amount = dollars_per_million * (PICODOLLARS // _TOKENS)
  return int(amount.to_integral_value(decimal.ROUND_CEILING))
