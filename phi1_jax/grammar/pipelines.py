"""Pipelines: filter, change and aggregate the elements of a source."""

import functools
import random
from collections.abc import Sequence
from typing import Any

from phi1_jax.grammar import pipeline_code, pipeline_frames, plan
from phi1_jax.grammar.draft import Draft
from phi1_jax.grammar.draws import chance, pick
from phi1_jax.grammar.phrases import Phrases
from phi1_jax.grammar.pipeline_frames import Frame
from phi1_jax.grammar.plan import Plan
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.wording import asked

_VERBS = ("get", "compute", "calculate", "find", "determine")


def draft(rng: random.Random, gate: Gate) -> Draft | None:
  """Thinks out and words a pipeline; None where it is not for this tier."""
  task = plan.draw(rng, gate.longer)
  return task and worded(task, rng, gate)


def worded(task: Plan, rng: random.Random, gate: Gate) -> Draft | None:
  """Words a plan and writes its solution; None where it is not for this tier."""
  if not gate.composition(task.composition):
    return None
  frames = _frames(task.chain, gate)
  if not frames:
    return None
  frame = pick(rng, frames)
  phrases = Phrases(task, rng)
  prose = asked(frame.template.format_map(phrases))
  if chance(rng, task.aggregate.row.states):
    say = pipeline_frames.EMPTY if phrases.filters else EMPTY_PLAIN
    prose += ("\n\n" if "\n" in prose else " ") + pick(rng, say).format_map(phrases)
  lines, imports = pipeline_code.body(rng, task)
  return Draft(
    composition=task.composition,
    family=task.setting.family,
    frame=frame.id,
    prose=prose,
    arguments=task.setting.arguments,
    returns=task.aggregate.returns(task.kind),
    answer=phrases.short(),
    body=lines,
    name=lambda rng: name(rng, task),
    inputs=lambda rng, count: inputs(rng, task, count),
    imports=imports,
  )


EMPTY_PLAIN = pipeline_frames.EMPTY_WITHOUT_FILTER


@functools.cache
def _frames(chain: str, gate: Gate) -> list[Frame]:
  """The wordings of a tier that can say a chain."""
  return [
    frame
    for frame in pipeline_frames.TABLE
    if frame.chains.fullmatch(chain) and gate.frame(frame.id)
  ]


def inputs(rng: random.Random, task: Plan, count: int) -> Sequence[Sequence[Any]]:
  """Arguments to try a pipeline on."""
  return task.setting.inputs(rng, task.hot, count)


def name(rng: random.Random, task: Plan) -> str:
  """A function name that is put together from the parts: "sum_of_even_squares"."""
  head = task.aggregate.name_piece(rng)
  before, adjectives, after = [], [], []
  for stage in task.stages:
    piece = stage.name_piece(rng)
    if not piece:
      continue
    if piece[0] == "-" or (piece[0] == "+" and stage.part.role == "filter"):
      after.append(piece[1:])
    elif piece[0] == "+":
      before.insert(0, piece[1:])
    else:
      adjectives.insert(0, piece)
  noun = task.setting.noun.many.replace(" ", "_")
  if adjectives and chance(rng, 0.12):
    noun = ""
  if not chance(rng, 0.85):
    after = after[:1]
  middle = [*before, *adjectives, noun]
  if head.endswith("_of") and chance(rng, 0.25):
    pieces = [*middle, *after, head[:-3]]
  else:
    pieces = [head, *middle, *after]
  if head.endswith("_of") and chance(rng, 0.2):
    pieces.insert(0, pick(rng, _VERBS))
  elif chance(rng, 0.1):
    pieces.append(f"in_{task.setting.holder}" if task.setting.holder else "only")
  return "_".join(filter(None, pieces))
