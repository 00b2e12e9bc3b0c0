"""A page as blocks, written as one HTML file and as Markdown with figures beside it."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Sequence

from phi1_jax import storage
from phi1_jax.storage import AnyPath

_STYLE = """
:root { color-scheme: light; --ink: #1c2024; --soft: #5b6570; --line: #d8dde3;
  --shade: #f5f7f9; }
body { margin: 0 auto; max-width: 1040px; padding: 0 24px 64px; color: var(--ink);
  background: #fff; font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 28px; margin: 36px 0 8px; }
h2 { font-size: 20px; margin: 44px 0 8px; }
p, li { max-width: 76ch; }
figure { margin: 18px 0; }
figure svg { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 14px; max-width: 76ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: 5px 16px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 6px;
  padding: 10px 12px; overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; }
code { font: 0.92em ui-monospace, monospace; background: var(--shade); }
"""


@dataclasses.dataclass(frozen=True)
class Heading:
  """A heading of a section; the first one of a page is its title."""

  text: str
  level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
  """A paragraph; `code` and **strong** stand in it as in Markdown."""

  text: str


@dataclasses.dataclass(frozen=True)
class Points:
  """A list of points."""

  points: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of texts."""

  head: Sequence[str]
  rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture.

  Attributes:
    name: of its file, without suffix.
    svg: the picture.
    caption: what it shows.
  """

  name: str
  svg: str
  caption: str


@dataclasses.dataclass(frozen=True)
class Code:
  """Text as it stands."""

  text: str


Block = Heading | Text | Points | Table | Figure | Code


def write(blocks: Sequence[Block], folder: AnyPath, name: str) -> list[AnyPath]:
  """Writes NAME.html, which needs nothing else, and NAME.md with NAME_figures/."""
  page, notes = folder / f"{name}.html", folder / f"{name}.md"
  figures = folder / f"{name}_figures"
  figures.mkdir(exist_ok=True)
  for block in blocks:
    if isinstance(block, Figure):
      storage.write_text(figures / f"{block.name}.svg", block.svg)
  storage.write_text(page, to_html(blocks))
  storage.write_text(notes, to_markdown(blocks, figures.name))
  return [page, notes]


def to_html(blocks: Sequence[Block]) -> str:
  """The page; everything in it is text, whoever wrote it."""
  title = next((b.text for b in blocks if isinstance(b, Heading)), "")
  body = "\n".join(map(_html, blocks))
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
    f"<body>\n{body}\n</body>\n</html>\n"
  )


def _html(block: Block) -> str:
  match block:
    case Heading(text, level):
      return f"<h{level}>{_inline(text)}</h{level}>"
    case Text(text):
      return f"<p>{_inline(text)}</p>"
    case Points(points):
      return "<ul>" + "".join(f"<li>{_inline(p)}</li>" for p in points) + "</ul>"
    case Table(head, rows):
      cells = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
      lines = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
      )
      return f'<div class="wide"><table><tr>{cells}</tr>{lines}</table></div>'
    case Figure(_, svg, caption):
      start = svg.index("<svg")
      return (
        f"<figure>{svg[start:]}<figcaption>{_inline(caption)}</figcaption></figure>"
      )
    case Code(text):
      return f"<pre>{html.escape(text)}</pre>"


def _inline(text: str) -> str:
  escaped = html.escape(text, quote=False)
  escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
  return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


def to_markdown(blocks: Sequence[Block], figures: str) -> str:
  """The same as Markdown.

  Args:
    blocks: of the page.
    figures: folder of the figures, as seen from the file.
  """
  return "\n\n".join(_markdown(block, figures) for block in blocks) + "\n"


def _markdown(block: Block, figures: str) -> str:
  match block:
    case Heading(text, level):
      return f"{'#' * level} {text}"
    case Text(text):
      return text
    case Points(points):
      return "\n".join(f"- {point}" for point in points)
    case Table(head, rows):
      lines = [head, ["---"] * len(head), *rows]
      cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
      return "\n".join(f"| {' | '.join(line)} |" for line in cells)
    case Figure(name, _, caption):
      return f"![{caption}]({figures}/{name}.svg)\n\n*{caption}*"
    case Code(text):
      return f"```\n{text.rstrip()}\n```"
