import json

from evals import workdir
from phi1_jax.text import settings_file


def test_notes_add_up(tmp_path):
  settings_file.begin(tmp_path / workdir.RUN, {})
  workdir.note(tmp_path, "generate", {"seconds": 1.5, "step": 3})
  workdir.note(tmp_path, "generate", {"seconds": 2.0})
  run = json.loads((tmp_path / "run.json").read_text())
  assert run["generate"] == {"seconds": 3.5, "step": 3}
