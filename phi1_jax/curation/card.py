"""Cards: stats in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def of_stage(stats: Mapping[str, Any]) -> str:
  """Return the card of a stage's folder.

  Args:
    stats: what its stats.json holds.
  """
  parts = [f"# {stats['stage']}\n", *_sections(stats)]
  lineage = stats.get("lineage") or []
  if lineage:
    rows = [
      (stage["stage"], f"{stage.get('read', 0):,}", f"{stage.get('kept', 0):,}")
      for stage in flat(lineage)
    ]
    parts.append("## Stages before\n\n" + table(("stage", "read", "kept"), rows))
  return "\n".join(parts)


def flat(lineage: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
  """Return every stage that a set comes from, once, first ones first."""
  found: dict[str, Mapping[str, Any]] = {}

  def visit(stage: Mapping[str, Any]) -> None:
    for earlier in stage.get("lineage") or []:
      visit(earlier)
    name = f"{stage['stage']} {stage.get('settings')}"
    found.setdefault(name, stage)

  for stage in lineage:
    visit(stage)
  return list(found.values())


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """Return a Markdown table."""
  lines = [head, ["---"] * len(head), *rows]
  return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _sections(stats: Mapping[str, Any]) -> Iterable[str]:
  """Yield the sections of a card; absent figures have none."""
  if "read" in stats:
    dropped = [(reason, f"{count:,}") for reason, count in stats["dropped"].items()]
    yield f"Read {stats['read']:,} documents, kept {stats['kept']:,}.\n"
    if dropped:
      yield table(("dropped because", "documents"), dropped)
    sources = [
      (name, f"{counts['read']:,}", f"{counts['kept']:,}")
      for name, counts in stats["sources"].items()
    ]
    yield table(("source", "read", "kept"), sources)
    licences = [(name, f"{count:,}") for name, count in stats["licences"].items()]
    yield table(("licence", "documents"), licences)
  if "maximum_loss" in stats:
    losses = stats["losses"]
    shares = [(name, f"{c['dropped'] / c['read']:.1%}") for name, c in losses.items()]
    yield f"No source may lose more than {stats['maximum_loss']:.0%} to duplicates.\n"
    yield table(("source", "duplicates"), shares)
  for model in stats.get("models") or []:
    yield f"Made or judged by: {model}\n"
  if cost := stats.get("cost"):
    yield "## Cost\n\n" + table(("figure", "value"), cost.items())
  if diversity := stats.get("diversity"):
    yield "## Diversity\n\n" + table(("figure", "value"), diversity.items())
  for prompt in stats.get("prompts") or []:
    title = f"## Prompt {prompt['id']}, version {prompt['version']}\n\n"
    yield title + "".join(f"    {line}\n" for line in prompt["text"].splitlines())
  if scores := stats.get("scores"):
    yield "## Scores\n\n" + table(("score, rounded", "documents"), scores.items())
  if agreement := stats.get("second_pass"):
    yield "## Second pass\n\n" + table(("figure", "value"), agreement.items())
  # What was read is in stats.json: sizes and digests are nothing to look at.
  settings = {k: v for k, v in stats["settings"].items() if k != "read"}
  yield "## Settings\n\n" + table(("name", "value"), settings.items())
