"""Cards: stats in Markdown, from the templates stage.md.j2 and set.md.j2."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2


def of_stage(stats: Mapping[str, Any]) -> str:
  """Return the card of a stage's folder, of what its stats.json holds."""
  return _render("stage.md.j2", stats=stats, before=flat(stats.get("lineage") or []))


def of_set(
  name: str,
  version: str,
  counts: Mapping[str, Any],
  lineage: Sequence[Mapping[str, Any]],
  published: int,
) -> str:
  """Return a data set's card: its documents, and every stage they went through.

  `counts` is `Tally.stats`, `lineage` the stats of the stages among the inputs, and
  `published` the number of all inputs.
  """
  passed = [
    s for s in flat(lineage) if any(k in s.get("kinds", {}) for k in counts["kinds"])
  ]
  models = dict.fromkeys(m for stage in passed for m in stage.get("models") or [])
  searched = [
    {name: stage["settings"]["tau"] for name in stage["settings"]["benchmarks"]}
    for stage in lineage
    if stage["stage"] == "decontaminate"
  ]
  # The benchmarks that every input was searched for.
  common = set.intersection(*map(set, searched)) if len(searched) >= published else ()
  taus = {name: max(each[name] for each in searched) for name in sorted(common)}
  facts = {"counts": counts, "models": list(models), "passed": passed, "taus": taus}
  return _render("set.md.j2", name=name, version=version, **facts)


def flat(lineage: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
  """Return every stage that a set comes from, once, first ones first."""
  found: dict[str, Mapping[str, Any]] = {}
  for stage in lineage:
    for each in (*flat(stage.get("lineage") or []), stage):
      found.setdefault(f"{each['stage']} {each.get('settings')}", each)
  return list(found.values())


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """Return a Markdown table."""
  lines = [head, ["---"] * len(head), *rows]
  return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _render(template: str, **facts: Any) -> str:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters["n"] = "{:,}".format
  return environment.get_template(template).render(table=table, **facts)
