"""The command `sample`, on a random model's checkpoint."""

import dataclasses
import json
import math
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import linen as nn

from phi1_jax import InputError, sample
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.sampling import checkpoint
from phi1_jax.sampling.checkpoint import open_checkpoint
from phi1_jax.text import tokenizer as tokenizers

MODEL = ModelConfig(
  *(320, 2, 8, 8, 4, 16, 24, 96), initializer_range=0.3, dtype="float32"
)
PROMPT = "def f(x):\n"


@pytest.fixture(scope="module")
def params():
  tokens_BT = jax.numpy.zeros((1, 1), int)
  init = jax.jit(Decoder(MODEL).init)
  return nn.unbox(init(jax.random.key(0), tokens_BT))["params"]


def write_run(folder, params):
  folder.mkdir(exist_ok=True)
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n"] * 9, 300)
  tokenizer.save(folder / tokenizers.FILE_NAME)
  checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig())
  # As a TPU has trained it: its kernel is not for here.
  trained = dataclasses.replace(MODEL, attention="flash")
  meta = {
    "config": {"model": dataclasses.asdict(trained)},
    "tokenizer": tokenizer.digest,
    "tokens_seen": 1234,
  }
  checkpoints.save(5, {"params": params, "other": jax.numpy.zeros(3)}, meta)
  checkpoints.close()
  (folder / "prompt.py").write_text(PROMPT)
  return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, params):
  return write_run(tmp_path_factory.mktemp("run"), params)


@pytest.fixture
def run(workdir, capsys):
  def go(*flags):
    assert sample.main([f"--checkpoint={workdir}", "--max_new_tokens=9", *flags]) == 0
    return capsys.readouterr()

  return go


def _one_device():
  return make_mesh(MeshConfig(), jax.devices()[:1])


def test_a_cpu_has_as_many_devices_as_copies_fit_its_caches(workdir, monkeypatch):
  monkeypatch.setattr(checkpoint, "cores", lambda: 8)
  devices = {n: checkpoint.copies(n) for n in (10**6, 26 * 10**5, 53 * 10**5, 10**8)}
  assert devices == {10**6: 8, 26 * 10**5: 4, 53 * 10**5: 2, 10**8: 1}
  found = checkpoint.for_many_texts(Checkpoint.find(workdir))  # a tiny model
  assert (found.cpu_devices, found.data) == (8, -1)


def test_the_cpu_is_split_before_jax_looks_for_its_devices():
  code = "from phi1_jax.sampling.checkpoint import *\n"
  code += "print(one_host_mesh(dataclasses.replace(COPIES, cpu_devices=3)).size)"
  words = [sys.executable, "-c", code]
  assert subprocess.check_output(words, text=True).split() == ["3"]


def test_open_checkpoint(workdir):
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  loaded = open_checkpoint(Checkpoint.find(workdir), mesh, "bfloat16")
  assert (loaded.step, loaded.tokens_seen) == (5, 1234)
  assert loaded.config == dataclasses.replace(MODEL, dtype="bfloat16")
  kernel = loaded.params["layers"]["mlp"]["up"]["kernel"]
  assert kernel.sharding.shard_shape(kernel.shape) == (2, 8, 12)
  single = open_checkpoint(Checkpoint(workdir / "checkpoints" / "5"), _one_device())
  assert single.digest == loaded.digest
  assert len(single.digest) == 64


def test_a_file_is_completed(run, workdir):
  whole = run(str(workdir / "prompt.py"))
  assert len(whole.out) > len(PROMPT) + 1
  assert "9 tokens" in whole.err
  assert run(f"--prompt={PROMPT}").out == whole.out
  assert PROMPT + run(f"--prompt={PROMPT}", "--completion_only").out == whole.out


def test_a_file_of_several_prompts(run, tmp_path, caplog):
  prompts = ["def g(y):\n", PROMPT, "x = 1"]
  file = tmp_path / "prompts.jsonl"
  file.write_text("".join(f"{json.dumps({'prompt': p})}\n" for p in prompts))
  single = [run(f"--prompt={p}", "--completion_only").out for p in prompts]
  caplog.clear()
  out = run(str(file), "--slots=2").out
  assert "1 prompts do not end with a newline" in caplog.text
  heads = re.split(r"# --- prompt \d, sample 0: \w+\n", out)
  assert heads == ["", *(p + text for p, text in zip(prompts, single, strict=True))]
  flags = ("--num_samples=2", "--temperature=1")
  rows = [
    json.loads(line) for line in run(str(file), *flags, "--json").out.splitlines()
  ]
  assert [row["key"] for row in rows] == [
    f"prompt {p}, sample {n}" for p in range(3) for n in range(2)
  ]
  assert all(len(row["tokens"]) == len(row["log_probs"]) for row in rows)
  assert run(f"--prompt={PROMPT}", *flags).out.count("# --- sample") == 2


def test_a_stop_ends_the_text(run):
  whole = run(f"--prompt={PROMPT}", "--completion_only").out
  stop = whole[3:5]
  flag = "--stop=" + stop.encode("unicode_escape").decode()
  cut = run(f"--prompt={PROMPT}", "--completion_only", flag).out
  assert cut == whole.split(stop)[0] + "\n"


def test_score(run, workdir, capsys):
  found = json.loads(run(f"--score={workdir / 'prompt.py'}").out)
  rows = found["tokens"]
  assert "".join(row["text"] for row in rows) == PROMPT
  assert rows[0]["log_prob"] is None
  loaded = open_checkpoint(Checkpoint.find(workdir), _one_device())
  logits = jax.jit(Decoder(MODEL).apply)(
    {"params": loaded.params}, np.asarray([[row["id"] for row in rows]])
  )
  expected = jax.nn.log_softmax(logits[0], axis=-1)
  for place, row in enumerate(rows[1:]):
    assert row["log_prob"] == pytest.approx(float(expected[place, row["id"]]), abs=1e-4)
  total = sum(row["log_prob"] for row in rows[1:])
  assert found["log_prob"] == pytest.approx(total)
  bits = -total / math.log(2) / len(PROMPT.encode())
  assert found["bits_per_byte"] == pytest.approx(bits)


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    ([], "got 0 texts"),
    (["--prompt=", "/nowhere.py"], "got 2 texts"),
    (["/nowhere.py"], "/nowhere.py"),
    (["--prompt=a", "--top_p=0.9"], "greedy"),
    (["--prompt=a", "--max_new_tokens=0"], "max_new_tokens"),
    (["--prompt=a", "--stop="], "--stop"),
    (["--prompt=a", "--temperature=1e-38"], "temperature"),
    (["--prompt=" + "x+1\n" * 300], "max_length"),
    (["--prompt=a", "--gin.Mesh.data=3", "--gin.Mesh.fsdp=1"], "Mesh"),
    (["{}/empty.jsonl"], r"empty\.jsonl"),
    (["{}/other.jsonl"], r"other\.jsonl"),
    (["--score={}/empty.jsonl"], "tokens"),
    (["--score={}/long.py"], "tokens"),
  ],
)
def test_bad_input(workdir, tmp_path, flags, named):
  files = {"empty.jsonl": "", "other.jsonl": '{"text": "a"}\n'}
  files["long.py"] = "a = 1\n" * 99
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  words = [flag.format(tmp_path) for flag in flags]
  with pytest.raises(InputError, match=named):
    sample.main([f"--checkpoint={workdir}", *words])


def test_parameters_or_logits_that_are_not_finite(params, tmp_path, capsys):
  """An error, never NaN in the output."""
  huge = jax.tree.map(lambda leaf: leaf * 1e30, params["head"])
  folder = write_run(tmp_path / "huge", {**params, "head": huge})
  flags = [f"--checkpoint={folder}", "--dtype=float16", "--json"]
  for wanted in ("--prompt=def f", f"--score={folder / 'prompt.py'}"):
    with pytest.raises(InputError, match="computed in float16; use --dtype=float32"):
      sample.main([*flags, wanted])
  spoilt = jax.tree.map(lambda leaf: leaf, params)  # another tree
  kernel = params["layers"]["mlp"]["up"]["kernel"].at[1, :3, 2].set(-np.inf)
  spoilt["layers"]["mlp"]["up"]["kernel"] = kernel
  folder = write_run(tmp_path / "spoilt", spoilt)
  with pytest.raises(InputError, match="layers/mlp/up/kernel holds 3 values that are"):
    sample.main([f"--checkpoint={folder}", "--prompt=a"])
  assert capsys.readouterr().out == ""


def test_a_foreign_tokenizer_or_a_missing_checkpoint_is_refused(workdir, tmp_path):
  other = tokenizers.train(["something else altogether\n"] * 9, 300)
  (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
  other.save(tmp_path / tokenizers.FILE_NAME)
  for folder, named in ((tmp_path, "not the tokenizer"), (tmp_path / "a", "no check")):
    with pytest.raises(InputError, match=named):
      sample.main([f"--checkpoint={folder}", "--prompt=a"])
