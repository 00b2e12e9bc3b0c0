"""Pages: one HTML file each, which needs no server, no network and no other file."""

from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = jinja2.Environment(
  loader=jinja2.FileSystemLoader(Path(__file__).parent / "assets"),
  autoescape=True,  # completions may hold HTML
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"allow_nan": False}


def render(template: str, filters: dict[str, Any] | None = None, **values: Any) -> str:
  """Return the page of a template in evals/assets.

  Args:
    template: its file name.
    filters: functions that the template uses as filters.
    values: variables of the template.
  """
  environment = _TEMPLATES.overlay()
  environment.filters = environment.filters | (filters or {})
  return environment.get_template(template).render(values)
