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
from tests.llm.counting_server import CountingServer

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
def server(monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
  with CountingServer(MOODS, stall=0.01) as serving:
    serving.write = wording
    yield serving


def flags(stage, server, tmp_path, *more):
  """The command; a binding in `more` replaces one of the same name."""
  told = {binding.partition("=")[0] for binding in more}
  words = [
    *(stage, "--gin_file=gin/curate/openai.gin", f"--gin_file=gin/curate/{stage}.gin"),
    f"--workdir={tmp_path / stage}",
    f"--gin.Llm.base_url={server.url}",
    f"--gin.Llm.journal={tmp_path / 'journal'}",
    *("--gin.Llm.model=m", "--gin.Llm.budget_usd=1.0"),
    *("--gin.Llm.input_usd_per_million=0.15", "--gin.Llm.output_usd_per_million=0.6"),
    f"--gin.{_PART[stage]}={'llm'}",
  ]
  return [*(word for word in words if word.partition("=")[0] not in told), *more]


_PART = {
  "annotate": "Annotate.judge",
  "exercises": "Exercises.teacher",
}


def outcome(path):
  """The bytes of everything that does not tell the time."""
  found = {file.name: file.read_bytes() for file in sorted(path.glob("*.parquet"))}
  stats = json.loads((path / "stats.json").read_text())
  return found, {k: v for k, v in stats.items() if k not in ("run", "judged")}


def test_exercises_are_written_judged_and_paid_once(server, tmp_path, monkeypatch):
  command = flags("exercises", server, tmp_path, "--gin.Exercises.exercises=40")
  assert curate.main([*command, "--estimate"]) == 0
  assert not server.billed
  assert curate.main(command) == 0
  stats = folder.read_stats(tmp_path / "exercises")
  assert stats["read"] == 40
  assert stats["kept"] >= 20
  assert stats["dropped"]["code: wrong"] >= 1
  assert stats["models"] == ["m"]
  assert stats["prompts"][0]["id"] == "exercise"
  counts = server.counts()
  assert counts["twice"] == 0
  replies = Journal(tmp_path / "journal").replies()
  assert len(replies) == counts["billed"]
  kept = list(folder.kept(tmp_path / "exercises"))
  noted = kept[0].provenance["exercises"]
  assert noted["verdict"] == "passed"
  assert noted["request"] in replies
  assert noted["function"] == noted["name"]

  before = outcome(tmp_path / "exercises")
  shutil.rmtree(tmp_path / "exercises")
  monkeypatch.delenv("OPENAI_API_KEY")
  assert curate.main(command) == 0  # from the journal: no key, nothing billed
  assert server.counts()["billed"] == counts["billed"]
  assert outcome(tmp_path / "exercises") == before


def test_two_passes_of_an_llm_are_compared(server, tmp_path, capsys):
  rows = [{"text": samples.algorithm(i), "license": "MIT"} for i in range(30)]
  path = samples.write(tmp_path / "raw.jsonl", rows)
  more = [f"--gin.Annotate.inputs=('{path}',)", "--gin.Annotate.second_pass=10"]
  command = flags("annotate", server, tmp_path, *more)
  assert curate.main([*command, "--estimate"]) == 0
  assert not server.billed
  assert "annotate: 40 requests" in capsys.readouterr().out
  assert curate.main(command) == 0
  stats = folder.read_stats(tmp_path / "annotate")
  assert stats["second_pass"]["documents"] >= 8
  assert stats["second_pass"]["exact"] == 1.0  # this model never changes its mind
  assert sum(stats["scores"].values()) == stats["kept"]


def test_the_budget_ends_the_stage_and_says_how_to_go_on(server, tmp_path, capsys):
  small = ["--gin.Exercises.exercises=40", "--gin.Llm.budget_usd=0.0012"]
  command = flags("exercises", server, tmp_path, *small)
  assert curate.main([*command, "--estimate"]) == 0
  advice = r"--gin\.Llm\.budget_usd=0\.\d+ or lower Exercises\.exercises"
  assert re.search(advice, capsys.readouterr().out)
  assert curate.main(command) == 1
  error = capsys.readouterr().err
  assert "Llm.budget_usd" in error
  assert server.money <= 0.0012 * 1e12
  assert not (tmp_path / "exercises" / "COMPLETED").exists()
  billed = server.counts()["billed"]
  command[-1] = "--gin.Llm.budget_usd=1.0"
  assert curate.main(command) == 0
  assert server.counts()["twice"] == 0
  assert server.counts()["billed"] > billed
