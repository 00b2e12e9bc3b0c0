import types

import jax
import pytest

from phi1_jax import InputError
from phi1_jax.training import memory
from phi1_jax.training.memory import GIB


def compiled(temporary):
  """What a compiled step tells of its memory."""
  analysis = types.SimpleNamespace(temp_size_in_bytes=temporary)
  return types.SimpleNamespace(memory_analysis=lambda: analysis)


def test_a_step_is_state_batch_and_temporary(tiny):
  need = memory.step_memory(compiled(1000), tiny(mesh=(2, 4, 1)))
  parameters = tiny().config.model.num_parameters()
  assert need.batch == 2 * 17 * 4  # two of the sixteen rows, int32
  assert 3 * 4 * parameters / 4 < need.state < 3 * 4 * parameters / 2
  assert need.temporary == 1000
  assert memory.step_memory(None, tiny()).temporary == 0


def test_what_does_not_fit_is_refused_with_sizes(tiny, monkeypatch):
  setup = tiny()
  parameters = f"{setup.config.model.num_parameters():,} parameters"
  monkeypatch.setattr(memory, "device_memory", lambda: 3 * GIB)
  memory.check_fits(None, setup)
  memory.check_fits(compiled(2 * GIB), setup)
  with pytest.raises(InputError) as error:
    memory.check_fits(compiled(5 * GIB), setup)
  assert parameters in str(error.value)
  assert "state 0.0 GiB + temporary 5.0 GiB exceed its 3.0 GiB" in str(error.value)
  monkeypatch.setattr(memory, "device_memory", lambda: 1000)
  with pytest.raises(InputError, match="too large for one cpu device"):
    memory.check_fits(None, setup)  # before anything is compiled
  monkeypatch.setattr(memory, "device_memory", lambda: None)
  memory.check_fits(compiled(10**6 * GIB), setup)  # nobody knows


@pytest.mark.parametrize(
  ("text", "error"),
  [
    ("RESOURCE_EXHAUSTED: 20.00G of 15.75G hbm\nlong", InputError),
    ("INTERNAL: something", jax.errors.JaxRuntimeError),
  ],
)
def test_the_compiler_says_no(tiny, text, error):
  class Step:
    def lower(self, *_):
      raise jax.errors.JaxRuntimeError(text)

  with pytest.raises(error) as raised:
    memory.compile_step(Step(), tiny())
  if error is InputError:
    assert str(raised.value).endswith(
      "device: RESOURCE_EXHAUSTED: 20.00G of 15.75G hbm"
    )


def test_simulated_devices_share_the_host():
  assert memory.device_memory() == memory.host_memory() // 8
