"""The commands of README.md and docs/: their files exist, their flags are known."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from phi1_jax.cli import gin_config
from phi1_jax.cli.command import Parser
from phi1_jax.training.setup import CONFIGURABLES

ROOT = Path(__file__).parents[1]
PAGES = sorted(
  [*ROOT.glob("*.md"), ROOT / "tpu" / "README.md", *ROOT.glob("docs/**/*.md")]
)


_COMMANDS = "train|prepare|compile|sample|curate|serve"


def commands():
  """(page, words) of each command line of ours in a block of code."""
  for page in PAGES:
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
      for line in block.replace("\\\n", " ").splitlines():
        if found := re.search(
          rf"python -m (evals|phi1_jax\.(?:{_COMMANDS})) (.*)", line
        ):
          words = shlex.split(found[2].replace("$'", "'"), comments=True)
          yield pytest.param(found[1], words, id=f"{page.name}: {found[0][:60]}")


@pytest.mark.parametrize(("module", "words"), list(commands()))
def test_a_command_of_the_pages(module, words, monkeypatch):
  """It gets as far as its own work: flags and gin bindings are accepted."""
  parsed = []

  class ParsedError(Exception):
    pass

  def parse(self, argv):
    parsed.append(original(self, argv))
    raise ParsedError

  original = Parser.parse
  monkeypatch.setattr(Parser, "parse", parse)
  name = "evals.__main__" if module == "evals" else module
  with pytest.raises(ParsedError):
    importlib.import_module(name).main(words)
  (arguments,) = parsed
  if module in ("phi1_jax.train", "phi1_jax.compile"):
    bindings = arguments.gin_bindings
    assert gin_config.load(arguments.gin_files, bindings, CONFIGURABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
  assert [link for link in links if not (page.parent / link).exists()] == []
