"""A work directory belongs to one process at a time."""

import pytest

from phi1_jax import InputError
from phi1_jax.cli import workdir


def test_one_process_at_a_time(tmp_path):
  with (
    workdir.held(tmp_path, "training"),
    pytest.raises(InputError, match="another process is training"),
    workdir.held(tmp_path, "training"),
  ):
    pass
  with workdir.held(tmp_path / "new" / "folder", "training"):
    assert (tmp_path / "new" / "folder").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(InputError, match="--workdir: cannot write to"),
    workdir.held(tmp_path / "file" / "x", "training"),
  ):
    pass
