import types
from contextlib import nullcontext

import jax
import pytest

from phi1_jax import InputError
from phi1_jax.training import memory
from phi1_jax.training.memory import GIB


def compiled(temporary):
  """What a compiled step tells of its memory."""
  analysis = types.SimpleNamespace(temp_size_in_bytes=temporary)
  return types.SimpleNamespace(memory_analysis=lambda: analysis)


def test_a_step_is_state_batch_and_temporary(tiny, monkeypatch):
  """What does not fit is refused with its sizes."""
  setup = tiny(mesh=(2, 4, 1))
  need = memory.step_memory(compiled(2 * GIB), setup)
  parameters = setup.config.model.num_parameters()
  assert need.batch == 2 * 17 * 4  # two of the sixteen rows, int32
  assert 3 * 4 * parameters / 4 < need.state < 3 * 4 * parameters / 2
  assert (need.temporary, memory.step_memory(None, setup).temporary) == (2 * GIB, 0)
  assert memory.device_memory() == memory.host_memory() // 8  # devices share the host
  refusal = "state 0.0 GiB . temporary 5.0 GiB exceed its 3.0 GiB"
  for temporary, have, message in (
    (2 * GIB, 3 * GIB, None),
    (5 * GIB, 3 * GIB, f"{parameters:,} parameters are .*{refusal}"),
    (None, 1000, "too large for one cpu device"),  # before anything is compiled
    (10**6 * GIB, None, None),  # nobody knows
  ):
    monkeypatch.setattr(memory, "device_memory", lambda have=have: have)
    refused = pytest.raises(InputError, match=message) if message else nullcontext()
    with refused:
      memory.check_fits(temporary and compiled(temporary), setup)


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
