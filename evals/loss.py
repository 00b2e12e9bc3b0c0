"""Held-out loss: how many nats per byte of text a checkpoint needs.

A ruler that moves long before any benchmark does, and the same for every tokenizer:
the loss of a text is summed over its tokens and divided by its bytes of UTF-8.

  text       <|endoftext|> stands before it, as in training, and is not scored itself;
             neither is an end after the last token
  windows    a text that is longer than the model was trained on is cut, and each of
             its tokens is scored once; what a later window reads begins with the last
             token of the one before it:

               tokens    . a b c d e      in windows of 3
               inputs    . a b   c d
               targets   a b c   d e

  vocabulary padding rows are classes like any other, as in training
  documents  of a file with more than are asked for, the same ones every time, spread
             evenly over it: files are often sorted
  interval   95%, the bootstrap over documents, seeded; null for a single document
"""

import dataclasses
import functools
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evals import score, workdir
from phi1_jax import InputError, storage
from phi1_jax.checkpoint import manager
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.model import DTYPES
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel import sharding
from phi1_jax.sampling.checkpoint import (
  Loaded,
  check_log_probs,
  one_host_mesh,
  open_checkpoint,
)
from phi1_jax.storage import AnyPath

RESULT = "loss.json"
ALL = "all"  # the kind that is every document's
_SHORTEST_BUCKET = 64
# Tokens times vocabulary of one batch: its float32 logits take 512 MiB.
_LOGITS = 1 << 27
_MOST_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Document:
  """One held-out text.

  Attributes:
    text: what is scored.
    kind: what it is counted with beside all others; "" for nothing.
  """

  text: str
  kind: str = ""


@dataclasses.dataclass(frozen=True)
class Texts:
  """What is taken of one file.

  Attributes:
    path: the file.
    sha256: of its content.
    total: documents in it.
    documents: those taken.
  """

  path: AnyPath
  sha256: str
  total: int
  documents: tuple[Document, ...]


@dataclasses.dataclass(frozen=True)
class Loss:
  """The loss of some documents together.

  Attributes:
    documents: how many.
    tokens: how many were scored.
    bytes: of their UTF-8.
    nats: the sum of -log p of the tokens.
    nats_per_byte: the score.
    nats_per_token: depends on the tokenizer.
    low: lower end of the 95% interval of `nats_per_byte`; None for one document.
    high: upper end.
  """

  documents: int
  tokens: int
  bytes: int
  nats: float
  nats_per_byte: float
  nats_per_token: float
  low: float | None
  high: float | None


def read(path: AnyPath, most: int) -> Texts:
  """Reads a file of JSON lines, each with `text` and perhaps `kind`.

  Args:
    path: the file.
    most: documents that are taken at most.

  Raises:
    InputError: no such file, or a line without a text.
  """
  if most < 1:
    raise InputError(f"--max_documents: got {most}, expected at least 1")
  content, rows = workdir.read_rows(path, "--texts")
  if not rows:
    raise InputError(f"{path}: is empty, expected lines such as {{'text': '...'}}")
  documents = [_document(row, number, path) for number, row in enumerate(rows, 1)]
  taken = min(most, len(rows))
  chosen = [documents[i * len(rows) // taken] for i in range(taken)]
  sha256 = hashlib.sha256(content).hexdigest()
  return Texts(path, sha256, len(rows), tuple(chosen))


def _document(row: Mapping[str, Any], number: int, path: AnyPath) -> Document:
  text, kind = row.get("text"), row.get("kind") or ""
  if not isinstance(text, str) or not text:
    raise InputError(f"{path}, row {number}: expected a text as 'text', got {text!r}")
  if not isinstance(kind, str) or kind == ALL:
    raise InputError(
      f"{path}, row {number}: kind is {kind!r}, expected a name other than {ALL!r}"
    )
  return Document(text, kind)


def window_length(loaded: Loaded, asked: int | None = None) -> int:
  """Tokens of the longest window.

  Args:
    loaded: the model.
    asked: how many it should be; None is what the checkpoint was trained on, or, where
      it does not say, what it can read.

  Raises:
    InputError: it cannot read that many.
  """
  longest = loaded.config.max_length
  if asked is not None:
    if not 1 <= asked <= longest:
      raise InputError(
        f"--length: got {asked}, expected 1 to {longest} (Model.max_length)"
      )
    return asked
  if loaded.path is None:
    return longest
  trained = manager.read_meta(loaded.path)["config"].get("train", {})
  return min(longest, trained.get("sequence_length", longest))


def measure(loaded: Loaded, texts: Sequence[Texts], length: int) -> list[dict]:
  """The losses of files, by kind.

  Args:
    loaded: the model.
    texts: what to score.
    length: tokens of the longest window.

  Returns:
    A row per file and kind, `ALL` first: file, kind, and the fields of `Loss`.
  """
  rows = []
  for file in texts:
    nats, tokens = document_nats(loaded, [d.text for d in file.documents], length)
    members: dict[str, list[int]] = defaultdict(list)
    for index, document in enumerate(file.documents):
      members[ALL].append(index)
      if document.kind:
        members[document.kind].append(index)
    sizes = np.asarray([len(d.text.encode()) for d in file.documents])
    for kind in [ALL, *sorted(members.keys() - {ALL})]:
      of = members[kind]
      found = summed(nats[of], tokens[of], sizes[of])
      rows.append({"file": str(file.path), "kind": kind, **dataclasses.asdict(found)})
  return rows


def summed(nats: np.ndarray, tokens: np.ndarray, sizes: np.ndarray) -> Loss:
  """The loss of documents together, with its interval.

  Args:
    nats: of each document.
    tokens: of each document.
    sizes: bytes of each document.
  """
  total, count, size = math.fsum(nats), int(tokens.sum()), int(sizes.sum())
  low, high = _interval(nats, sizes) if len(nats) > 1 else (None, None)
  return Loss(len(nats), count, size, total, total / size, total / count, low, high)


def _interval(nats: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
  """Documents are drawn again, each with its bytes: long ones weigh more."""
  random = np.random.default_rng(0)
  ratios = []
  for _ in range(10):  # in pieces that fit in a cache
    drawn = random.integers(len(nats), size=(score.RESAMPLES // 10, len(nats)))
    ratios.append(nats[drawn].sum(1) / sizes[drawn].sum(1))
  low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
  return float(low), float(high)


def document_nats(
  loaded: Loaded, texts: Sequence[str], length: int
) -> tuple[np.ndarray, np.ndarray]:
  """The sum of -log p (nats) of the tokens of each text, and how many there are.

  Batches hold windows of one bucket of lengths, so few programs are compiled.
  """
  encoded = loaded.tokenizer.encode_batch(texts)
  nats = np.zeros(len(texts))
  buckets: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
  for index, ids in enumerate(encoded):
    for window in windows([loaded.tokenizer.eos_id, *ids], length):
      buckets[_bucket(len(window) - 1, length)].append((index, window))
  total = sum(map(len, buckets.values()))
  with Progress(total, "windows", "scoring", interval=None) as bar:
    for size, members in sorted(buckets.items()):
      for batch in _batches(members, _rows(loaded, size)):
        losses = _window_nats(loaded, [window for _, window in batch], size)
        for (index, _), found in zip(batch, losses, strict=False):
          nats[index] += found
        bar.update(len(batch))
  return nats, np.asarray([len(ids) for ids in encoded])


def windows(ids: list[int], length: int) -> Iterator[list[int]]:
  """Cuts ids where a model would have to read more than `length` of them.

  Every id but the first is in exactly one window behind another: its target.
  """
  for start in range(0, len(ids) - 1, length):
    yield ids[start : start + length + 1]


def _bucket(size: int, length: int) -> int:
  """The next power of two, not beyond the longest window."""
  return min(length, max(_SHORTEST_BUCKET, 1 << (size - 1).bit_length()))


def _rows(loaded: Loaded, size: int) -> int:
  """Rows of a batch: as many as memory holds, in equal parts for all devices."""
  shards = sharding.batch_shards(loaded.mesh)
  fitting = _LOGITS // (size * loaded.config.vocabulary_size)
  return shards * max(1, min(_MOST_ROWS // shards, fitting))


def _batches(members: Sequence[Any], rows: int) -> Iterator[Sequence[Any]]:
  for start in range(0, len(members), rows):
    yield members[start : start + rows]


def _window_nats(
  loaded: Loaded, batch: Sequence[list[int]], size: int
) -> Sequence[float]:
  """The nats of each window; summed in float64, which the device may not have."""
  tokens_BT = np.zeros((_rows(loaded, size), size + 1), np.int32)
  for row, window in enumerate(batch):
    tokens_BT[row, : len(window)] = window
  with sharding.layout(loaded.mesh):
    losses_BT = np.asarray(_losses(loaded.config, loaded.params, tokens_BT))
  scored = [losses_BT[row, : len(window) - 1] for row, window in enumerate(batch)]
  check_log_probs(loaded, np.concatenate(scored))
  return [math.fsum(losses) for losses in scored]


@functools.partial(jax.jit, static_argnums=0)
def _losses(config: Any, params: Any, tokens_BT: jax.Array) -> jax.Array:
  """-log p of each token but the first, BT float32; causal, so padding is harmless."""
  logits_BTV: Any = Decoder(config).apply({"params": params}, tokens_BT[:, :-1])
  target_BT1 = jnp.take_along_axis(logits_BTV, tokens_BT[:, 1:, None], axis=-1)
  return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT1[..., 0]


def result(
  loaded: Loaded, texts: Sequence[Texts], length: int, rows: Sequence[dict]
) -> dict[str, Any]:
  """What loss.json says: the model, the files, and the rows of `measure`."""
  return {
    "format": 1,
    "checkpoint": loaded.path and str(loaded.path),
    "digest": loaded.digest,
    "step": loaded.step,
    "tokens_seen": loaded.tokens_seen,
    "dtype": loaded.config.dtype,
    "length": length,
    "files": [
      {
        "file": str(file.path),
        "sha256": file.sha256,
        "documents": file.total,
        "taken": len(file.documents),
      }
      for file in texts
    ],
    "losses": list(rows),
  }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """What a terminal shows: a line per file and kind."""
  lines = [("file", "kind", "documents", "bytes", "nats/byte", "nats/token")]
  for row in rows:
    interval = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
    lines.append(
      (
        Path(row["file"]).name,
        row["kind"],
        f"{row['documents']:,}",
        f"{row['bytes']:,}",
        f"{row['nats_per_byte']:.4f}{interval}",
        f"{row['nats_per_token']:.4f}",
      )
    )
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
    for line in lines
  )


def main(about: str, argv: Sequence[str]) -> int:
  """Scores held-out texts with a checkpoint."""
  parser = command.Parser(
    "loss",
    about,
    "python -m evals loss --checkpoint=runs/quickstart --texts=held_out.jsonl",
  )
  parser.prog = "python -m evals loss"
  add = parser.add_argument
  add(
    "--checkpoint",
    type=storage.parse,
    required=True,
    help="work directory, checkpoints or step folder",
  )
  add(
    "--texts",
    action="append",
    required=True,
    type=storage.parse,
    metavar="FILE",
    help="JSON lines of `text` and perhaps `kind` (repeatable)",
  )
  add("--workdir", type=storage.parse, default=Path("runs/loss"), help="gets loss.json")
  add("--max_documents", type=int, default=200, help="of a file (default: 200)")
  add("--length", type=int, help="tokens of a window (default: as it was trained)")
  add("--dtype", choices=DTYPES, help="default: as it was trained")
  arguments = parser.parse(argv)
  if arguments.gin_files or arguments.gin_bindings:
    raise InputError("loss: got gin files or bindings, expected flags only (--help)")
  texts = [read(path, arguments.max_documents) for path in arguments.texts]
  loaded = open_checkpoint(arguments.checkpoint, one_host_mesh(), arguments.dtype)
  length = window_length(loaded, arguments.length)
  with workdir.opened(arguments.workdir, "scoring") as mirror:
    rows = measure(loaded, texts, length)
    found = result(loaded, texts, length, rows)
    storage.write_json(mirror.local / RESULT, found)
  print(table(rows))
  print(f"written to {arguments.workdir / RESULT}")
  return command.DONE
