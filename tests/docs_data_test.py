"""The three commands of docs/data.md, on a tiny model in place of phi-1."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SIZES = {
  "vocabulary_size": 320,
  "num_layers": 2,
  "num_heads": 4,
  "head_dim": 8,
  "rotary_dim": 4,
  "embed_dim": 32,
  "mlp_dim": 64,
  "max_length": 512,
}


def commands() -> list[list[str]]:
  """Return the commands of the section on prompts and completions."""
  page = (ROOT / "docs" / "data.md").read_text()
  section = page.partition("## Finetuning on prompts and completions")[2]
  block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
  assert block is not None
  return [shlex.split(line) for line in block[1].splitlines()]


def save_phi(folder: Path) -> None:
  """Save a tiny PhiForCausalLM as Hugging Face does, with a small tokenizer."""
  transformers = pytest.importorskip("transformers")
  from phi1_jax.text import tokenizer as tokenizers

  rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
  config = transformers.PhiConfig(
    vocab_size=SIZES["vocabulary_size"],
    hidden_size=SIZES["embed_dim"],
    intermediate_size=SIZES["mlp_dim"],
    num_hidden_layers=SIZES["num_layers"],
    num_attention_heads=SIZES["num_heads"],
    head_dim=SIZES["head_dim"],
    max_position_embeddings=SIZES["max_length"],
    rope_parameters=rope,
  )
  transformers.PhiForCausalLM(config).save_pretrained(folder)
  text = "def add(x, y):\n    return x + y\n"
  tokenizers.train([text] * 2, 300).save(folder / "tokenizer.json")


def test_finetuning_on_prompts_and_completions(tmp_path):
  save_phi(tmp_path / "models" / "phi-1")
  # A file of one's own comes before the recipe of the same name.
  (tmp_path / "gin" / "models").mkdir(parents=True)
  lines = [f"Model.{name} = {value}\n" for name, value in SIZES.items()]
  (tmp_path / "gin" / "models" / "phi1.gin").write_text("".join(lines))
  rows = [
    {"prompt": f"def add{i}(x, y):\n", "completion": f"    return x + {i} * y\n"}
    for i in range(400)
  ]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (tmp_path / "pairs.jsonl").write_text(text)
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
  for words in commands():
    assert words[:2] == ["python", "-m"]
    if words[2] == "phi1_jax.train":  # as written, but for its length
      words += ["--gin.SEQUENCE_LENGTH=128", "--gin.SEQUENCES_PER_DEVICE=8"]
    done = subprocess.run(
      [sys.executable, *words[1:]],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
  manifest = json.loads((tmp_path / "stores" / "files" / "manifest.json").read_bytes())
  assert manifest["documents"] == len(rows)
  assert manifest["loss_on"] == "completions"
  records = (
    (tmp_path / "runs" / "files_mine" / "metrics.jsonl").read_text().splitlines()
  )
  losses = [row["eval/loss"] for row in map(json.loads, records) if "eval/loss" in row]
  assert losses[-1] < losses[0]
  assert "def add(x, y):" in done.stdout
