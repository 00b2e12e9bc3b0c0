"""The journal of version 0.1 becomes one that this version reads."""

import json
import runpy
import sys
import zlib

import pytest

from phi1_jax import InputError
from phi1_jax.llm import import_jsonl
from phi1_jax.llm.journal import Journal
from tests.llm.conftest import requests

pytestmark = pytest.mark.usefixtures("thread_sender")


def write_old(folder, kind, rows, tail=b""):
  """Write a file of a journal of version 0.1."""
  folder.mkdir(exist_ok=True)
  lines = [json.dumps({"journal": f"phi1_jax.llm {kind}", "version": 1}).encode()]
  for row in rows:
    rest = json.dumps({"time": 1.0, **row}).encode()[1:]
    lines.append(b'{"crc32": "%08x", ' % zlib.crc32(rest) + rest)
  (folder / f"{kind}.jsonl").write_bytes(b"\n".join(lines) + b"\n" + tail)


@pytest.fixture
def old(llm):
  """A reply, one of a batch, a broken one, a failure and a call without an end."""
  folder = llm.folder
  # The line of the batch's call is lost: its reply names the batch, too.
  sent = [{"call": n, "key": f"k{n}", "reserve": 100, "batch": None} for n in range(5)]
  write_old(folder, "sent", [sent[0], *sent[2:]], b'{"crc32": "torn')
  write_old(folder, "batches", [{"batch": "b", "state": "closed", "id": "batch_9"}])
  message = {"message": {"content": "answer old"}, "finish_reason": "stop"}
  good = {"choices": [message]}
  line = {"custom_id": "k1", "response": {"status_code": 200, "body": good}}
  bodies = [(json.dumps(good), 10), (json.dumps(line), 5), ('{"broken', 70)]
  replies = [
    {
      **{"key": f"k{n}", "call": n, "picodollars": cost, "raw": raw},
      **{"usage": {"prompt": 3, "completion": 2}, "price": {}, "sample": 0},
      **{"prompt_id": "test", "prompt_version": "1", "batch": "b" if n == 1 else None},
      "request": requests(1, first=n)[0].content(llm.config())["body"],
    }
    for n, (raw, cost) in enumerate(bodies)
  ]
  write_old(folder, "replies", replies)
  failure = {"call": 3, "key": "k3", "released": True, "status": 500}
  write_old(folder, "failures", [failure | {"reason": "half a pair: \ud83d"}])
  return folder


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_nothing_that_was_paid_is_paid_again(llm, old, capsys, monkeypatch):
  with pytest.raises(InputError, match=f"import_jsonl {old} --base_url") as refused:
    Journal(old)
  before = {path.name: path.read_bytes() for path in old.iterdir()}
  command = str(refused.value).partition("python -m ")[2].split()
  monkeypatch.setattr(sys, "argv", [*command[:2], f"--base_url={llm.server.url}/"])
  for expected in (0, 2):  # in the end nothing is left to convert
    with pytest.raises(SystemExit) as ended:
      runpy.run_module(command[0], run_name="__main__", alter_sys=False)
    assert ended.value.code == expected
  assert capsys.readouterr().out == f"{old}/journal.sqlite: 5 calls\n"
  budget = llm.budget
  assert (budget.spent, budget.doubtful, budget.doubtful_calls) == (15, 170, 2)
  assert [x.value for x in llm.ask(2)] == ["answer old"] * 2
  assert {n: (old / n).read_bytes() for n in before} == before
  assert llm.server.counts()["came"] == 0


def test_what_cannot_be_converted_is_named(llm, old):
  path, url = old / "replies.jsonl", llm.server.url
  with pytest.raises(InputError, match="--base_url: got 'localhost:8000', expected"):
    import_jsonl.convert(old, "localhost:8000")
  path.write_bytes(path.read_bytes().replace(b"answer", b"anSwer", 1))
  with pytest.raises(InputError, match=r"replies.jsonl, line 2: damaged"):
    import_jsonl.convert(old, url)
  path.write_bytes(path.read_bytes().replace(b"anSwer", b"answer"))
  write_old(old, "batches", [{"batch": "b", "state": "created", "id": "batch_9"}])
  with pytest.raises(InputError, match="batch_9 is not finished"):
    import_jsonl.convert(old, url)
  assert not (old / "journal.sqlite").exists()
