"""The page of a study, from data that stand for a study's."""

import dataclasses
import json
import re

import pytest

from evals import __main__ as command_line
from evals import score
from evals.study import arms, command, page, results, score_sections, tables
from evals.study.config import StudyConfig
from evals.study.document import Table, Text
from phi1_jax import InputError

TIERS = ["exercises-unseen-triples-100", "exercises-handwritten-100"]
WHERE = {
  "commits": ["abc1234"],
  "when": "2026-01-01 00:00",
  "machine": "x86_64, 2 cores",
  "python": "3.11",
  "versions": {"jax": "0.10"},
}
CONFIG = StudyConfig("recipe.gin", {"1M": "a.gin"}, 400, 100, taus=(0.95,))


def _score(solved, total=100):
  one = {"value": 0.5, "low": 0.4, "high": 0.6, "method": "wilson"}
  low, high = score.wilson(solved, total)
  found = {"value": solved / total, "low": low, "high": high, "total": total}
  return {**found, "solved": [str(i) for i in range(solved)]} | {
    "valid_syntax": one,
    "runs": one,
  }


def _run(arm, solved):
  scores = {tier: _score(solved) for tier in TIERS} | {"humaneval-164": _score(0, 164)}
  return {
    "name": f"{arm.name}-1M-0",
    "arm": arm.name,
    "about": arm.about,
    "size": "1M",
    "seed": 0,
    "parameters": 1_055_488,
    "steps": 400,
    "tokens": {"text": 25_600, "exercises": 76_800},
    "flops": 2.6e12,
    "seconds": 60.0,
    "started": 100,
    "curve": [(1, 7.0), (200, 2.0)],
    "held_out": [(200, 2.1)],
    "scores": scores,
    "early": {"flops": 2e12, "value": 0.1, "low": 0.05, "high": 0.2},
    "loss": {"exercise": {"nats_per_byte": 0.25}, "all": {"nats_per_byte": 0.4}},
    "sampled": {"task_set": TIERS[0], "pass@1": _score(20), "pass@5": _score(40)},
  }


@pytest.fixture(name="data", scope="module")
def fixture_data():
  solved = {arm.name: 3 * i for i, arm in enumerate(arms.arms(CONFIG.taus))}
  runs = [_run(arm, solved[arm.name]) for arm in arms.arms(CONFIG.taus)]
  compared = score.compare({"a": [True], "b": [False]}, {"a": [True], "b": [True]})
  subset = {"subset": "similar", "n": 2, "before": _score(1, 2), "after": None}
  return {
    "format": page.FORMAT,
    "config": dataclasses.asdict(CONFIG),
    "tiers": TIERS,
    "runs": runs,
    "arms": [
      {k: run[k] for k in ("about", "size", "scores")} | {"name": run["arm"]}
      for run in runs
    ],
    "repeated": [],
    "comparisons": [
      {"a": "raw", "b": arms.FULL, "task_set": TIERS[0]} | dataclasses.asdict(compared)
    ],
    "pruning": [
      {"tau": 0.95, "read": 100, "removed": 7, "share": 0.07, "times_read": 1.5}
      | {"subsets": [subset]}
    ],
    "leak": {
      "task_set": TIERS[0],
      "planted": 20,
      "copies": 10,
      "found": 19,
      "others_dropped": 1234,
      "shares": {
        label: {
          "planted": _score(n, 20) | {"n": 20},
          "the others": _score(4, 80) | {"n": 80},
        }
        for label, n in (("without", 1), ("with", 18))
      },
    },
    "seen": [
      {"task_set": TIERS[0], "kind": "new", "n": 50, "share": _score(5, 50)},
      {"task_set": TIERS[0], "kind": "seen", "n": 0, "share": None},
    ],
    "nearest": {tier: _score(2) for tier in TIERS},
    "predictions": [
      {"text": "a", "holds": True, "numbers": [["raw", TIERS[0], 0.25]]},
      {"text": "b", "holds": False, "numbers": []},
      {"text": "c", "holds": None, "numbers": [["few", TIERS[0], None]]},
    ],
    "examples": [
      {
        "task_set": TIERS[0],
        "prompt": 'def f(n):\n    """<i>"""\n',
        "completion": "    return n < 3\n",
        "outcome": "wrong",
        "detail": "",
      }
    ],
    "sets": {"stores": {"main": {"documents": 3, "tokens": 9, "bytes": 27}}},
    "steps": {"pool": 60.0},
    "where": WHERE,
  }


def test_the_page_shows_every_arm_table_and_figure(data, tmp_path):
  html, notes = (path.read_text() for path in page.write(data, tmp_path))
  for arm in arms.arms(CONFIG.taus):
    assert arm.name in html
    assert arm.about in notes
  assert html.count("<svg") == 3
  assert "found 19 of 20" in notes
  assert "| 0.95 | 7 of 100 (7.0%) | 1.5 | similar | 2 | 50 (9-91) | - |" in notes
  assert re.findall(r"\| [abc] \| (.+) \|", notes) == [
    "held | raw 25",
    "did not hold | ",
    "cannot be said | few -",
  ]
  assert "0 of 164" in notes
  assert "<i>" not in html


def test_seeds_are_shown_apart_with_whether_they_agree(data):
  config = data["config"] | {"seeds": (0, 1)}
  seeds = [run | {"seed": seed} for seed in (0, 1) for run in data["runs"]]
  for run in seeds:
    if run["arm"] == "raw" and run["seed"] == 1:
      run["scores"] = run["scores"] | {TIERS[0]: _score(60)}
  found = score_sections.scores(data | {"config": config, "runs": seeds})
  table = next(b for b in found if isinstance(b, Table) and "seed 1" in b.head)
  assert table.rows[0] == ["raw 1M", "0 (0-4)", "60 (50-69)", "60", "no"]
  assert {row[-1] for row in table.rows[1:]} == {"yes"}
  text = next(b.text for b in found if isinstance(b, Text) and "by seed" in b.text)
  solving = sum(run["scores"][TIERS[0]]["value"] >= 0.05 for run in data["runs"])
  assert f"{len(table.rows) - 1} of {len(table.rows)} arms overlap" in text
  assert f"and {solving} of the {solving + 1} that solve 5% with some seed" in text


def test_a_repetition_is_shown_with_how_far_it_is_apart(data):
  config = data["config"] | {"seeds": (0, 1, 2, 3, 4, 5)}
  halves = {
    ("raw", TIERS[0]): (80, 20),
    ("wrong", TIERS[0]): (50, 56),
    ("few", TIERS[0]): (2, 0),
    ("wrong", TIERS[1]): (40, 40),
  }
  repeated = [
    {"arm": arm, "size": "1M", "task_set": tier, "halves": [_score(n) for n in both]}
    for (arm, tier), both in halves.items()
  ]
  pair = {"a": "wrong", "b": "raw", "task_set": TIERS[0]}
  later = {"wrong": 58, "few": 30}  # solved by the training of seed 4
  runs = [
    run
    | {"seed": 4, "name": f"{run['arm']}-1M-4"}
    | {"scores": run["scores"] | {TIERS[0]: _score(later[run["arm"]])}}
    for run in data["runs"]
    if run["arm"] in later
  ]
  changes = {"config": config, "repeated": repeated, "comparisons": [pair]}
  changes["runs"] = data["runs"] + runs
  found = score_sections.scores(data | changes)
  text, table = (
    next(b for b in found if isinstance(b, kind) and words in told(b))
    for kind, words, told in (
      (Text, "half of the seeds", lambda block: block.text),
      (Table, "points", lambda block: block.head),
    )
  )
  pairs = next(b for b in found if isinstance(b, Table) and b.head[0] == "arms")
  assert pairs.head[1:] == ["seeds 0, 1, 2", "seeds 3, 4, 5"]
  assert pairs.rows == [["raw - wrong", "+30", "-36"]]
  assert [[row[0], *row[3:]] for row in table.rows] == [
    ["raw 1M", "-60", "no"],
    ["wrong 1M", "+6", "yes"],
    ["few 1M", "-2", "yes"],
  ]
  assert "tiers 3 of 4 overlap, and 2 of the 3 where some half solves 5%" in text.text
  assert "6 points apart in the median, 60 at most" in text.text
  assert "overlap with 2 of the 3 intervals" in text.text
  assert "(not: few-1M-4 on unseen triples)" in text.text
  assert not any(
    isinstance(b, Text) and "half of" in b.text for b in score_sections.scores(data)
  )


def test_report_renders_a_study_and_nothing_beside_it(data, tmp_path, capsys):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / results.STUDY).write_text(json.dumps(data))
  flags = ["report", str(tmp_path / "run"), f"--output={tmp_path / 'out.html'}"]
  assert command_line.main(flags) == 0
  assert "A planted leak" in (tmp_path / "out.md").read_text()
  assert f"written to {tmp_path / 'out.html'}" in capsys.readouterr().out
  (tmp_path / "file").touch()
  with pytest.raises(InputError, match="--output: cannot write"):
    command_line.main([*flags[:2], f"--output={tmp_path / 'file' / 'out.html'}"])
  (tmp_path / "run" / results.STUDY).write_text(json.dumps(data | {"format": 1}))
  with pytest.raises(InputError, match="format 1, expected 4"):
    command_line.main(flags)
  (tmp_path / "begun").mkdir()
  (tmp_path / "begun" / command.SETTINGS).write_text("{}")
  with pytest.raises(InputError, match="not come to its end"):
    command_line.main(["report", str(tmp_path / "begun")])
  with pytest.raises(InputError, match="expected it alone"):
    command_line.main([*flags[:2], "other", flags[2]])


def test_a_task_set_is_named_by_its_tier():
  assert score_sections.label("exercises-unseen-triples-100") == "unseen triples"
  assert score_sections.label("exercises-first-longer-100") == "longer"
  assert score_sections.label("exercises-handwritten-100") == "handwritten"


def test_the_same_data_give_the_same_bytes(data, tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "b").mkdir()
  one, other = (page.write(data, tmp_path / name) for name in "ab")
  assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_seeds_are_samples_of_a_problem():
  group = [
    {
      "scores": {TIERS[1]: {"solved": ["Handwritten/0", "Handwritten/1"], "total": 100}}
    },
    {"scores": {TIERS[1]: {"solved": ["Handwritten/0"], "total": 100}}},
  ]
  found = tables.over_seeds(group, TIERS[1])
  assert found["value"] == pytest.approx(0.015)
  assert found["solved"] == [2, 1]
  assert found["method"] == "t"
