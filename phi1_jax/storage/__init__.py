"""Every path that a user names, local or `gs://`, and every file that must survive.

paths    parses a path; refuses other schemes
retry    the retry policy for transient I/O errors
files    reads, atomic writes, copies, append-only JSON lines with torn-line recovery
lease    the lock of a folder, kept by a heartbeat
mirror   a local copy of a `gs://` folder, for files that are appended to
"""

# ruff: noqa: F401 — other rooms take these names from here.
from phi1_jax.storage.files import (
  JsonLines,
  download,
  exists,
  json_objects,
  move,
  names,
  read_bytes,
  read_json,
  read_lines,
  read_text,
  stat,
  write_bytes,
  write_json,
  write_text,
  writing,
)
from phi1_jax.storage.lease import HeldError, Lease, is_held
from phi1_jax.storage.mirror import Mirror, cache_folder
from phi1_jax.storage.paths import AnyPath, full, is_remote, parse
from phi1_jax.storage.retry import StorageError, is_transient, retrying
