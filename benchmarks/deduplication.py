"""Near-duplicates of real files with planted copies: quality and speed against peers.

    python benchmarks/deduplication.py FOLDER --files=5000 --planted=200

FOLDER holds Python files; installed packages will do. Every planted copy is a file with
some of its lines changed, so that its similarity to the original (Jaccard index of runs
of 5 words) lies between 0.7 and 1. A tool finds a pair if it keeps one of both; what it
removes without a partner of similarity 0.7 or more is a false removal. Peers run on the
same words: rensa's RMinHashDeduplicator, and datasketch's MinHashLSH where it is
installed. datatrove's own MinHash needs word tokenizers and data for them.
"""

import argparse
import collections
import functools
import importlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax.curation import card, deduplicate, form
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.curation.document import Document, Keep, identify
from phi1_jax.curation.engine import Job
from phi1_jax.curation.sketches import content
from phi1_jax.text import shingles, source

THRESHOLD, SHINGLE, PERMUTATIONS = 0.7, 5, 144
Removed = set[int]


def read(folder: Path, number: int, seed: int) -> list[str]:
  """Return the texts of files of good form, drawn at random, without equal ones."""
  paths = sorted(folder.rglob("*.py"))
  random.Random(seed).shuffle(paths)
  texts: dict[str, None] = {}
  for path in paths:
    text = path.read_text(errors="replace")
    if form.problem(text) is None and len(source.words(content(text))) >= 50:
      texts[text] = None
    if len(texts) == number:
      break
  return list(texts)


def changed(text: str, chance: random.Random) -> str:
  """Return a text with some of its lines replaced, similar by 0.7 or more."""
  lines = text.split("\n")
  share = chance.uniform(0.0, 0.06)
  for place in range(len(lines)):
    if lines[place].strip() and chance.random() < share:
      indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
      lines[place] = f"{indent}# line {chance.randrange(10**6)} is another"
  return "\n".join([*lines, f"# {chance.randrange(10**6)}", ""])


def sets_of(texts: Sequence[str]) -> list[np.ndarray]:
  """Return the shingles of the content of each text."""
  return [shingles.shingles(source.words(content(text)), SHINGLE) for text in texts]


def ours(texts: Sequence[str]) -> Removed:
  """Run the stage with one worker."""
  places = {identify(str(n), text): n for n, text in enumerate(texts)}
  with tempfile.TemporaryDirectory() as scratch:
    given, out = Path(scratch) / "in", Path(scratch) / "out"
    made = [
      Keep(Document(identify(str(n), text), text, "s", "MIT", "code", str(n)))
      for n, text in enumerate(texts)
    ]
    folders.spill(given / "x.parquet", made)
    config = DeduplicateConfig((str(given / "x.parquet"),), maximum_loss=1.0)
    deduplicate.run(Job(config, out, workers=1))
    return {places[drop.document.id] for drop in folders.dropped(out)}


def rensa(texts: Sequence[str]) -> Removed:
  """Run rensa's deduplicator on the same words."""
  library: Any = importlib.import_module("rensa")

  tool = library.RMinHashDeduplicator(
    threshold=THRESHOLD,
    num_perm=PERMUTATIONS,
    use_lsh=True,
    num_bands=24,
  )
  removed = set()
  for number, text in enumerate(texts):
    words = source.words(content(text))
    runs = [" ".join(words[n : n + SHINGLE]) for n in range(len(words) - SHINGLE + 1)]
    minhash = library.RMinHash(num_perm=PERMUTATIONS, seed=42)
    minhash.update(runs)
    if not tool.add(str(number), minhash):
      removed.add(number)
  return removed


def datasketch(texts: Sequence[str]) -> Removed:
  """Run datasketch's LSH on the same words, keeping the first of each pair."""
  from datasketch import (  # pyright: ignore[reportMissingImports]
    MinHash,
    MinHashLSH,
  )

  index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
  removed = set()
  for number, text in enumerate(texts):
    words = source.words(content(text))
    runs = {
      " ".join(words[n : n + SHINGLE]).encode() for n in range(len(words) - SHINGLE + 1)
    }
    minhash = MinHash(num_perm=PERMUTATIONS)
    minhash.update_batch(runs)
    if index.query(minhash):
      removed.add(number)
    else:
      index.insert(number, minhash)
  return removed


TOOLS: dict[str, Callable[[Sequence[str]], Removed]] = {
  "this project": ours,
  "rensa": rensa,
  "datasketch": datasketch,
}


def index(sets: Sequence[np.ndarray]) -> dict[int, list[int]]:
  """Return the sets that hold each shingle."""
  owners: dict[int, list[int]] = collections.defaultdict(list)
  for number, each in enumerate(sets):
    for value in each.tolist():
      owners[value].append(number)
  return owners


def has_partner(
  number: int, sets: Sequence[np.ndarray], owners: dict[int, list[int]]
) -> bool:
  """Return whether another set is similar to this one, found without MinHash."""
  shared: collections.Counter[int] = collections.Counter()
  for value in sets[number].tolist():
    shared.update(owners[value])
  del shared[number]
  size = len(sets[number])
  return any(
    count / (size + len(sets[other]) - count) >= THRESHOLD
    for other, count in shared.items()
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Print a table of the tools."""
  parser = argparse.ArgumentParser(description="Deduplication.")
  parser.add_argument("folder", type=Path)
  parser.add_argument("--files", type=int, default=5000)
  parser.add_argument("--planted", type=int, default=200)
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args(argv)
  texts = read(arguments.folder, arguments.files, arguments.seed)
  chance = random.Random(arguments.seed)
  originals = chance.sample(range(len(texts)), arguments.planted)
  texts += [changed(texts[n], chance) for n in originals]
  sets = sets_of(texts)
  copies = range(len(texts) - arguments.planted, len(texts))
  pairs = [
    (a, b)
    for a, b in zip(originals, copies, strict=True)
    if shingles.jaccard(sets[a], sets[b]) >= THRESHOLD
  ]
  owners = index(sets)
  similar = functools.cache(lambda number: has_partner(number, sets, owners))
  rows = []
  for name, tool in TOOLS.items():
    started = time.process_time()
    try:
      removed = tool(texts)
    except ImportError:
      rows.append((name, "not installed", "", "", ""))
      continue
    seconds = time.process_time() - started
    found = sum(a in removed or b in removed for a, b in pairs)
    wrong = sum(not similar(number) for number in removed)
    rate = f"{len(texts) / seconds:.0f}"
    rows.append((name, f"{found} of {len(pairs)}", len(removed), wrong, rate))
  head = ("tool", "planted pairs found", "removed", "of these wrongly")
  print(card.table((*head, "documents per CPU-second"), rows))
  return 0


if __name__ == "__main__":
  sys.exit(main())
