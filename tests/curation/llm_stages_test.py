"""Stages that ask an LLM, against a server that bills and misbehaves."""

import hashlib
import json
import re
import shutil

import pytest

from phi1_jax import curate
from phi1_jax.curation import folder
from phi1_jax.llm.journal import Journal
from tests.curation import samples

MOODS = {"429": 0.1, "500": 0.1, "truncated": 0.05, "malformed": 0.05, "length": 0.05}


def wording(body):
  """What the model writes: mostly what was asked for."""
  content = body["messages"][0]["content"]
  turn = int(hashlib.sha256(content.encode()).hexdigest()[:2], 16) % 10
  if "educational value" in content:
    return json.dumps({"reason": "clear", "score": turn // 2})
  (name,) = re.findall(r"function is named `(\w+)`", content)
  if turn == 0 and len(body["messages"]) == 1:
    return "I would rather talk about something else."
  solution = "value - 1" if turn == 1 else "value + 1"
  return (
    f'```python\ndef {name}(value: int) -> int:\n  """Add {turn} ones."""\n'
    f"  return {solution}\n\nassert {name}(1) == 2\nassert {name}(5) == 6\n```"
  )


@pytest.fixture
def server(thread_sender, serve):
  serving = serve(MOODS, stall=0.01).server
  serving.write = wording
  return serving


def command(stage, server, tmp_path, *more, budget=1.0):
  llm = {"base_url": server.url, "journal": tmp_path / "journal", "model": "m"}
  llm |= {"input_usd_per_million": 0.15, "output_usd_per_million": 0.6}
  words = [stage, "--gin_file=gin/curate/openai.gin"]
  words += [f"--gin_file=gin/curate/{stage}.gin", f"--workdir={tmp_path / stage}"]
  words += [f"--gin.Llm.{name}={value}" for name, value in llm.items()]
  return [*words, *more, f"--gin.Llm.budget_usd={budget}"]


EXERCISES = ("--gin.Exercises.teacher=llm", "--gin.Exercises.exercises=40")


def outcome(path):
  """The bytes of everything that does not tell the time."""
  found = {file.name: file.read_bytes() for file in sorted(path.glob("*.parquet"))}
  stats = json.loads((path / "stats.json").read_text())
  return found, {k: v for k, v in stats.items() if k not in ("run", "judged")}


def test_exercises_are_paid_once_and_a_budget_is_kept(
  server, tmp_path, monkeypatch, capsys
):
  out = tmp_path / "exercises"
  small = command("exercises", server, tmp_path, *EXERCISES, budget=0.0012)
  assert curate.main([*small, "--estimate"]) == 0
  assert not server.billed
  advice = r"--gin\.Llm\.budget_usd=0\.\d+ or lower Exercises\.exercises"
  assert re.search(advice, capsys.readouterr().out)
  assert curate.main(small) == 1
  assert "Llm.budget_usd" in capsys.readouterr().err
  assert server.money <= 0.0012 * 1e12
  assert not (out / "COMPLETED").exists()
  billed = server.counts()["billed"]
  words = command("exercises", server, tmp_path, *EXERCISES)
  assert curate.main(words) == 0  # goes on
  counts = server.counts()
  assert counts["twice"] == 0
  assert counts["billed"] > billed
  stats = folder.read_stats(out)
  assert stats["read"] == 40
  assert stats["kept"] >= 20
  assert stats["dropped"]["code: wrong"] >= 1
  assert stats["models"] == ["m"]
  assert stats["prompts"][0]["id"] == "exercise"
  replies = Journal(tmp_path / "journal").replies()
  assert len(replies) == counts["billed"]
  noted = next(iter(folder.kept(out))).provenance["exercises"]
  assert noted["verdict"] == "passed"
  assert noted["request"] in replies
  assert noted["function"] == noted["name"]
  before = outcome(out)
  shutil.rmtree(out)
  monkeypatch.delenv("OPENAI_API_KEY")
  assert curate.main(words) == 0  # from the journal: no key, nothing billed
  assert server.counts()["billed"] == counts["billed"]
  assert outcome(out) == before


def test_two_passes_of_an_llm_are_compared(server, tmp_path, capsys):
  rows = [{"text": samples.algorithm(i), "license": "MIT"} for i in range(30)]
  inputs = samples.write(tmp_path / "raw.jsonl", rows)
  more = [f"--gin.Annotate.inputs=('{inputs}',)", "--gin.Annotate.second_pass=10"]
  words = command("annotate", server, tmp_path, "--gin.Annotate.judge=llm", *more)
  assert curate.main([*words, "--estimate"]) == 0
  assert not server.billed
  assert "annotate: 40 requests" in capsys.readouterr().out
  assert curate.main(words) == 0
  stats = folder.read_stats(tmp_path / "annotate")
  assert stats["second_pass"]["documents"] >= 8
  assert stats["second_pass"]["exact"] == 1.0  # this model never changes its mind
  assert sum(stats["scores"].values()) == stats["kept"]
