import json

import pytest

from evals import workdir
from phi1_jax import InputError
from phi1_jax.text import settings_file


def test_begin_refuses_another_run(tmp_path):
  settings = {"task_set": "humaneval-164", "stops": ("a", "b"), "seed": 0}
  settings_file.begin(tmp_path / workdir.RUN, settings)
  settings_file.begin(tmp_path / workdir.RUN, settings)
  with pytest.raises(InputError, match="begun with seed = 0, now it is 1; name"):
    settings_file.begin(tmp_path / workdir.RUN, settings | {"seed": 1})


def test_notes_add_up(tmp_path):
  settings_file.begin(tmp_path / workdir.RUN, {})
  workdir.note(tmp_path, "generate", {"seconds": 1.5, "step": 3})
  workdir.note(tmp_path, "generate", {"seconds": 2.0})
  run = json.loads((tmp_path / "run.json").read_text())
  assert run["generate"] == {"seconds": 3.5, "step": 3}
