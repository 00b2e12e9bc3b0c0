"""A store that its sources have left behind."""

import json
import types

import pytest

from phi1_jax import InputError
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.grammar import teacher
from phi1_jax.training import preflight


def store_of(**source):
  manifest = {"tasks": {"exercises": {"rate": "by_size", "sources": [source]}}}
  return types.SimpleNamespace(manifest=manifest)


def publish(folder, version, content):
  place = folder / "exercises" / version
  place.mkdir(parents=True)
  (place / CURATED_CONTENT).write_text(json.dumps({"documents": content}))


def test_another_version_of_the_grammar_is_another_store(tiny):
  preflight.check_current(
    store_of(name=teacher.NAME, version=str(teacher.VERSION)), tiny()
  )
  with pytest.raises(
    InputError, match=r"was built from grammar teacher .* 0, now there"
  ):
    preflight.check_current(store_of(name=teacher.NAME, version="0"), tiny())


def test_another_content_of_a_curated_set_is_another_store(tiny, tmp_path):
  store = store_of(name="exercises", version="1.9.0", content="a")
  setup = tiny(data={"curated_directory": str(tmp_path / "sets")})
  preflight.check_current(store, setup)  # the sets are not on this machine
  publish(tmp_path / "sets", "1.8.0", "old")
  publish(tmp_path / "sets", "1.9.0", "a")
  preflight.check_current(store, setup)
  publish(tmp_path / "other", "1.9.0", "b")
  other = tiny(data={"curated_directory": str(tmp_path / "other")})
  with pytest.raises(InputError, match=r"exercises 1\.9\.0, now .* with other content"):
    preflight.check_current(store, other)
  publish(tmp_path / "sets", "1.10.0", "b")
  with pytest.raises(
    InputError, match=r"built from exercises 1\.9\.0, .* is 1\.10\.0;"
  ):
    preflight.check_current(store, setup)
  # A run that goes on keeps its store.
  (setup.workdir / "checkpoints" / "4").mkdir(parents=True)
  preflight.check_current(store, setup)
