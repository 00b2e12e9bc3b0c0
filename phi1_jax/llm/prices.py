"""What tokens cost, in whole picodollars: money is never a float here.

A million tokens for $0.15 is 150,000 picodollars (1e-12 $) a token, so list prices are
whole numbers, and sums of them are exact.
"""

import dataclasses
import decimal
from decimal import Decimal

from phi1_jax import InputError
from phi1_jax.llm.config import LlmConfig

PICODOLLARS = 10**12
_TOKENS = 10**6  # that a price is quoted for

# OpenAI's list prices of plain text, $ per million tokens (input, output); the journal
# keeps the name of the table beside each cost. The discount on cached prompts is left
# out: what is recorded is never less than the invoice.
TABLE_NAME = "openai-list-2025-09"
TABLE = {
  "gpt-3.5-turbo": ("0.50", "1.50"),
  "gpt-3.5-turbo-0125": ("0.50", "1.50"),
  "gpt-4": ("30", "60"),
  "gpt-4-0613": ("30", "60"),
  "gpt-4-turbo": ("10", "30"),
  "gpt-4-turbo-2024-04-09": ("10", "30"),
  "gpt-4o": ("2.50", "10"),
  "gpt-4o-2024-08-06": ("2.50", "10"),
  "gpt-4o-2024-11-20": ("2.50", "10"),
  "gpt-4o-mini": ("0.15", "0.60"),
  "gpt-4o-mini-2024-07-18": ("0.15", "0.60"),
  "gpt-4.1": ("2", "8"),
  "gpt-4.1-2025-04-14": ("2", "8"),
  "gpt-4.1-mini": ("0.40", "1.60"),
  "gpt-4.1-mini-2025-04-14": ("0.40", "1.60"),
  "gpt-4.1-nano": ("0.10", "0.40"),
  "gpt-4.1-nano-2025-04-14": ("0.10", "0.40"),
  "gpt-5": ("1.25", "10"),
  "gpt-5-2025-08-07": ("1.25", "10"),
  "gpt-5-mini": ("0.25", "2"),
  "gpt-5-mini-2025-08-07": ("0.25", "2"),
  "gpt-5-nano": ("0.05", "0.40"),
  "gpt-5-nano-2025-08-07": ("0.05", "0.40"),
  "o3": ("2", "8"),
  "o3-mini": ("1.10", "4.40"),
  "o4-mini": ("1.10", "4.40"),
}


@dataclasses.dataclass(frozen=True)
class Price:
  """What a token costs.

  Attributes:
    table: where the numbers are from: a table's name, or "given".
    input: picodollars for a token of the prompt.
    output: picodollars for a token of the reply.
  """

  table: str
  input: int
  output: int

  def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
    """Picodollars for so many tokens."""
    return self.input * prompt_tokens + self.output * completion_tokens

  def batch(self) -> "Price":
    """What the Batch API takes: half, and the odd picodollar rounded up."""
    half = (-(-self.input // 2), -(-self.output // 2))
    return Price(f"{self.table}, batch", *half)


def find(config: LlmConfig) -> Price:
  """The price that a configuration names, or that the table has; not the batch price.

  Raises:
    InputError: the table does not have the model, or only one price is given.
  """
  given = config.input_usd_per_million, config.output_usd_per_million
  if None not in given:
    return Price("given", *(_per_token(str(dollars)) for dollars in given))
  if given != (None, None):
    raise InputError(
      f"Llm.input_usd_per_million, Llm.output_usd_per_million: got {given[0]} and "
      f"{given[1]}, expected both or neither"
    )
  if config.model in TABLE:
    return Price(TABLE_NAME, *(_per_token(text) for text in TABLE[config.model]))
  raise InputError(
    f"Llm.model: no price is known for {config.model!r}, so no budget can be kept\n"
    "set Llm.input_usd_per_million and Llm.output_usd_per_million (0.0 for a server of "
    "your own)"
  )


def picodollars(dollars: float) -> int:
  """An amount as its shortest decimal reads, below a picodollar rounded down."""
  amount = Decimal(str(dollars)) * PICODOLLARS
  return int(amount.to_integral_value(decimal.ROUND_FLOOR))


def text(amount: int) -> str:
  """Picodollars for people, rounded up: $12.34, and small sums with more digits."""
  digits = 2 if amount >= 100 * PICODOLLARS else 4 if amount >= 10**10 else 6
  unit = 10 ** (12 - digits)
  units = -(-amount // unit)
  return f"${units // 10**digits:,}.{units % 10**digits:0{digits}d}"


def round_up(amount: int) -> str:
  """An amount of dollars as a short number that is not below it: 0.0023, 12, 350."""
  unit = 10 ** max(0, len(str(amount)) - 2)
  return f"{Decimal(-(-amount // unit) * unit) / PICODOLLARS:f}"


def _per_token(dollars_per_million: str) -> int:
  amount = Decimal(dollars_per_million) * (PICODOLLARS // _TOKENS)
  return int(amount.to_integral_value(decimal.ROUND_CEILING))
