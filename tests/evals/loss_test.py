"""Held-out loss: against a plain computation, a model that knows nothing, and hand."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from evals import __main__ as command_line
from evals import loss
from phi1_jax import InputError, storage
from phi1_jax.model.decoder import Decoder
from tests.evals.conftest import save_run

TEXTS = ("x = 1\n", "café = [1, 2]\n" * 5, "def f(x):\n  return x\n" * 40, "y")
TEXTS += ("abc" * 97,)
BYTES = [len(text.encode()) for text in TEXTS]


@pytest.fixture
def write(tmp_path):
  """write(rows) makes a file of JSON lines."""

  def make(rows):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path

  return make


def plain(loaded, text, length):
  """The nats of a text, a window at a time, with nothing batched or padded."""
  ids = [loaded.tokenizer.eos_id, *loaded.tokenizer.encode(text)]
  forward = jax.jit(Decoder(loaded.config).apply)
  total = 0.0
  for start in range(0, len(ids) - 1, length):
    window = np.asarray([ids[start : start + length + 1]])
    logits = forward({"params": loaded.params}, window[:, :-1])[0]
    logits = np.asarray(logits, np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    total += sum(log_z - logits[np.arange(len(logits)), window[0, 1:]])
  return total


@pytest.mark.parametrize("devices", [1, 8])
def test_batches_of_padded_windows_equal_a_plain_computation(tiny, devices):
  loaded = tiny(devices)
  nats, tokens = loss.document_nats(loaded, TEXTS, 150)
  assert tokens.tolist() == [len(loaded.tokenizer.encode(text)) for text in TEXTS]
  assert max(tokens) > 2 * 150  # several windows
  expected = [plain(tiny(), text, 150) for text in TEXTS]
  np.testing.assert_allclose(nats, expected, rtol=1e-5)


def test_few_programs_are_compiled(tiny):
  before = loss._losses._cache_size()
  texts = ["x = 1\n" * number for number in range(1, 60)]
  loss.document_nats(tiny(), texts, 140)  # buckets of 64, 128 and 140 tokens
  assert loss._losses._cache_size() - before <= 3


def test_a_head_of_zeros_needs_log_v_for_every_token(tiny, write):
  loaded = tiny()
  head = jax.tree.map(np.zeros_like, loaded.params["head"])
  loaded = dataclasses.replace(loaded, params={**loaded.params, "head": head})
  file = loss.read(write([{"text": text} for text in TEXTS]), 200)
  [row] = loss.measure(loaded, [file], 64)
  tokens, size = sum(len(loaded.tokenizer.encode(t)) for t in TEXTS), sum(BYTES)
  assert (row["documents"], row["tokens"], row["bytes"]) == (5, tokens, size)
  log_v = float(np.log(np.float32(320)))
  assert row["nats_per_byte"] == pytest.approx(log_v * tokens / size, rel=1e-9)
  assert row["nats_per_token"] == pytest.approx(math.log(320), rel=1e-6)
  assert row["low"] < row["nats_per_byte"] < row["high"]


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
    ([{"text": "x"}, {"txt": "y"}], "row 2: got text None"),
    ([{"text": ""}], "row 1: got text ''"),
    ([{"text": "x", "kind": 3}], "row 1: got text 'x' and kind 3"),
    ([{"text": "x", "kind": "all"}], "row 1: got text 'x' and kind 'all'"),
  ],
)
def test_refuses_what_is_no_text(write, rows, named):
  with pytest.raises(InputError, match=named):
    loss.read(write(rows), 200)


def test_the_command_on_cloud_storage(tiny, write, gcs, capsys):
  place = storage.parse(gcs.folder)
  loaded, path = tiny(), place / "texts.jsonl"
  save_run(place / "run", loaded)
  kinds = ("a", "b", "a", "b", None)
  rows = [{"text": t, "kind": k} for t, k in zip(TEXTS, kinds, strict=True)]
  storage.write_bytes(path, write(rows).read_bytes())
  flags = [f"--checkpoint={place / 'run'}", f"--texts={path}"]
  flags += [f"--workdir={place / 'out'}", "--max_documents=5"]
  assert command_line.main(["loss", *flags]) == 0
  found = storage.read_json(place / "out" / "loss.json")
  assert (found["step"], found["tokens_seen"], found["length"]) == (7, 123, 70)
  assert (found["files"][0]["documents"], found["files"][0]["taken"]) == (5, 5)
  nats, _ = loss.document_nats(loaded, TEXTS, 70)
  rows = {row["kind"]: row for row in found["losses"]}
  assert [rows[kind]["documents"] for kind in rows] == [5, 2, 2]
  of = {"all": [0, 1, 2, 3, 4], "a": [0, 2], "b": [1, 3]}
  assert list(rows) == list(of)
  for kind, places in of.items():
    size = sum(BYTES[n] for n in places)
    assert rows[kind]["nats"] == pytest.approx(nats[places].sum(), rel=1e-5)
    assert rows[kind]["nats_per_byte"] == pytest.approx(nats[places].sum() / size)
  assert f"{rows['all']['nats_per_byte']:.4f} [" in capsys.readouterr().out
  with pytest.raises(InputError, match="cannot be read"):
    command_line.main(["loss", *flags, "--texts=nope.jsonl"])
  with pytest.raises(InputError, match="expected flags only"):
    command_line.main(["loss", *flags, "--gin.Evaluation.seed=1"])
