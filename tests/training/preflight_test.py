import pytest

from phi1_jax import InputError
from phi1_jax.training import preflight


@pytest.mark.parametrize("start", ["resume_from", "init_from"])
@pytest.mark.parametrize("digest", [None, "digest"])
def test_a_run_goes_on_from_a_training_state_only(tiny, monkeypatch, start, digest):
  """A converted checkpoint, which names no store, has parameters alone."""
  run = tiny(checkpoint={start: "there"})
  meta = {"model_shape": run.config.model.shape(), "store": digest}
  monkeypatch.setattr(preflight.manager, "find", lambda place: place)
  monkeypatch.setattr(preflight.manager, "read_meta", lambda found: meta)
  if start == "resume_from" and digest is None:
    with pytest.raises(InputError, match=r"Checkpoint\.init_from"):
      preflight.check_start(run)
  else:
    preflight.check_start(run)


def test_a_run_of_another_model_is_refused(tiny, monkeypatch):
  run = tiny(checkpoint={"init_from": "there"})
  meta = {"model_shape": run.config.model.shape() | {"num_layers": 9}}
  monkeypatch.setattr(preflight.manager, "find", lambda place: place)
  monkeypatch.setattr(preflight.manager, "read_meta", lambda found: meta)
  with pytest.raises(InputError, match="num_layers=9"):
    preflight.check_start(run)
