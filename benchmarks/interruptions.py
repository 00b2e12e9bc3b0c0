"""Kills a run that asks a model, at random moments, and counts what was paid for.

    python benchmarks/interruptions.py --kills=30

The model is a local server that bills, stalls, hangs, answers 429, 500 and errors under
200, reasons, and sends bodies that are cut off, broken off, garbled, too short or in
the wrong form. One run is left alone. Another is killed with SIGKILL again and again:
while it starts, while it asks, and while it waits for the replies that the run before
left in flight. In the end the server must have delivered exactly the replies that are
in the journal, none of them twice, and both outputs must be equal. A third run has a
third of the money and is killed too: it must stop below the cap, and finish when given
more. Last, the sender is killed as well, as if the power had failed.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from phi1_jax import InputError, storage
from phi1_jax.llm import prices
from phi1_jax.llm.client import BudgetError, Client
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.journal import Journal
from phi1_jax.llm.request import Message, Request

SERVER = Path(__file__).parents[1] / "tests/llm/counting_server.py"
MOODS = {
  "429": 0.06,
  "500": 0.06,
  "hang": 0.02,
  "error": 0.04,
  "think": 0.04,
  "reason": 0.04,
  "stall": 0.04,
  "truncated": 0.04,
  "broken": 0.04,
  "malformed": 0.04,
  "length": 0.06,
  "bad": 0.06,
}
ENOUGH = 1.0  # dollars
KINDS: tuple[str, ...] = ("start", "asking", "waiting")


def parse(text: str) -> str:
  """Takes what the server calls an answer."""
  if not text.startswith("answer "):
    raise Malformed("it does not begin with 'answer'")
  return text.strip()


def drive(url: str, folder: Path, requests: int, budget: float) -> int:
  """The run that is killed: asks everything, and writes the outcomes in their order."""
  config = LlmConfig(
    model="m",
    journal=str(folder / "journal"),
    budget_usd=budget,
    base_url=url,
    input_usd_per_million=0.15,
    output_usd_per_million=0.60,
    concurrency=6,
    timeout_seconds=2.0,
  )
  wanted = [
    Request((Message("user", f"exercise {number}"),), 64, "benchmark", "1")
    for number in range(requests)
  ]
  try:
    with (folder / "output.jsonl").open("w") as output, Client(config) as client:
      for outcome in client.ask(wanted, parse):
        row = {"asked": outcome.request.messages[0].content}
        if isinstance(outcome, Answered):
          # The key holds the server's port, which differs.
          reply = dataclasses.asdict(outcome.reply) | {"key": None}
          row |= {"text": outcome.value, "reply": reply}
        else:
          row |= {"failed": outcome.reason}
        output.write(json.dumps(row) + "\n")
  except (BudgetError, InputError) as error:
    print(error, file=sys.stderr)
    return 1
  return 0


@contextlib.contextmanager
def server(latency: float) -> Iterator[str]:
  """The counting server, as a process of its own; yields its address."""
  command = [sys.executable, str(SERVER), f"--moods={json.dumps(MOODS)}"]
  command += [f"--latency={latency}", "--stall=0.6"]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    try:
      yield process.stdout.readline().strip()
    finally:
      process.kill()


@dataclasses.dataclass(frozen=True)
class Study:
  """One server, one folder, and how often the run there is started."""

  url: str
  folder: Path
  requests: int

  def start(self, budget: float = ENOUGH) -> subprocess.Popen[str]:
    """Starts the run in a process group of its own."""
    self.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, f"--drive={self.url}", f"--budget={budget}"]
    command += [f"--folder={self.folder}", f"--requests={self.requests}"]
    log = (self.folder / "log.txt").open("a")
    return subprocess.Popen(command, stderr=log, start_new_session=True, text=True)

  def log(self) -> str:
    """What the runs said."""
    return (self.folder / "log.txt").read_text()

  def counts(self) -> dict[str, int]:
    """What the server has billed."""
    address = self.url.removesuffix("/v1") + "/counts"
    with urllib.request.urlopen(address) as answer:
      return json.loads(answer.read())

  def replies(self) -> int:
    """How many replies the journal holds."""
    return account(self)[0] if (self.folder / "journal").exists() else 0

  def output(self) -> bytes:
    """What the run has written."""
    return (self.folder / "output.jsonl").read_bytes()


def disturb(
  study: Study, kills: int, expected: int, chance: random.Random, budget: float
) -> dict[str, int]:
  """Kills the run `kills` times on its way to `expected` replies; counts by kind."""
  done: dict[str, int] = dict.fromkeys(KINDS, 0)
  plan = [KINDS[number % 3] for number in range(kills)]
  chance.shuffle(plan)
  for number, kind in enumerate(plan):
    begun, process = study.replies(), study.start(budget)
    # Somewhere in this start's share of the run, so that all of them get a turn.
    share = (expected - begun) / (len(plan) - number + 1)
    goal = begun + chance.uniform(0.1, 1.2) * share
    if kind == "start":
      time.sleep(chance.uniform(0.0, 1.5))
    else:
      wait(lambda goal=goal: study.replies() >= goal, process)
    if kind == "waiting":  # for what this one leaves under way; then it is killed too
      kill(process)
      process = study.start(budget)
      time.sleep(chance.uniform(0.1, 0.8))
    if process.poll() is not None:
      print(f"{number + 1:3} {kind:8} had ended with {process.returncode}")
      continue
    kill(process)
    done[kind] += 1
    print(f"{number + 1:3} {kind:8} killed at {study.replies()} replies", flush=True)
  return done


def wait_for_sender(study: Study) -> None:
  """Waits until the replies in flight of a killed run are journalled."""
  with storage.Lease(study.folder / "journal", "looking", wait=True):
    pass


def kill(process: subprocess.Popen[str]) -> None:
  """Kills a run, with all processes of its group, so that it can do nothing more."""
  if process.poll() is None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait(condition, process: subprocess.Popen[str], seconds: float = 60.0) -> None:
  """Waits until something is so, or the process has ended."""
  deadline = time.monotonic() + seconds
  while process.poll() is None and not condition() and time.monotonic() < deadline:
    time.sleep(0.01)


def account(study: Study) -> tuple[int, int, int, int]:
  """Returns replies in the journal, those of one request, money counted, doubtful."""
  journal = Journal(study.folder / "journal")
  try:
    keys = journal.replies()
    budget = journal.budget(0)
    total = budget.spent + budget.doubtful
    return len(keys), len(keys) - len(set(keys)), total, budget.doubtful_calls
  finally:
    journal.close()


def check_money(study: Study, cap: float) -> list[str]:
  """Prints the money; returns what is wrong."""
  wait_for_sender(study)
  replies, twice, total, doubtful = account(study)
  counts = study.counts()
  print(
    f"  delivered {counts['billed']} replies, journalled {replies}, paid twice "
    f"{counts['twice']}, spoiled {counts['spoiled']}, in doubt {doubtful}\n  billed "
    f"{prices.text(counts['money'])}, counted {prices.text(total)}, cap "
    f"{prices.text(prices.picodollars(cap))}"
  )
  wrong = []
  if counts["billed"] != replies or counts["spoiled"] > doubtful:
    wrong.append("replies billed and replies journalled differ")
  if counts["twice"] or twice:
    wrong.append("a call was paid for twice")
  if not counts["money"] <= total <= prices.picodollars(cap):
    wrong.append("the cap was exceeded")
  return wrong


def check_cap(study: Study, kills: int, expected: int, chance, alone: bytes):
  """A third of the money: it stops below the cap, and goes on when given more."""
  total = prices.picodollars(ENOUGH)
  _, _, total, _ = account(dataclasses.replace(study, folder=study.folder.parent / "a"))
  cap = total / 3 / prices.PICODOLLARS
  disturb(study, kills, expected // 3, chance, cap)
  code = study.start(cap).wait()
  found = re.findall(r"--gin.Llm.budget_usd=([\d.]+)", study.log())
  print(f"  stopped with {code}: {study.log().strip().splitlines()[-2]}")
  wrong = check_money(study, cap)
  if code != 1 or not found:
    return [*wrong, "it did not stop at the cap with a line to go on with"]
  while (code := study.start(float(found[-1])).wait()) == 1:
    found = re.findall(r"--gin.Llm.budget_usd=([\d.]+)", study.log())
  print(f"  given ${found[-1]}: ended with {code}")
  wrong += check_money(study, float(found[-1]))
  return wrong if study.output() == alone else [*wrong, "its output differs"]


def check_power_cuts(study: Study, cuts: int, expected: int, chance) -> list[str]:
  """Kills the sender too: the calls in doubt must be known."""
  for number in range(cuts):
    goal = (number + 0.5 + chance.random()) * expected / (cuts + 2)
    process = study.start()
    wait(lambda goal=goal: study.replies() >= goal, process)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    for sender in Path(children).read_text().split():
      os.kill(int(sender), signal.SIGKILL)
    kill(process)
  code = study.start().wait()
  replies, _, total, doubtful = account(study)
  counts = study.counts()
  lost = counts["billed"] - replies
  print(
    f"  {cuts} cuts: delivered {counts['billed']} replies, journalled {replies}, so "
    f"{lost} lost, of {doubtful} in doubt\n  billed {prices.text(counts['money'])}, "
    f"counted {prices.text(total)}"
  )
  right = code == 0 and 0 <= lost <= doubtful and counts["money"] <= total
  return [] if right else ["more was billed than is counted"]


def main() -> None:
  """Runs them all and compares."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=30)
  parser.add_argument("--requests", type=int, default=200)
  parser.add_argument("--latency", type=float, default=0.15)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--folder", type=Path, default=Path("runs/interruptions"))
  parser.add_argument("--drive", help="the address of a server: be the run to kill")
  parser.add_argument("--budget", type=float, default=ENOUGH)
  arguments = parser.parse_args()
  folder, requests = arguments.folder.absolute(), arguments.requests
  if arguments.drive:
    sys.exit(drive(arguments.drive, folder, requests, arguments.budget))
  shutil.rmtree(folder, ignore_errors=True)
  chance, wrong = random.Random(arguments.seed), []
  latency, kills = arguments.latency, arguments.kills
  os.environ["NO_PROXY"] = "127.0.0.1"

  with server(latency) as url:
    alone = Study(url, folder / "a", requests)
    assert alone.start().wait() == 0, f"the undisturbed run failed: {alone.log()}"
    expected = alone.replies()
    print("undisturbed:")
    wrong += check_money(alone, ENOUGH)
  with server(latency) as url:
    study = Study(url, folder / "b", requests)
    done = disturb(study, kills, expected, chance, ENOUGH)
    assert study.start().wait() == 0, f"the last start failed: {study.log()}"
    print(f"killed {sum(done.values())} times ({done}):")
    wrong += check_money(study, ENOUGH)
    same = study.output() == alone.output()
    print(f"  output identical: {same} ({len(alone.output()):,} bytes)")
    wrong += [] if same else ["the output differs"]
  with server(latency) as url:
    print("a third of the money:")
    study = Study(url, folder / "c", requests)
    wrong += check_cap(study, kills // 5, expected, chance, alone.output())
  with server(latency) as url:
    print("power cuts:")
    study = Study(url, folder / "d", requests)
    wrong += check_power_cuts(study, max(1, kills // 5), expected, chance)
  print("; ".join(wrong) or "all as it should be")
  sys.exit(bool(wrong))


if __name__ == "__main__":
  main()
