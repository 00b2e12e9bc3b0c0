"""The commands of README.md and docs/: files exist, flags are known, some are run."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from phi1_jax.cli import gin_config
from phi1_jax.cli.command import Parser
from phi1_jax.model.config import ModelConfig
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.training.setup import CONFIGURABLES

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), ROOT / "tpu" / "README.md", *ROOT.glob("docs/**/*.md")]
PAGES.sort()
_COMMANDS = "train|prepare|compile|sample|curate|serve"
_COMMAND = re.compile(rf"python -m (evals|phi1_jax\.(?:{_COMMANDS})) (.*)")


def commands():
  """(page, words) of each command line of ours in a block of code."""
  for page in PAGES:
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
      for line in block.replace("\\\n", " ").splitlines():
        if found := _COMMAND.search(line):
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


def test_finetuning_on_prompts_and_completions(
  tmp_path, monkeypatch, capsys, random_phi
):
  """The commands of docs/data.md, on a tiny model in place of phi-1."""
  monkeypatch.chdir(tmp_path)
  config = ModelConfig(320, 2, 4, 8, 4, 32, 64, 512)
  phi, sizes = Path("models/phi-1"), {**config.shape(), "max_length": 512}
  phi.mkdir(parents=True)
  tokenizer = tokenizers.train(["def add(x, y):\n    return x + y\n"] * 2, 300)
  random_phi(phi, config, tokenizer, scale=0.02)
  # A file of one's own comes before the recipe of the same name.
  Path("gin/models").mkdir(parents=True)
  lines = [f"Model.{name} = {value!r}\n" for name, value in sizes.items()]
  Path("gin/models/phi1.gin").write_text("".join(lines))
  rows = [
    {"prompt": f"def add{i}(x, y):\n", "completion": f"    return x + {i} * y\n"}
    for i in range(400)
  ]
  Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  page = (ROOT / "docs" / "data.md").read_text()
  section = page.partition("## Finetuning on prompts and completions")[2]
  for line in re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1].splitlines():
    python, flag, module, *words = shlex.split(line)
    assert (python, flag) == ("python", "-m")
    if module == "phi1_jax.train":  # as written, but for its length
      words += ["--gin.SEQUENCE_LENGTH=64", "--gin.TOTAL_STEPS=20"]
      words += ["--gin.Train.evaluate_every=10", "--gin.PEAK_LEARNING_RATE=1e-3"]
    capsys.readouterr()
    assert importlib.import_module(module).main(words) == 0
  manifest = json.loads(Path("stores/files/manifest.json").read_bytes())
  assert manifest["documents"] == len(rows)
  assert manifest["loss_on"] == "completions"
  records = Path("runs/files_mine/metrics.jsonl").read_text().splitlines()
  losses = [row["eval/loss"] for row in map(json.loads, records) if "eval/loss" in row]
  assert losses[-1] < losses[0]
  assert "def add(x, y):" in capsys.readouterr().out
