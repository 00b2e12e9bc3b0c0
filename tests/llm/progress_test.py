"""What a run says of itself and of its money."""

import pathlib

import pytest

from phi1_jax.llm.asker import Asker
from phi1_jax.llm.journal import Journal
from phi1_jax.llm.progress import Bill

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("thread_courier")


def test_an_estimate_sends_nothing(server, configure, requests, ask):
  config = configure(server.url)
  with Asker(config) as asker:
    first = asker.estimate(requests(10) + requests(10))
  assert (first.requests, first.already_paid, first.to_send) == (10, 0, 10)
  assert first.expected == 10 * (3 * 150_000 + 32 * 600_000)
  assert server.counts()["came"] == 0
  ask(config, requests(10))
  assert server.money <= first.worst
  with Asker(config) as asker:
    second = asker.estimate(requests(12))
  assert (second.already_paid, second.to_send) == (10, 2)
  assert second.spent == server.money
  assert second.expected < first.expected  # the journal knows short replies
  assert "2 to send" in second.text()


def test_progress_knows_the_money(server, configure, requests, parse):
  seen = []
  with Asker(configure(server.url), seen.append) as asker:
    list(asker.ask(iter(requests(8)), parse, total=8))
  assert [seen[-1].done, seen[-1].total] == [8, 8]
  assert seen[-1].spent == server.money
  assert seen[-1].spent + seen[-1].left == 10**12
  assert seen[-1].rate > 0
  assert seen[-1].eta_seconds == 0
  assert set(seen[-1].figures()) == {"spent", "left"}
  assert [snapshot.done for snapshot in seen] == sorted(s.done for s in seen)


def test_the_bill_is_the_journals(serve, configure, requests, parse):
  with serve({"hang": 0.5}) as server:
    config = configure(server.url, timeout_seconds=0.3)
    with Asker(config) as asker:
      assert asker.bill() == Bill(0, 0, 0)
      assert len(list(asker.ask(requests(6), parse))) == 6
      next(asker.ask(requests(3, first=50), parse))  # others are under way
    account = Journal(pathlib.Path(config.journal)).account
  bill = asker.bill()
  assert (bill.spent, bill.doubtful) == (account.spent, account.doubtful)
  assert bill.doubtful_calls == account.doubtful_calls > 0
  # A busy machine may give up on a reply that was billed: that call is in doubt too.
  assert bill.spent <= server.money <= bill.spent + bill.doubtful


def test_progress_is_counted_anew_by_each_ask(server, configure, requests, parse):
  seen = []
  with Asker(configure(server.url), seen.append) as asker:
    for count in (3, 2):
      list(asker.ask(requests(count), parse))
      assert (seen[-1].done, seen[-1].total) == (count, count)
      assert seen[-1].spent == server.money
