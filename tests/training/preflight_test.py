import pytest

from phi1_jax import InputError
from phi1_jax.training import preflight


@pytest.mark.parametrize("start", ["resume_from", "init_from"])
@pytest.mark.parametrize("digest", [None, "digest"])
def test_a_run_goes_on_from_a_training_state_only(
  tiny, described, tmp_path, start, digest
):
  """A converted checkpoint, which names no store, has parameters alone."""
  run = tiny(checkpoint={start: str(tmp_path / "5")})
  described(tmp_path / "5", {"model_shape": run.config.model.shape(), "store": digest})
  if start == "resume_from" and digest is None:
    with pytest.raises(InputError, match=r"Checkpoint\.init_from"):
      preflight.check_start(run)
  else:
    preflight.check_start(run)


def test_a_run_of_another_model_is_refused(tiny, described, tmp_path):
  run = tiny(checkpoint={"init_from": str(tmp_path / "5")})
  shape = run.config.model.shape() | {"num_layers": 9}
  described(tmp_path / "5", {"model_shape": shape})
  with pytest.raises(InputError, match="num_layers=9"):
    preflight.check_start(run)
