"""Held-out loss: against a plain computation, a model that knows nothing, and hand."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from evals import __main__ as command_line
from evals import loss
from phi1_jax import InputError, storage
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder, abstract_parameters
from phi1_jax.parallel import mesh as meshes
from phi1_jax.sampling.checkpoint import Loaded
from phi1_jax.text import tokenizer as tokenizers

CONFIG = ModelConfig(
  vocabulary_size=320,
  num_layers=1,
  num_heads=2,
  head_dim=8,
  rotary_dim=4,
  embed_dim=16,
  mlp_dim=24,
  max_length=150,
  initializer_range=0.3,
  dtype="float32",
)
TEXTS = (
  "x = 1\n",
  "café = [1, 2]\n" * 5,
  "def f(x):\n  return x\n" * 40,
  "y",
  "abc" * 97,
)


@pytest.fixture(scope="module")
def load():
  """load(devices) gives the model with its batch split over so many."""
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n" * 20], 300)
  tokens_BT = jnp.zeros((1, 1), int)
  init = jax.jit(Decoder(CONFIG).init)
  params = nn.unbox(init(jax.random.key(3), tokens_BT))["params"]

  def make(devices: int = 1) -> Loaded:
    mesh = meshes.make_mesh(meshes.MeshConfig(devices, 1, 1), jax.devices()[:devices])
    places = jax.tree.map(lambda x: x.sharding, abstract_parameters(CONFIG, mesh))
    return Loaded(CONFIG, jax.device_put(params, places), tokenizer, mesh, "digest")

  return make


@pytest.fixture
def write(tmp_path):
  """write(rows) makes a file of JSON lines."""

  def make(rows, name="texts.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path

  return make


@jax.jit
def forward(params, tokens_BT):
  return Decoder(CONFIG).apply({"params": params}, tokens_BT)


def plain(loaded, text, length):
  """The nats of a text, a window at a time, with nothing batched or padded."""
  ids = [loaded.tokenizer.eos_id, *loaded.tokenizer.encode(text)]
  total = 0.0
  for start in range(0, len(ids) - 1, length):
    window = np.asarray([ids[start : start + length + 1]])
    logits = np.asarray(forward(loaded.params, window[:, :-1])[0], np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    total += sum(log_z - logits[np.arange(len(logits)), window[0, 1:]])
  return total


def test_every_token_is_the_target_of_one_window(load):
  assert loss.window_length(load()) == 150
  assert list(loss.windows([9, 0, 1, 2, 3, 4], 3)) == [[9, 0, 1, 2], [2, 3, 4]]
  assert list(loss.windows([9, 0, 1, 2], 3)) == [[9, 0, 1, 2]]
  assert list(loss.windows([9, 0], 3)) == [[9, 0]]


@pytest.mark.parametrize("devices", [1, 8])
def test_batches_of_padded_windows_equal_a_plain_computation(load, devices):
  loaded = load(devices)
  nats, tokens = loss.document_nats(loaded, TEXTS, 150)
  assert tokens.tolist() == [len(loaded.tokenizer.encode(text)) for text in TEXTS]
  assert max(tokens) > 2 * 150  # several windows
  expected = [plain(load(), text, 150) for text in TEXTS]
  np.testing.assert_allclose(nats, expected, rtol=1e-5)


def test_few_programs_are_compiled(load):
  before = loss._losses._cache_size()
  texts = ["x = 1\n" * number for number in range(1, 60)]
  loss.document_nats(load(), texts, 140)  # buckets of 64, 128 and 140 tokens
  assert loss._losses._cache_size() - before <= 3


def test_a_head_of_zeros_needs_log_v_for_every_token(load, write):
  loaded = load()
  head = jax.tree.map(jnp.zeros_like, loaded.params["head"])
  loaded = dataclasses.replace(loaded, params={**loaded.params, "head": head})
  file = loss.read(write([{"text": text} for text in TEXTS]), 200)
  [row] = loss.measure(loaded, [file], 64)
  tokens = sum(len(loaded.tokenizer.encode(text)) for text in TEXTS)
  size = sum(len(text.encode()) for text in TEXTS)
  assert (row["documents"], row["tokens"], row["bytes"]) == (5, tokens, size)
  log_v = float(np.log(np.float32(320)))
  assert row["nats_per_byte"] == pytest.approx(log_v * tokens / size, rel=1e-9)
  assert row["nats_per_token"] == pytest.approx(math.log(320), rel=1e-6)
  assert row["low"] < row["nats_per_byte"] < row["high"]


def test_kinds_are_parts_of_all(load, write):
  rows = [{"text": t, "kind": k} for t, k in zip(TEXTS, "abab", strict=False)]
  file = loss.read(write([*rows, {"text": TEXTS[4]}]), 200)
  found = {row["kind"]: row for row in loss.measure(load(), [file], 150)}
  assert list(found) == ["all", "a", "b"]
  assert [found[kind]["documents"] for kind in found] == [5, 2, 2]
  nats, _ = loss.document_nats(load(), TEXTS, 150)
  assert found["a"]["nats"] == pytest.approx(nats[0] + nats[2])
  assert found["b"]["nats_per_byte"] == pytest.approx(
    (nats[1] + nats[3]) / (len(TEXTS[1].encode()) + 1)
  )


def test_the_interval_is_of_documents_with_their_bytes():
  one = loss.summed(np.asarray([6.0]), np.asarray([3]), np.asarray([4]))
  assert (one["nats_per_byte"], one["nats_per_token"]) == (1.5, 2.0)
  assert (one["low"], one["high"]) == (None, None)
  sizes = np.asarray([10, 30, 20])
  equal = loss.summed(sizes * 0.5, np.asarray([1, 1, 1]), sizes)
  assert equal["low"] == equal["high"] == equal["nats_per_byte"] == 0.5
  random = np.random.default_rng(5)
  sizes = random.integers(50, 150, 400)
  nats = sizes * random.normal(1.0, 0.2, 400)
  found = loss.summed(nats, sizes, sizes)
  # The standard error of a mean of 400 with deviation 0.2 is 0.01.
  assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.01, rel=0.2)
  assert found == loss.summed(nats, sizes, sizes)


def test_a_long_file_is_sampled_evenly(write):
  path = write([{"text": str(number)} for number in range(10)])
  file = loss.read(path, 4)
  assert [text for text, _ in file.documents] == ["0", "2", "5", "7"]
  assert file.total == 10
  assert loss.read(path, 10) == loss.read(path, 200)


@pytest.mark.parametrize(
  ("rows", "named"),
  [
    ([], "is empty"),
    ([{"text": "x"}, {"txt": "y"}], "row 2: expected a text as 'text', got None"),
    ([{"text": ""}], "row 1: expected a text"),
    ([{"text": "x", "kind": 3}], "row 1: kind is 3"),
    ([{"text": "x", "kind": "all"}], "row 1: kind is 'all'"),
  ],
)
def test_refuses_what_is_no_text(write, rows, named):
  with pytest.raises(InputError, match=named):
    loss.read(write(rows), 200)


@pytest.mark.parametrize("where", ["here", "gs://"])
def test_the_command(load, write, tmp_path, capsys, request, where):
  place = tmp_path
  if where == "gs://":
    place = storage.parse(request.getfixturevalue("gcs").folder)
  loaded = load()
  folder = place / "run"
  checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig())
  config = {"model": dataclasses.asdict(CONFIG), "train": {"sequence_length": 70}}
  meta = {"config": config, "tokenizer": loaded.tokenizer.digest, "tokens_seen": 9}
  with checkpoints:
    checkpoints.save(3, {"params": loaded.params}, meta)
  loaded.tokenizer.save(folder / tokenizers.FILE_NAME)
  local = write([{"text": text, "kind": "k"} for text in TEXTS])
  path = place / "texts.jsonl"
  storage.write_bytes(path, local.read_bytes())
  flags = [f"--checkpoint={folder}", f"--texts={path}", f"--workdir={place / 'out'}"]
  assert command_line.main(["loss", *flags, "--max_documents=2"]) == 0
  found = storage.read_json(place / "out" / "loss.json")
  assert (found["step"], found["tokens_seen"], found["length"]) == (3, 9, 70)
  assert (found["files"][0]["documents"], found["files"][0]["taken"]) == (5, 2)
  assert [row["kind"] for row in found["losses"]] == ["all", "k"]
  expected, _ = loss.document_nats(loaded, [TEXTS[0], TEXTS[2]], 70)
  assert found["losses"][0]["nats"] == pytest.approx(sum(expected), rel=1e-5)
  shown = capsys.readouterr().out
  assert f"{found['losses'][0]['nats_per_byte']:.4f} [" in shown
  with pytest.raises(InputError, match="cannot be read"):
    command_line.main(["loss", *flags, "--texts=nope.jsonl"])
  with pytest.raises(InputError, match="expected flags only"):
    command_line.main(["loss", *flags, "--gin.Evaluation.seed=1"])
