import os
import signal

import pytest

from phi1_jax.training.preemption import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_acts(number):
  heard = []

  def handler(*_):
    heard.append("before")

  before = signal.signal(number, handler)
  try:
    with StopSignal() as stop:
      assert not stop.requested()
      os.kill(os.getpid(), number)
      assert stop.requested()
      assert heard == []
      os.kill(os.getpid(), number)
      assert heard == ["before"]
    with StopSignal():
      assert signal.getsignal(number) is not handler
    assert signal.getsignal(number) is handler
  finally:
    signal.signal(number, before)
