import json
import logging
import threading

import pytest

from phi1_jax.parallel import hosts


@pytest.fixture
def stored(monkeypatch):
  """Keys and values that two hosts have stored; this process is host 1."""
  found = {}

  class Client:
    def key_value_set(self, key, value):
      found[key] = value

    def key_value_dir_get(self, place):
      return [pair for pair in found.items() if pair[0].startswith(place)]

  monkeypatch.setattr(hosts, "_client", Client)
  monkeypatch.setattr(hosts, "count", lambda: 2)
  monkeypatch.setattr(hosts, "index", lambda: 1)
  return found


def test_a_wait_for_another_host_is_said_before_it_ends(stored, monkeypatch, caplog):
  monkeypatch.setattr(hosts, "SILENT_SECONDS", 0.05)

  def come():
    (key,) = stored
    stored[key.removesuffix("1") + "0"] = json.dumps("here")

  caplog.set_level(logging.WARNING)
  timer = threading.Timer(1.0, come)
  timer.start()
  assert hosts.exchange("building", "there") == ["here", "there"]
  timer.join()
  said = [record.getMessage() for record in caplog.records]
  assert 1 <= len(said) <= 5
  assert all("host 0" in line and "building" in line for line in said)


def test_a_host_that_does_not_come(stored):
  with pytest.raises(hosts.GoneError, match="host 0 did not come to: building"):
    hosts.exchange("building", 1, limit=0.1)


def test_one_host_speaks_for_those_that_wait(stored, monkeypatch, caplog):
  monkeypatch.setattr(hosts, "SILENT_SECONDS", 0.02)
  monkeypatch.setattr(hosts, "count", lambda: 3)
  key = f"{hosts._KEY_PREFIX}/{next(hosts._meetings) + 1} building/0"
  stored[key] = json.dumps("here")  # host 0 waits, too
  with pytest.raises(hosts.GoneError, match="host 2 did not come"):
    hosts.exchange("building", 1, limit=0.2)
  assert not caplog.records
