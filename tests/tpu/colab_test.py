"""The notebooks, run from top to bottom by this Python, small and without network."""

import json
import os
import pathlib
import re
import sys
import sysconfig

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from phi1_jax.data.token_store import Encoded
from phi1_jax.model.config import ModelConfig
from phi1_jax.telemetry.writers import read_metrics
from phi1_jax.text import tokenizer as tokenizers

ROOT = pathlib.Path(__file__).parents[2]
MODULES = ("argparse", "ast", "inspect")
TEXTBOOKS = "grammar_textbooks small_code_filtered small_textbooks"
# Folder, mixture, held-out fraction, tokenizer and tasks.
STORES = (
  ("quickstart_pretrain", "small_code_textbook", 0.05, "train", TEXTBOOKS),
  ("quickstart", "grammar_exercises", 0.02, "file", "grammar_exercises"),
)
SEEN = ("constraints.txt", "evals", "gin", "phi1_jax", "pyproject.toml")
SMALL = (
  "--gin.BATCH_SIZE=2 --gin.SEQUENCE_LENGTH=64 --gin.Train.log_every=4 "
  "--gin.Train.evaluation_batches=1 --gin.Model.num_layers=1 --gin.Data.loss_on=all "
  "--gin.Runtime.hooks={}"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder that looks like a clone, whose runs and stores are its own."""
  for name in SEEN:
    (tmp_path / name).symlink_to(ROOT / name)
  (tmp_path / "tpu/colab").mkdir(parents=True)
  kernel = tmp_path / "jupyter/kernels/this"
  kernel.mkdir(parents=True)
  environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": os.environ["XLA_FLAGS"]}
  environment["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
  environment |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
  # Colab has the widgets whose lack would be complained of.
  environment["PYTHONWARNINGS"] = "ignore:IProgress not found"
  words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
  specification = {"argv": words, "display_name": "this", "env": environment}
  (kernel / "kernel.json").write_text(json.dumps(specification))
  monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
  monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
  monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
  return tmp_path


def run(name, place, **parameters):
  """Executes a notebook where it would lie; cell name -> outputs."""
  notebook = nbformat.read(ROOT / f"tpu/colab/{name}.ipynb", as_version=4)
  cells = notebook.cells
  for cell in cells:  # nothing in it is of the person who last opened it
    assert (cell.get("outputs") or None, cell.get("execution_count")) == (None, None)
    assert cell.metadata.keys() <= {"tags"}
  (after,) = (
    n for n, c in enumerate(cells) if "parameters" in c.metadata.get("tags", ())
  )
  text = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
  cells.insert(after + 1, nbformat.v4.new_code_cell(text))
  resources = {"metadata": {"path": str(place / "tpu/colab")}}
  client = NotebookClient(
    notebook, timeout=300, kernel_name="this", resources=resources
  )
  client.execute()
  return {cell.id: cell.outputs for cell in cells if cell.cell_type == "code"}


def said(outputs):
  """What a cell printed."""
  return "".join(output.get("text", "") for output in outputs)


def shown(outputs, kind):
  """What a cell displayed, of one MIME type."""
  (found,) = [output.data[kind] for output in outputs if kind in output.get("data", {})]
  return found


def check_readable(given):
  """No cell buries its result in warnings, nor fails in a command it starts."""
  for name, outputs in given.items():
    # Without a sandbox the judge says so, and goes on; and it says why code failed.
    text = re.sub(".*Code will run without isolation.*|  -> .*", "", said(outputs))
    assert not re.search("traceback|warning|error:", text, re.I), text
    # A model of twenty steps may write nothing but empty lines.
    lines = [line for line in text.split("\n") if line.strip()]
    assert len(lines) < 60, f"{name}: {text}"


@pytest.fixture
def stores(place, token_store):
  """The notebook's token stores, as if made of three modules of the library.

  The first of them is held out.
  """
  library = pathlib.Path(sysconfig.get_path("stdlib"))
  texts = [(library / f"{name}.py").read_text() for name in MODULES]
  tokenizer = tokenizers.train(texts, 1024)
  documents = [
    Encoded([*tokenizer.encode(text), tokenizer.eos_id], len(text.encode()), not number)
    for number, text in enumerate(texts)
  ]
  for folder, mixture, held_out, origin, tasks in STORES:
    encoded = dict.fromkeys(tasks.split(), documents)
    more = {"mixture": mixture, "held_out": held_out, "name": origin}
    token_store(place / "stores" / folder, encoded, tokenizer, **more)


@pytest.mark.usefixtures("stores")
def test_train_and_sample(place):
  """It learns, the pictures are there, and both models complete the prompt."""
  chosen = {"STEPS": 20, "FINETUNE_STEPS": 12, "PROMPT": "def f('x'):", "FLAGS": SMALL}
  given = run("train_and_sample", place, **chosen)
  check_readable(given)
  assert "for the CPU" in said(given["install"])

  def losses(name):
    rows = read_metrics(place / "runs" / name / "metrics.jsonl")
    return [row["loss"] for row in rows if "loss" in row]

  first, again = map(losses, ("colab_20_steps", "colab_20_steps_finetuned_12"))
  assert (len(first), len(again)) == (6, 4)
  assert first[0] == pytest.approx(np.log(1024), abs=0.3)
  assert np.mean(first[3:]) < first[0] - 0.5
  assert again[0] < first[0] - 0.5  # it starts from what was learnt
  for name in ("loss", "finetune"):
    assert shown(given[name], "image/png").startswith("iVBOR")  # a PNG in base 64
  for name in ("sample", "sample-again"):
    assert "def f('x'):" in said(given[name])
    assert re.search(r"\b\d+ tokens in", said(given[name]))
  assert said(given["python"]).count("# --- sample ") == 4
  assert said(given["python"]).count("def f('x'):") >= 4


@pytest.fixture
def downloaded(place, random_phi):
  """A Phi of random weights in the hub's cache, under phi-1's name."""
  commit, cache = "0" * 40, place / "hub/models--microsoft--phi-1"
  folder = cache / "snapshots" / commit
  folder.mkdir(parents=True)
  (cache / "refs").mkdir()
  (cache / "refs/main").write_text(commit)
  config = ModelConfig(51200, 2, 2, 8, 4, 16, 32, 1024, 0.0, 0.0)
  random_phi(folder, config, tokenizers.codegen())


@pytest.mark.usefixtures("downloaded")
def test_judge_phi1(place):
  """A random model solves nothing, and the report says so beside the paper's score."""
  given = run("judge_phi1", place, MAX_NEW_TOKENS=2, SLOTS=32)
  check_readable(given)
  assert "encodes as CodeGen's" in said(given["convert"])
  assert "164/164 references pass" in said(given["references"])
  for name in ("judge", "report"):
    assert re.search(r"pass@1 +0.0 \[0.0, 2.3\] +0.0 \[0.0, 2.3\]", said(given[name]))
  page = shown(given["page"], "text/html")
  assert 'srcdoc="&lt;!doctype html&gt;' in page.lower()
  assert "HumanEval/163" in page
  lines = said(given["paper"]).splitlines()
  assert lines[1].split() == ["the", "paper,", "phi-1", "50.6", "[43.0,", "58.2]"]
  assert lines[3].split() == ["here,", "sanitized", "0.0", "[0.0,", "2.3]"]
