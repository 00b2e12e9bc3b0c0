import pytest

from phi1_jax import InputError
from phi1_jax.text import settings_file


def test_digest_is_that_of_the_content():
  assert settings_file.digest({"a": 1, "b": [2.5]}) == settings_file.digest(
    {"b": [2.5], "a": 1}
  )
  assert settings_file.digest({"a": 1}) != settings_file.digest({"a": "1"})
  assert len(settings_file.digest("\ud800")) == 64  # JSON can hold it


def test_a_folder_keeps_its_settings(tmp_path):
  settings = {"task_set": "humaneval-164", "stops": ("a", "b"), "seed": 0}
  begun = settings_file.begin(tmp_path / "run.json", settings)
  assert begun["settings"] == {**settings, "stops": ["a", "b"]}
  assert settings_file.begin(tmp_path / "run.json", settings) == begun
  with pytest.raises(InputError, match="begun with seed = 0, now it is 1; name"):
    settings_file.begin(tmp_path / "run.json", settings | {"seed": 1})
