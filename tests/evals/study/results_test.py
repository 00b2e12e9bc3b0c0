"""What a finished study left, gathered and shown: from a folder made of plain files."""

import functools
import json
import random
import re
from html import unescape
from pathlib import Path

import pytest

from evals import score, summary
from evals.study import config as arms
from evals.study import materials, page, plan, results
from evals.study.config import StudyConfig

CONFIG = StudyConfig(
  "recipe.gin", {"1M": "a.gin"}, 400, 100, taus=(0.95, 0.8), sampled=2
)
ids_of = functools.cache(results.ids_of)
TIERS = materials.TIERS
NEAR, FAR = TIERS[0], TIERS[-1]
# Share of the generated tiers that an arm solves; the others solve nothing.
SHARES = {arms.FULL: 0.5, "raw_exercises": 0.4, arms.THINNED: 0.2, "pruned_0.8": 0.1}
PLANTED = {problem.id for problem in materials.leaked_problems(CONFIG)}


def _json(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  rows = content if isinstance(content, list) else [content]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _judged(place, solved=(), task_set=None):
  task_set = task_set or place.name
  ids = ids_of(task_set)
  low, high = score.wilson(len(solved), len(ids))
  one = {"value": len(solved) / len(ids), "low": low, "high": high}
  found = {"settings": {"task_set": task_set}}
  found["rates"] = {"truncated": {"valid_syntax": one, "runs": one}}
  _json(place / "summary.json", found | {"scores": {"truncated": {"pass@1": one}}})
  _json(place / "run.json", {"execute": {"judge": "j"}})
  row = {"sample": 0, "variant": "truncated", "judge": "j"}
  rows = [
    {**row, "task_id": name, "outcome": "passed" if name in solved else "wrong"}
    for name in ids
  ]
  # Another variant, and another judge's verdict, do not count.
  for changes in ({"variant": "sanitized"}, {"judge": "old"}):
    rows.append({**rows[0], **changes, "outcome": "passed"})
  _json(place / "verdicts.jsonl", rows)


def _solved(run, tier):
  if tier == FAR:
    return PLANTED if run.arm.name == "leaked" else ()
  count = round(SHARES.get(run.arm.name, 0.0) * 100) + 5 * run.seed
  return random.Random(tier).sample(ids_of(tier), count) if count > 5 else ()


def _trained(run, folder):
  length = run.length(CONFIG)
  summary = {"step": length, "tokens_seen": 256 * length, "flops_per_token": 6e6}
  summary |= {"parameters": 1_055_488, "wall_seconds": 10.0}
  _json(folder / "train" / run.name / "summary.json", summary)
  rows = [{"step": step, "loss": 7 / step} for step in range(1, length + 1)]
  _json(folder / "train" / run.name / "metrics.jsonl", rows)
  judged = folder / "judged" / run.name
  for tier in TIERS:
    _judged(judged / tier, _solved(run, tier))
  _judged(judged / "humaneval-164")
  kinds = ("all", "exercise", "raw code")
  losses = [{"kind": kind, "nats_per_byte": 0.5} for kind in kinds]
  _json(judged / "loss.json", {"losses": losses})
  if not run.arm.exercises or run.arm.exercises == "main":
    _judged(judged / f"{NEAR}-sampled", ids_of(NEAR)[:1], NEAR)


def _curated(folder):
  """The near 90 problems are similar; 19 of 20 leaks were found, and another one."""
  similar = {str(folder / materials.PROBLEMS): {"similar": ids_of(NEAR)[:90]}}
  rows = [
    {"tau": tau, "read": 100, "removed": removed, "share": removed / 100}
    | {"reasons": {"AST": removed}, "benchmarks": similar}
    for tau, removed in ((0.95, 20), (0.8, 80))
  ]
  _json(folder / "curate" / "pruned" / "study.json", {"rows": rows})
  of = [("leak", "text", name) for name in sorted(PLANTED)[:19]]
  dropped = []
  for source, reason, name in [*of, ("grammar", "AST", "Handwritten/8")]:
    fields = {"id": source, "text": "x = 1\n", "source": source, "licence": "MIT"}
    fields |= {"kind": "exercise", "repository": source}
    evidence = {"problems": [name], "pairs": [{"reason": reason, "problem": name}]}
    fields["dropped"] = {"reason": reason, "evidence": evidence}
    dropped.append({**fields, "provenance": {"variant": {"problem": name}}})
  _json(folder / "curate" / "leak_found" / "dropped-0.jsonl", dropped)
  for name in ("main", "pruned_0.95", "pruned_0.8"):
    manifest = {"documents": 10, "tokens": 25_600, "bytes": 99}
    _json(folder / "stores" / name / "manifest.json", manifest)


FAST = {"seeds": (0,)}
FULL = {"seeds": (0, 1), "models": {"1M": "a.gin", "3M": "b.gin"}}


@pytest.fixture(name="gathered", scope="module", params=[FAST, FULL], ids="12")
def fixture_gathered(request, tmp_path_factory):
  """The data of a study of one seed, and of one of two seeds and sizes."""
  folder = tmp_path_factory.mktemp("study")
  config = StudyConfig(**{**vars(CONFIG), **request.param})
  for run in plan.runs(config):
    _trained(run, folder)
  _curated(folder)
  for tier in TIERS:
    _judged(folder / "judged" / "nearest" / tier)
  ids = {tier: ids_of(tier) for tier in TIERS}
  seen = {tier: {"seen": ids[tier][:40], "new": ids[tier][40:]} for tier in TIERS}
  _json(folder / "seen.json", seen)
  took = {"pool": 1.5, "train_raw-1M-0-early": 2.0, "train_raw-1M-0": 8.0}
  rows = [{"step": k, "seconds": v, "commit": "abc"} for k, v in took.items()]
  _json(folder / "steps.jsonl", rows)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(results, "_examples", lambda *_: [])
    patch.setattr(results, "ids_of", ids_of)
    data = results.gather(config, folder)
  assert json.loads((folder / results.STUDY).read_text())["tiers"] == list(TIERS)
  return data


def test_every_arm_has_the_share_that_it_solves(gathered):
  seeds = len(gathered["config"]["seeds"])
  added = 0.025 * (seeds - 1)  # 5 problems more by the second seed
  for arm in gathered["arms"]:
    share = SHARES.get(arm["name"], 0.0)
    found = arm["scores"][NEAR]
    assert found["value"] == pytest.approx(share + added if share else 0.0)
    assert found["method"] == ("wilson" if seeds == 1 else "t")
    assert found["low"] - 1e-9 <= found["value"] <= found["high"] + 1e-9


def test_tokens_and_flops_count_the_text_before(gathered):
  runs = {run["name"]: run for run in gathered["runs"]}
  found = {}
  for arm in ("raw", arms.FULL, "exercises_alone", "few"):
    run = runs[f"{arm}-1M-0"]
    tokens = (run["tokens"]["text"] / 256, run["tokens"]["exercises"] / 256)
    found[arm] = run["started"], run["steps"], *tokens, run["flops"] / (256 * 6e6)
  # Steps before its own, all steps, of text and of exercises, and what they cost.
  assert found == {
    "raw": (0, 400, 400, 0, 400),
    arms.FULL: (100, 400, 100, 300, 400),
    "exercises_alone": (0, 300, 0, 300, 300),
    "few": (100, 400, 100, 300, 400),
  }
  assert runs["raw-1M-0"]["seconds"] == 10.0


def test_pruning_counts_three_tiers_and_the_strictest_tau_its_control(gathered):
  mild, strict = gathered["pruning"]
  assert (mild["tau"], strict["tau"]) == (0.95, 0.8)
  subsets = {row["subset"]: row for row in strict["subsets"]}
  counts = [subsets[k]["n"] for k in ("similar", "non-similar", "total")]
  assert counts == [90, 210, 300]
  few, pruned = (subsets["total"][k]["value"] for k in ("thinned", "after"))
  assert 0.2 <= few < 0.23
  assert 0.1 <= pruned < 0.13
  assert all("thinned" not in subset for subset in mild["subsets"])
  assert strict["times_read"] == 3.0


def test_the_leak_is_split_without_counting_a_problem_twice(gathered):
  leak = gathered["leak"]
  assert (leak["task_set"], leak["found"], leak["others_dropped"]) == (FAR, 19, 1)
  with_it, without = leak["shares"]["with"], leak["shares"]["without"]
  assert [row["n"] for row in with_it.values()] == [20, 1, 79]
  assert [row["value"] for row in with_it.values()] == [1.0, 0.0, 0.0]
  assert {row["value"] for row in without.values()} == {0.0}


def test_arms_are_compared_and_so_is_what_pruning_costs(gathered):
  rows = gathered["comparisons"]
  rows = {(r["a"], r["b"]): r for r in rows if r["task_set"] == NEAR}
  row = rows["pruned_0.8", arms.THINNED]
  assert row["difference"] == pytest.approx(0.1)
  assert (arms.THINNED, arms.FULL) in rows
  assert rows["textbooks", arms.FULL]["p_value"] < 0.05
  assert row["method"] == ("mcnemar" if len(gathered["config"]["seeds"]) == 1 else "t")


def test_examples_are_the_first_that_is_solved_and_the_first_that_is_not(monkeypatch):
  passing = {NEAR: {2, 3}, TIERS[1]: set(range(100))}
  ids = {tier: ids_of(tier) for tier in passing}

  def read(place, asked):
    assert place.parts[-2:] == (f"{arms.FULL}-1M-0", place.name)
    assert list(asked) == ids[place.name]

    def row(number, name):
      outcome = "passed" if number in passing[place.name] else "wrong"
      verdicts = {results.VARIANT: {"outcome": outcome, "detail": ""}}
      return {"completion": f"  # {name}", "variants": verdicts}

    return {name: [row(i, name)] for i, name in enumerate(asked)}

  monkeypatch.setattr(summary, "read", read)
  found = results._examples(CONFIG, Path("study"), list(passing))
  expected = [(ids[NEAR][0], "wrong"), (ids[NEAR][2], "passed")]
  expected.append((ids[TIERS[1]][0], "passed"))
  assert [(row["id"], row["outcome"]) for row in found] == expected
  assert [row["completion"] for row in found] == [f"  # {n}" for n, _ in expected]


def _table_rows(html):
  """The text of the cells of every row of every table of a page."""
  rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
  cells = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in rows]
  return [
    [" ".join(unescape(re.sub("<[^>]+>", "", cell)).split()) for cell in row]
    for row in filter(None, cells)
  ]


def test_the_page_shows_what_was_gathered(gathered):
  example = {"task_set": NEAR, "prompt": 'def f(n):\n    """<i>"""\n'}
  example |= {"completion": "    return n < 3\n", "outcome": "wrong", "detail": ""}
  data = gathered | {"examples": [example]}
  html = page.render(data)
  several = len(gathered["config"]["seeds"]) == 2
  # The same data give the same bytes.
  assert several or page.render(data) == html
  for arm in arms.arms(CONFIG.taus):
    assert f"<code>{arm.name}</code>: {arm.about}" in html
  assert "found 19 of 20" in html
  assert "20 (13-29) (planted)" in html or several
  assert "Commit abc" in html
  assert "&lt;i&gt;" in html  # an example's text is no markup
  assert "<i>" not in html
  assert html.count("<svg") == 1 + len(gathered["config"]["models"])
  assert ("<h3>3M</h3>" in html) == several
  rows = _table_rows(html)
  assert any("0 of 164" in row for row in rows)
  strict, mild = ([r for r in rows if r[0] == tau] for tau in ("0.8", "0.95"))
  assert [["(" in cell for cell in cells[5:]] for cells in strict] == [[True] * 3] * 3
  assert [cells[-1] for cells in mild] == ["-"] * 3  # without a control of size
