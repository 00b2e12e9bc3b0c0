"""The rows of all the tables of specials, each as likely as the others."""

import random

from phi1_jax.grammar import (
  special,
  special_collections,
  special_numbers,
  special_texts,
)
from phi1_jax.grammar.draft import Draft
from phi1_jax.grammar.draws import pick
from phi1_jax.grammar.reserve import Gate

ROWS = (*special_texts.TABLE, *special_numbers.TABLE, *special_collections.TABLE)


def draft(rng: random.Random, gate: Gate) -> Draft | None:
  """A task that is not put together from parts."""
  return special.draft(rng, gate, pick(rng, ROWS))
