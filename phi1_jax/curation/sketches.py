"""What deduplication compares of a document: sets of word runs, and their signatures.

Licence headers and imports are not content: a quarter of a small file may be the header
that it shares with a thousand others.
"""

import hashlib
import re

import numpy as np
import numpy.typing as npt
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

from phi1_jax.text import shingles, source

Hashes = npt.NDArray[np.uint64]
_SEED = 0x5048_4931  # of the signatures' hash functions
_HEADER_CHARACTERS = 12_000
_LICENCE = re.compile(  # in lower case: ignoring it here would be three times slower
  r"copyright|licen[sc]e|spdx-|all rights reserved|warrant(?:y|ies)|permission is here"
  r"by|redistribut|author:|@author"
)
_COMMENTS = re.compile(r"(?:^[ \t]*#[^\n]*\n)+", re.MULTILINE)
_STRING = re.compile(r"^(?:[rRuU]?\"\"\".*?\"\"\"|[rRuU]?'''.*?''')", re.DOTALL | re.M)
_IMPORTS = re.compile(
  r"^[ \t]*(?:import[ \t]+[\w., \t]+|from[ \t]+[\w.]+[ \t]+import[ \t]+"
  r"(?:\([^)]*\)|[^\n]*(?:\\\n[^\n]*)*))[^\n]*$",
  re.MULTILINE,
)


def content(text: str) -> str:
  """Return a text without licence headers and imports."""
  found = without_licence(text)
  return _IMPORTS.sub("", found) if "import" in found else found


def without_licence(text: str) -> str:
  """Return a text without the comments and the docstring at its head about licences."""
  head, rest = text[:_HEADER_CHARACTERS], text[_HEADER_CHARACTERS:]
  if _LICENCE.search(head.lower()):
    head = _COMMENTS.sub(_unless_licence, head)
    head = _STRING.sub(_unless_licence, head, count=1)
  return head + rest


def _unless_licence(match: re.Match) -> str:
  return "" if _LICENCE.search(match[0].lower()) else match[0]


def sketch(text: str, size: int) -> tuple[Hashes, int]:
  """Return the shingles of `size` words of a text, and a digest of its content.

  Digests are equal for contents with the same shingles; for contents with fewer words
  than a shingle, which have none, if their lines are equal.
  """
  found = shingles.shingles(source.words(content(text)), size)
  if len(found):
    return found, _hash(b"shingles", found.tobytes())
  return found, _hash(b"lines", "\n".join(source.lines(text)).encode("utf-8"))


def of_id(name: str) -> int:
  """Return a hash of 64 bits of a whole id, which may be anything."""
  return _hash(b"id", name.encode("utf-8", "surrogatepass"))


def key(name: str, rank: int) -> int:
  """Return an integer that sorts ids by a priority of 4 bits, then by 60 bits."""
  try:
    if len(name) != 32:
      raise ValueError
    value = int(name[:15], 16)
  except ValueError:
    value = of_id(name) >> 4
  return (rank << 60) | value


def bands(sets: list[Hashes], permutations: int, count: int) -> Hashes:
  """Return the hash of each band of the MinHash signature of each set [n, count]."""
  offsets = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
  flat = np.concatenate(sets) if sets else np.zeros(0, np.uint64)
  matrix = RMinHash.digest_matrix_from_flat_token_hashes(
    flat, offsets, num_perm=permutations, seed=_SEED
  )
  rows = np.array(matrix.to_rows(), np.uint64).reshape(len(sets), count, -1)
  hashes = np.zeros((len(sets), count), np.uint64)
  hashes += np.arange(1, count + 1, dtype=np.uint64)
  for column in range(rows.shape[2]):
    hashes = _mixed(hashes ^ _mixed(rows[:, :, column] + np.uint64(column + 1)))
  return hashes


def _mixed(values: Hashes) -> Hashes:
  """Spread every bit over all of them (the finaliser of splitmix64)."""
  values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
  values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
  return values ^ (values >> np.uint64(31))


def _hash(kind: bytes, value: bytes) -> int:
  digest = hashlib.blake2b(kind + value, digest_size=8).digest()
  return int.from_bytes(digest, "little")
