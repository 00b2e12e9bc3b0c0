"""The page of a study, from data that stand for a study's."""

import dataclasses
import json

import pytest

from evals import __main__ as command_line
from evals import score
from evals.study import arms, command, page, results
from evals.study.config import StudyConfig
from phi1_jax import InputError
from tests.evals.conftest import table_rows

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


def test_the_page_shows_every_arm_table_and_figure(data):
  html = page.render(data)
  rows = table_rows(html)
  for arm in arms.arms(CONFIG.taus):
    assert f"<code>{arm.name}</code>: {arm.about}" in html
    assert any(row[0] == arm.name for row in rows)
  assert html.count("<svg") == 2
  assert "found 19 of 20" in html
  assert [
    *("0.95", "7 of 100 (7.0%)", "1.5", "similar", "2", "50 (9-91)", "-", "-")
  ] in rows
  assert any("0 of 164" in row for row in rows)
  assert "<i>" not in html  # an example's text is no markup
  assert "&lt;i&gt;" in html
  assert page.render(data) == html  # the same data give the same bytes


def test_seeds_are_shown_apart_with_whether_they_agree(data):
  config = data["config"] | {"seeds": (0, 1)}
  seeds = [run | {"seed": seed} for seed in (0, 1) for run in data["runs"]]
  for run in seeds:
    if run["arm"] == "raw" and run["seed"] == 1:
      run["scores"] = run["scores"] | {TIERS[0]: _score(60)}
  html = page.render(data | {"config": config, "runs": seeds})
  rows = [row for row in table_rows(html) if row[-1] in ("yes", "no")]
  assert rows[0] == ["raw 1M", "0 (0-4)", "60 (50-69)", "60", "no"]
  assert {row[-1] for row in rows[1:]} == {"yes"}
  solving = sum(run["scores"][TIERS[0]]["value"] >= 0.05 for run in data["runs"])
  text = " ".join(html.split())
  assert f"{len(rows) - 1} of {len(rows)} arms overlap" in text
  assert f"and {solving} of the {solving + 1} that solve 5% with some seed" in text
  assert "points apart" not in page.render(data)


def test_report_renders_a_study_and_nothing_beside_it(data, tmp_path, capsys):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / results.STUDY).write_text(json.dumps(data))
  flags = ["report", str(tmp_path / "run"), f"--output={tmp_path / 'out.html'}"]
  assert command_line.main(flags) == 0
  assert "A planted leak" in (tmp_path / "out.html").read_text()
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
  assert page.label("exercises-unseen-triples-100") == "unseen triples"
  assert page.label("exercises-first-longer-100") == "longer"
  assert page.label("exercises-handwritten-100") == "handwritten"
