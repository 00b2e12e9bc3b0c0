"""Held-out loss of a checkpoint, in nats per byte of text.

It improves long before any benchmark does, and compares different tokenizers: the loss
of a text is summed over its tokens and divided by its bytes of UTF-8.

  text       <|endoftext|> stands before it, as in training, and is not scored itself
  windows    a text that is longer than the model was trained on is cut, and each of
             its tokens is scored once:

               tokens    . a b c d e      in windows of 3
               inputs    . a b   c d
               targets   a b c   d e

  documents  of a long file, the same ones every time, spread evenly over it
  interval   95%, the bootstrap over documents, seeded; null for a single document
"""

import dataclasses
import functools
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from evals import score, workdir
from phi1_jax import InputError, storage
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.model import DTYPES
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel import sharding
from phi1_jax.problems import files
from phi1_jax.sampling.checkpoint import (
  Loaded,
  check_log_probs,
  one_host_mesh,
  open_checkpoint,
)
from phi1_jax.storage import AnyPath

RESULT = "loss.json"
ALL = "all"  # the kind that every document belongs to
_SHORTEST_BUCKET = 64
# Tokens times vocabulary of one batch: its float32 logits take 512 MiB.
_LOGITS = 1 << 27
_MOST_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Texts:
  """Held-out texts of one file."""

  path: AnyPath  # the file
  sha256: str  # of its content
  total: int  # documents in it
  documents: tuple[tuple[str, str], ...]  # those taken: text, and kind ("" for none)


def read(path: AnyPath, most: int) -> Texts:
  """Read at most so many lines of a JSON file, each with `text` and perhaps `kind`.

  Raises:
    InputError: no such file, or a line without a text.
  """
  if most < 1:
    raise InputError(f"--max_documents: got {most}, expected at least 1")
  content = files.read_text(path, "expected the file of --texts")
  documents = []
  for number, row in storage.json_objects(content.split("\n"), path):
    text, kind = row.get("text"), row.get("kind") or ""
    if not (text and isinstance(text, str) and isinstance(kind, str)) or kind == ALL:
      raise InputError(
        f"{path}, row {number}: got text {text!r:.40} and kind {kind!r}, expected a "
        f"text, and perhaps a kind other than {ALL!r}"
      )
    documents.append((text, kind))
  if not documents:
    raise InputError(f"{path}: is empty, expected lines such as {{'text': '...'}}")
  taken = min(most, len(documents))
  chosen = tuple(documents[i * len(documents) // taken] for i in range(taken))
  sha256 = hashlib.sha256(content.encode()).hexdigest()
  return Texts(path, sha256, len(documents), chosen)


def measure(loaded: Loaded, texts: Sequence[Texts], length: int) -> list[dict]:
  """Return a row per file and kind, `ALL` first: file, kind, and those of `summed`.

  `length` is that of the longest window, in tokens.
  """
  rows = []
  for file in texts:
    documents, kinds = map(list, zip(*file.documents, strict=True))
    nats, tokens = document_nats(loaded, documents, length)
    sizes = np.asarray([len(text.encode()) for text in documents])
    for kind in [ALL, *sorted({*kinds} - {""})]:
      of = np.asarray([kind in (ALL, each) for each in kinds])
      found = summed(nats[of], tokens[of], sizes[of])
      rows.append({"file": str(file.path), "kind": kind, **found})
  return rows


def summed(nats: np.ndarray, tokens: np.ndarray, sizes: np.ndarray) -> dict[str, Any]:
  """Return the loss of documents together, given nats, tokens and bytes of each.

  Returns:
    documents, tokens, bytes, nats, nats_per_byte (the score), nats_per_token, low and
    high (the 95% interval of nats_per_byte; None for one document). Documents are
    resampled with their bytes, so long ones weigh more.
  """
  total, count, size = math.fsum(nats), int(tokens.sum()), int(sizes.sum())
  low = high = None
  if len(nats) > 1:
    found = score.bootstrap(
      nats, sizes, statistic=lambda n, s, axis: n.sum(axis) / s.sum(axis)
    )
    low, high = map(float, found.confidence_interval)
  return {
    "documents": len(nats),
    "tokens": count,
    "bytes": size,
    "nats": total,
    "nats_per_byte": total / size,
    "nats_per_token": total / count,
    "low": low,
    "high": high,
  }


def document_nats(
  loaded: Loaded, texts: Sequence[str], length: int
) -> tuple[np.ndarray, np.ndarray]:
  """Return the sum of -log p (nats) of the tokens of each text, and their number.

  Batches hold windows of one bucket of lengths, so few programs are compiled. They have
  as many rows as memory holds, equally for all devices.
  """
  encoded = loaded.tokenizer.encode_batch(texts)
  nats, shards = np.zeros(len(texts)), sharding.batch_shards(loaded.mesh)
  buckets: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
  for index, ids in enumerate(encoded):
    for window in windows([loaded.tokenizer.eos_id, *ids], length):
      # The next power of two, at most the longest window.
      size = max(_SHORTEST_BUCKET, 1 << (len(window) - 2).bit_length())
      buckets[min(length, size)].append((index, window))
  total = sum(map(len, buckets.values()))
  with Progress(total, "windows", "scoring", interval=None) as bar:
    for size, members in sorted(buckets.items()):
      fitting = _LOGITS // (size * loaded.config.vocabulary_size)
      rows = shards * max(1, min(_MOST_ROWS // shards, fitting))
      for batch in (members[i : i + rows] for i in range(0, len(members), rows)):
        tokens_BT = np.zeros((rows, size + 1), np.int32)
        for row, (_, window) in enumerate(batch):
          tokens_BT[row, : len(window)] = window
        with sharding.layout(loaded.mesh):
          losses_BT = np.asarray(_losses(loaded.config, loaded.params, tokens_BT))
        for row, (index, window) in enumerate(batch):
          losses_T = losses_BT[row, : len(window) - 1]
          check_log_probs(loaded, losses_T)
          nats[index] += math.fsum(losses_T)
        bar.update(len(batch))
  return nats, np.asarray([len(ids) for ids in encoded])


def windows(ids: list[int], length: int) -> Iterator[list[int]]:
  """Cut ids where a model would have to read more than `length` of them.

  Every id but the first is in exactly one window behind another: its target.
  """
  for start in range(0, len(ids) - 1, length):
    yield ids[start : start + length + 1]


@functools.partial(jax.jit, static_argnums=0)
def _losses(config: Any, params: Any, tokens_BT: jax.Array) -> jax.Array:
  """Return -log p of each token but the first, BT float32; padding changes none."""
  logits_BTV: Any = Decoder(config).apply({"params": params}, tokens_BT[:, :-1])
  return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, tokens_BT[:, 1:])


def write(folder: Path, loaded: Loaded, texts: Sequence[Texts]) -> str:
  """Score files, write loss.json, and return a table for a terminal.

  The longest window has as many tokens as the sequences that the checkpoint was trained
  on; where it does not say, as many as the model can read.
  """
  length = loaded.config.max_length
  if loaded.path:
    trained = Checkpoint(loaded.path).meta["config"].get("train", {})
    length = min(length, trained.get("sequence_length", length))
  rows = measure(loaded, texts, length)
  found = {
    "format": 1,
    "checkpoint": loaded.path and str(loaded.path),
    "digest": loaded.digest,
    "step": loaded.step,
    "tokens_seen": loaded.tokens_seen,
    "dtype": loaded.config.dtype,
    "length": length,
    "files": [
      {"file": str(f.path), "sha256": f.sha256}
      | {"documents": f.total, "taken": len(f.documents)}
      for f in texts
    ],
    "losses": rows,
  }
  storage.write_json(folder / RESULT, found)
  lines = [("file", "kind", "documents", "bytes", "nats/byte", "nats/token")]
  for row in rows:
    interval = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
    cells = (f"{row['documents']:,}", f"{row['bytes']:,}")
    cells += (f"{row['nats_per_byte']:.4f}{interval}", f"{row['nats_per_token']:.4f}")
    lines.append((Path(row["file"]).name, row["kind"], *cells))
  return "\n".join(workdir.columns(lines))


def main(parser: command.Parser, argv: Sequence[str]) -> int:
  """Score held-out texts with a checkpoint."""
  add, path = parser.add_argument, storage.parse
  words = "work directory, checkpoints or step folder"
  add("--checkpoint", type=path, required=True, help=words)
  words = "JSON lines of `text` and perhaps `kind` (repeatable)"
  add("--texts", action="append", required=True, type=path, metavar="FILE", help=words)
  add("--workdir", type=path, default=Path("runs/loss"), help="gets loss.json")
  add("--max_documents", type=int, default=200, help="of a file (default: 200)")
  add("--dtype", choices=DTYPES, help="default: as it was trained")
  arguments = parser.parse(argv)
  if arguments.gin_files or arguments.gin_bindings:
    raise InputError("loss: got gin files or bindings, expected flags only (--help)")
  texts = [read(file, arguments.max_documents) for file in arguments.texts]
  checkpoint = Checkpoint.find(arguments.checkpoint)
  loaded = open_checkpoint(checkpoint, one_host_mesh(), arguments.dtype)
  with workdir.opened(arguments.workdir, "scoring") as mirror:
    table = write(mirror.local, loaded, texts)
  print(table)
  print(f"written to {arguments.workdir / RESULT}")
  return command.DONE
