"""A page of blocks: everything is text, and both renderings say the same."""

import xml.etree.ElementTree as ElementTree

from evals.study import document
from evals.study.document import Code, Figure, Heading, Points, Table, Text

BLOCKS = [
  Heading("A <b>title</b>", 1),
  Text("Some `code` and **weight** & more."),
  Points(["one", "two <script>"]),
  Table(["a", "b|c"], [["1", "2 < 3"]]),
  Figure("plot", "<?xml version='1.0'?>\n<svg><text>x</text></svg>", "What it shows."),
  Code("if a < b:\n    return '</pre>'\n"),
]


def test_html_is_well_formed_and_nothing_in_it_is_markup():
  page = document.to_html(BLOCKS)
  head, _, body = page.partition("<body>")
  ElementTree.fromstring("<body>" + body.removesuffix("</html>\n"))
  assert "<title>A &lt;b&gt;title&lt;/b&gt;</title>" in head
  assert "<code>code</code> and <strong>weight</strong> &amp; more" in body
  assert "<script" not in page
  assert "'&lt;/pre&gt;'" in body or "&#x27;&lt;/pre&gt;&#x27;" in body
  assert "<?xml" not in page


def test_markdown_has_the_same_parts():
  text = document.to_markdown(BLOCKS, "figures")
  assert "# A <b>title</b>\n" in text
  assert "| a | b\\|c |\n| --- | --- |\n| 1 | 2 < 3 |" in text
  assert "![What it shows.](figures/plot.svg)" in text
  assert "```\nif a < b:\n    return '</pre>'\n```" in text


def test_files_lie_side_by_side(tmp_path):
  paths = document.write(BLOCKS, tmp_path, "page")
  assert [path.name for path in paths] == ["page.html", "page.md"]
  assert (tmp_path / "page_figures" / "plot.svg").read_text().endswith("</svg>")
  assert "page_figures/plot.svg" in paths[1].read_text()
