"""Watching a run: when it is started again, and when not."""

import pytest


def test_watch_starts_again_after_75_until_it_is_done(ready):
  ready.outcomes("75@100", "75@200", "0@300")
  done = ready.watch()
  assert done.returncode == 0, done.stderr
  assert "worker 0 75 200\n" in done.stdout
  assert "worker 0 0 300\ndone; see tpu/fetch.sh" in done.stdout
  assert sum("phi1_jax.train" in line for line in ready.python()) == 3
  assert set(ready.verbs()) == {"ssh"}


@pytest.mark.parametrize("how", ["preempted", "suspended"])
def test_watch_creates_a_preempted_tpu_again(ready, how):
  ready.write("queued-resources", "ACTIVE")
  ready.outcomes(f"{how}@100", "0@200")
  done = ready.watch("--spot", "--mount=touch mounted")
  assert done.returncode == 0, done.stderr
  calls = ready.calls()
  kept = [call for call in calls if call[3] in ("create", "delete", "scp")]
  assert [call[2:4] for call in kept] == [
    ["queued-resources", "delete"],
    ["queued-resources", "create"],
    ["tpu-vm", "scp"],
  ]
  first, last = (call for call in calls if "worker.sh start" in call[-1])
  assert first == last
  assert calls.index(first) < calls.index(kept[0]) < calls.index(kept[2])
  assert (ready.root / "worker-0/mounted").exists()


@pytest.mark.parametrize(
  ("code", "expected", "said"),
  [("2", 2, "was refused"), ("1", 1, "failed")],
)
def test_watch_stops_with_the_log_where_again_would_not_help(
  ready, code, expected, said
):
  ready.outcomes(f"{code}@10", "0@20")
  done = ready.watch()
  assert done.returncode == expected
  assert "worker 0: training in " in done.stderr
  assert f"error: the run {said}" in done.stderr
  assert sum("phi1_jax.train" in line for line in ready.python()) == 1


def test_watch_starts_again_after_a_host_that_left_no_exit_code(ready):
  ready.outcomes("killed@10", "0@20")
  done = ready.watch()
  assert done.returncode == 0, done.stderr
  assert "worker 0 lost 10\n" in done.stdout


def test_watch_gives_up_without_progress_only(ready):
  ready.outcomes("75@100", "75@200", "75@300", "75@300", "75@300", "0@400")
  done = ready.watch("--restarts=2")
  assert done.returncode == 1
  assert done.stderr == "error: gave up after 2 restarts without a new checkpoint\n"
  assert sum("phi1_jax.train" in line for line in ready.python()) == 5


def test_watch_waits_until_all_have_ended_before_it_starts_again(cloud):
  cloud.outcomes("75@10", "0@20", worker=0)
  cloud.outcomes("slow@10", "0@20", worker=1)
  done = cloud.watch()
  assert done.returncode == 0, done.stderr
  assert sum("phi1_jax.train" in line for line in cloud.python()) == 4


def test_a_network_that_fails_when_it_is_asked_after_a_failure_deletes_nothing(ready):
  ready.outcomes("1@10")
  ready.write("flaky")
  done = ready.watch()
  assert "ERROR: no network" in done.stderr
  assert done.returncode == 1
  assert set(ready.verbs()) == {"ssh"}


@pytest.mark.parametrize("state", ["STOPPED", "REPAIRING"])
def test_watch_leaves_alone_what_is_neither_ready_nor_preempted(ready, state):
  ready.write("tpu-vm", state, state, "READY")
  ready.outcomes("0@10")
  done = ready.watch()
  assert done.returncode == 0, done.stderr
  assert f"phi1 is {state}\nphi1 is {state}\n" in done.stdout
  assert set(ready.verbs()) == {"ssh"}


def test_a_worker_that_fails_beside_a_preempted_one_is_started_again(cloud):
  cloud.outcomes("75@10", "0@20", worker=0)
  cloud.outcomes("1@10", "0@20", worker=1)
  done = cloud.watch()
  assert done.returncode == 0, done.stderr
  assert sum("phi1_jax.train" in line for line in cloud.python()) == 4
