import os
import signal

import pytest

from phi1_jax.training.preemption import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_acts(number):
  heard = []
  before = signal.signal(number, lambda *_: heard.append("before"))
  try:
    with StopSignal() as stop:
      assert not stop.requested()
      os.kill(os.getpid(), number)
      assert stop.requested()
      assert heard == []
      os.kill(os.getpid(), number)
      assert heard == ["before"]
  finally:
    signal.signal(number, before)


def test_handlers_are_put_back():
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with StopSignal():
    assert signal.getsignal(signal.SIGTERM) != before[0]
  assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
