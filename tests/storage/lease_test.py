"""The lock of a folder: one holder, who may vanish."""

import errno
import json
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from phi1_jax import InputError, storage
from phi1_jax.storage import lease
from phi1_jax.storage.lease import FILE_NAME, Lease


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
  monkeypatch.setattr(lease, "EXPIRE_SECONDS", 3.0)


def _edit(folder, **changes):
  content = json.loads((folder / FILE_NAME).read_bytes())
  (folder / FILE_NAME).write_text(json.dumps({**content, **changes}))


def _wait(condition):
  deadline = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def _beat(folder):
  return storage.read_json(folder / FILE_NAME)["beat"]


def _leave(folder, **changes):
  """Leaves the lock of a holder that has ended without removing it."""
  code = (
    "import os, sys; from phi1_jax import storage; "
    "storage.Lease(storage.parse(sys.argv[1]), 'training'); os._exit(9)"
  )
  subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
  if changes:
    _edit(folder, **changes)


def test_a_holder_elsewhere_is_alive_while_it_beats(tmp_path):
  with Lease(tmp_path, "training") as held:
    held._content["machine"] = "elsewhere"
    _wait(lambda: storage.read_json(tmp_path / FILE_NAME)["machine"] == "elsewhere")
    assert storage.is_held(tmp_path)


def test_one_holder_at_a_time(tmp_path):
  folder = tmp_path / "new" / "run"
  for _ in range(2):
    with Lease(folder, "training"):
      assert storage.is_held(folder)
      with pytest.raises(InputError, match="training"):
        Lease(folder, "training")
    assert not storage.is_held(folder)
  for text in ("", '{"host": "a", "mach'):  # of an earlier version, or torn
    (folder / FILE_NAME).write_text(text)
    with Lease(folder, "training"):
      assert storage.is_held(folder)


@pytest.mark.parametrize(
  ("changes", "waits"),
  [
    ({}, False),  # killed on this machine
    ({"pid": 1, "started": "0"}, False),  # another process has its number
    ({"machine": "another", "host": "vm-1"}, True),  # a machine that vanished
  ],
)
def test_a_holder_that_is_gone_is_replaced(tmp_path, caplog, changes, waits):
  _leave(tmp_path, **changes)
  assert (tmp_path / FILE_NAME).exists()
  started = time.monotonic()
  with Lease(tmp_path, "training"):
    assert ("waiting" in caplog.text) is waits
    assert not waits or time.monotonic() - started >= 3


def test_a_live_holder_on_another_machine_may_end_soon(tmp_path, monkeypatch):
  with monkeypatch.context() as there:
    there.setattr(lease, "_machine", lambda: "another")
    held = Lease(tmp_path, "training")
  with pytest.raises(storage.HeldError):
    Lease(tmp_path, "training")
  held.close()


def test_a_holder_that_is_stopping_ends_soon(tmp_path):
  received = []
  with Lease(tmp_path, "training", stopping=lambda: bool(received)):
    with pytest.raises(InputError):
      Lease(tmp_path, "training")
    received.append("SIGTERM")
    _wait(lambda: json.loads((tmp_path / FILE_NAME).read_bytes())["stopping"])
    with pytest.raises(storage.HeldError):
      Lease(tmp_path, "training")


def test_a_process_that_waits_gets_the_folder(tmp_path):
  first, closed = Lease(tmp_path, "building"), []

  def close():
    closed.append(1)
    first.close()

  threading.Timer(1.5, close).start()
  with Lease(tmp_path, "building", wait=True):
    assert closed


def test_the_holder_learns_that_the_folder_was_taken_over(tmp_path):
  lost = []
  with Lease(tmp_path, "training", on_lost=lambda: lost.append(1)) as held:
    (tmp_path / FILE_NAME).unlink()  # somebody deletes it: it is written again
    _wait(lambda: lease.token(tmp_path) == held.token)
    assert not lost
    _edit(tmp_path, token="another")
    _wait(lambda: lost)
  assert (tmp_path / FILE_NAME).exists()  # it is the other one's


def test_an_outage_does_not_cost_the_lease(gcs, monkeypatch):
  folder = storage.parse(f"{gcs.folder}/run")
  lost = []
  with Lease(folder, "training", on_lost=lambda: lost.append(1)):
    gcs.fail(method="POST", status=503, times=2)
    gcs.fail(method="GET", status=503, times=2)
    beat = _beat(folder)
    _wait(lambda: _beat(folder) > beat + 1)
    assert len(gcs.heal()) == 4
    assert storage.is_held(folder)
  assert not lost


@pytest.mark.parametrize("where", ["disk", "disk without links", "cloud"])
@pytest.mark.parametrize("before", ["nothing", "expired"])
def test_of_many_takers_one_gets_the_folder(
  request, tmp_path, monkeypatch, where, before
):
  """Each reads the lock, waits for the others, and then writes."""
  folder = tmp_path / "run"
  if where == "disk without links":
    refused_link = Mock(side_effect=PermissionError(errno.EPERM, "no links"))
    monkeypatch.setattr(lease.os, "link", refused_link)
  if where == "cloud":
    folder = storage.parse(f"{request.getfixturevalue('gcs').folder}/run")
  if before == "expired":
    _leave(folder)
  barrier, made, refused = threading.Barrier(4), [], []
  read = lease._read

  def reading(place):
    found = read(place)
    name = threading.current_thread().name
    if name in waiting:
      waiting.remove(name)
      barrier.wait(20)
    return found

  waiting = [f"taker {number}" for number in range(4)]

  def take():
    try:
      made.append(Lease(folder, "training"))
    except (InputError, storage.HeldError) as error:
      refused.append(error)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(lease, "_read", reading)
    threads = [threading.Thread(target=take, name=name) for name in list(waiting)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert (len(made), len(refused)) == (1, 3), refused
  assert lease.token(folder) == made[0].token
  made[0].close()
  assert storage.names(folder) == []


@pytest.mark.parametrize("where", ["disk", "cloud"])
def test_a_resumed_holder_does_not_take_the_folder_back(request, tmp_path, where):
  folder = tmp_path / "run"
  if where == "cloud":
    folder = storage.parse(f"{request.getfixturevalue('gcs').folder}/run")
  lost = []
  held = Lease(folder, "training", on_lost=lambda: lost.append(1))
  held._closing.set()  # suspended
  held._thread.join()
  (folder / FILE_NAME).unlink()
  taker = Lease(folder, "training")
  held._closing.clear()
  held._beaten = 0.0
  held._renew()
  assert lost == [1]
  assert held.lost
  assert lease.token(folder) == taker.token
  taker.close()
