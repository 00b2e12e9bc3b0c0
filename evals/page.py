"""The report as one HTML file that needs nothing else: no server, no network.

The data goes in as JSON, and evals/assets/page.js draws it. Everything a model wrote
is shown as text: it never becomes markup.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ASSETS = Path(__file__).parent / "assets"


def render(data: Mapping[str, Any]) -> str:
  """The page for the data of evals/report.py."""
  # Inside a script element only these could end it or start a comment.
  content = json.dumps(data, allow_nan=False, separators=(",", ":"))
  for character in "<>&":
    content = content.replace(character, f"\\u{ord(character):04x}")
  page = (_ASSETS / "page.html").read_text(encoding="utf-8")
  parts = {
    "/* page.css */": (_ASSETS / "page.css").read_text(encoding="utf-8"),
    "/* page.js */": (_ASSETS / "page.js").read_text(encoding="utf-8"),
    "/* data */": content,
  }
  for place, part in parts.items():
    before, found, after = page.partition(place)
    assert found, place
    page = before + part + after
  return page
