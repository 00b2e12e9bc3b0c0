"""Rules that decide from evidence whether a document is too close to a benchmark.

Four signals of one document and one problem, none of which is proof by itself:

  lines   the solution's body stands there, line by line
  words   runs of words in common with the problem's text, and with its solution
  shape   AST match rate of the closest function
  vector  distance of the closest function's embedding

The rules; the first that holds is the reason.

  exact solution        its lines are there, and it is neither short nor generic
  text                  half of the text's runs of 13 words are there and at least 3, or
                        all of a text of 8 words or more
  solution words        half of the solution's runs and at least 3; it is not generic
  AST                   a match of tau or more with a function that is neither short nor
                        generic (idioms.txt); below 24 tokens also the same name, or
                        half of the text's phrases
  short, AST and words  an almost equal function that is short, with the same name or
                        half of the text's phrases; or generic, with the phrases
  AST and words         a match of 0.85 and the same name; or of 0.7, and half of the
                        text's phrases, or embeddings within the distance given

A document that no rule convicts is kept, with its strongest signals noted. The numbers
are from benchmarks/decontamination.py, which measures finds and mistakes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from phi1_jax.curation.document import Decision, Document, Drop, Keep

STAGE = "decontaminate"
# Functions of fewer tokens are short. Of pairs of a problem from 15 tokens on and a
# library function, 1 in 10,000 matches by 0.73 or more; of shorter ones, by 0.89.
SHORT_TOKENS = 15
# From here on a match convicts without the same name or words: functions of 15 to 23
# tokens are idioms that two people write alike.
ALONE_TOKENS = 24
SHORT_MATCH, SHORT_WORDS = 0.95, 13
# No module of the standard library has a run of 13 words of any problem's text.
HALF, LEAST_RUNS, WHOLE_WORDS = 0.5, 3, 8
# Match rates that count if the words match, or the name alone: names such as
# `merge_sort` are everybody's, and two such functions match by 0.75.
SUPPORTED, NAMED = 0.7, 0.85
NOTED = 5
REASONS = ("exact solution", "text", "solution words", "AST", "short, AST and words")
REASONS += ("AST and words",)


@dataclasses.dataclass(frozen=True)
class Evidence:
  """Facts that a document and a problem have in common."""

  problem: str  # its id
  exact: bool = False  # whether the solution's lines are there
  text: float = 0.0  # share of the text's runs of words that are there
  text_runs: int = 0  # number of them
  # Share of the text's runs of 4 words; supports a match, proves nothing.
  phrases: float = 0.0
  solution: float = 0.0  # share of the solution's runs
  solution_runs: int = 0
  # AST match rate of the closest function; below the least that matters, 0.
  match: float = 0.0
  function: str = ""  # its name
  same_name: bool = False  # whether that function is called like the problem's
  distance: float | None = None  # L2, of the closest embeddings, where known
  # Tokens of the problem's function that it matches, in the shorter form.
  tokens: int = 0
  generic_match: bool = False  # whether that function is what anybody writes
  words: int = 0  # of the body of the problem's solution
  text_words: int = 0
  generic: bool = False  # whether all of its solution is what anybody writes

  def strength(self) -> tuple[float, ...]:
    """Return a key that sorts evidence."""
    return (self.exact, max(self.match, self.text, self.solution), self.match)

  def record(self) -> dict[str, Any]:
    """Return the evidence as JSON, without empty fields."""
    return {
      name: round(value, 4) if isinstance(value, float) else value
      for name, value in dataclasses.asdict(self).items()
      if value not in (None, "", 0, False)
    }


def reason(found: Evidence, tau: float) -> str | None:
  """Return why the document goes because of this problem; None if it stays."""
  if found.exact and found.words >= SHORT_WORDS and not found.generic:
    return "exact solution"
  whole = found.text == 1.0 and found.text_words >= WHOLE_WORDS
  if whole or (found.text >= HALF and found.text_runs >= LEAST_RUNS):
    return "text"
  if found.solution >= HALF and found.solution_runs >= LEAST_RUNS and not found.generic:
    return "solution words"
  telling = found.tokens >= SHORT_TOKENS and not found.generic_match
  worded = max(found.text, found.phrases) >= HALF or found.distance is not None
  specific = found.tokens >= ALONE_TOKENS or found.same_name or worded
  if telling and specific and found.match >= tau:
    return "AST"
  if not worded and (found.generic_match or not found.same_name):
    return None
  if found.match >= max(tau, SHORT_MATCH):
    return "short, AST and words"
  if telling and found.match >= min(tau, SUPPORTED if worded else NAMED):
    return "AST and words"
  return None


def decide(document: Document, evidence: Sequence[Evidence], tau: float) -> Decision:
  """Drop a document that any problem convicts; note the evidence of the others."""
  ordered = sorted(evidence, key=lambda e: e.problem)
  ordered.sort(key=Evidence.strength, reverse=True)
  convicted = [(e, why) for e in ordered if (why := reason(e, tau))]
  if not convicted:
    looked_at = [found.record() for found in ordered[:NOTED]]
    facts = {"tau": tau, "looked_at": looked_at, "candidates": len(ordered)}
    return Keep(document.noted(STAGE, facts))
  pairs: list[dict[str, Any]] = []
  for found, why in convicted:  # the strongest, and of every other reason the strongest
    if len(pairs) < NOTED or why not in {pair["reason"] for pair in pairs}:
      pairs.append({**found.record(), "reason": why})
  problems = sorted({found.problem for found, _ in convicted})
  facts = {"tau": tau, "problems": problems, "pairs": pairs}
  return Drop(document, convicted[0][1], facts)
