"""The report's page, drawn by a real browser."""

import html
import json
import re
import shutil
import subprocess

import pytest

from evals import report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")
MINUS = "\N{MINUS SIGN}"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"


def score(value):
  return {"value": value, "low": value - 0.1, "high": value + 0.1}


def sample(number, outcome, code, text="    return 1\n"):
  verdict = {
    "code": code,
    "outcome": outcome,
    "detail": "" if outcome == "passed" else "AssertionError: f(2) == 3, got 4",
    "failed_test": None if outcome == "passed" else "assert f(2) == 3",
    "cpu_seconds": 0.01,
    "wall_seconds": 0.02,
    "attempts": 1,
    "flags": ["overrides_eq"] if outcome == "wrong" else [],
    "dropped": [],
  }
  return {
    "sample": number,
    "text": text,
    "completion": text,
    "finish": "stop",
    "tokens": 7,
    "log_probs": -3.5,
    "seconds": 0.5,
    "variants": {
      "truncated": verdict,
      "sanitized": {**verdict, "outcome": "passed"},
    },
  }


def run(name, step, outcomes):
  reference = "def f(x):\n    y = x\n    return y + 1\n"
  code = "def f(x):\n    return x + 2\n"
  problems = [
    {
      "id": f"HumanEval/{number}",
      "entry_point": "f",
      "prompt": "def f(x):\n",
      "reference": reference,
      "tests": ["assert f(2) == 3"],
      "samples": [
        sample(place, outcome, code, HOSTILE if number == 1 else "    return x + 2\n")
        for place, outcome in enumerate(of_problem)
      ],
    }
    for number, of_problem in enumerate(outcomes)
  ]
  flat = [outcome for of_problem in outcomes for outcome in of_problem]
  counts = {outcome: flat.count(outcome) for outcome in dict.fromkeys(flat)}
  return {
    "name": name,
    "workdir": f"runs/{name}",
    "summary": {
      "settings": {
        "task_set": "humaneval-164",
        "prompt_style": "as-is",
        "sampling": {"temperature": 0},
        "model": {"kind": "checkpoint", "digest": "0" * 64, "dtype": "float32"},
      },
      "problems": len(outcomes),
      "samples": len(flat),
      "scores": {v: {"pass@1": score(0.4)} for v in ("truncated", "sanitized")},
      "difference": {"pass@1": -0.05},
      "outcomes": {"truncated": counts, "sanitized": {"passed": len(flat)}},
      "generate": {"step": step, "seconds": 3.0, "checkpoint": "runs/x"},
      "execute": {"seconds": 1.0, "identity": {"isolation": "bubblewrap"}},
    },
    "problems": problems,
  }


@pytest.fixture(scope="module")
def data():
  runs = [
    run("first", 100, [["passed"], ["wrong"], ["cpu_limit"]]),
    run("second", 200, [["passed", "wrong"], ["passed"] * 2, ["raised"] * 2]),
  ]
  points = [
    {
      "run": r["name"],
      "task_set": "humaneval-164",
      "prompt_style": "as-is",
      "variant": "truncated",
      "step": r["summary"]["generate"]["step"],
      "tokens_seen": 1000 * r["summary"]["generate"]["step"],
      **score(0.4),
    }
    for r in runs
  ]
  pair = {
    "a": "first",
    "b": "second",
    "variant": "truncated",
    "difference": 0.25,
    "p_value": 0.04,
    "method": "mcnemar",
    "only_a": 1,
    "only_b": 1,
    "low": None,
    "high": None,
    "ids_only_a": ["HumanEval/0"],
    "ids_only_b": ["HumanEval/1"],
  }
  return {"format": 1, "runs": runs, "comparisons": [pair], "points": points}


@pytest.fixture(scope="module")
def visit(data, tmp_path_factory):
  """Opens the page, runs a script in it, returns what the script returned."""
  folder = tmp_path_factory.mktemp("page")

  def go(script, fragment="", data=data, width=1280):
    path = folder / "report.html"
    ending = (
      "<script>window.onerror = (m) => document.body.setAttribute('data-error', m);\n"
      "document.body.dataset.answer = JSON.stringify((() => {"
      + script
      + "})())</script></body>"
    )
    path.write_text(report.render("report.html", data=data).replace("</body>", ending))
    dom = subprocess.run(
      [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"),
        *(f"--user-data-dir={folder / 'profile'}", "--dump-dom"),
        f"--window-size={width},1000",
        f"file://{path}{fragment}",
      ],
      capture_output=True,
      text=True,
      timeout=300,
      check=True,
    ).stdout
    answer = re.search(r'data-answer="(.*?)"', dom)
    assert answer, dom[-2000:]
    return json.loads(html.unescape(answer.group(1)))

  return go


def test_one_file_that_needs_no_other(data):
  text = report.render("report.html", data=data)
  assert not re.search(r'(src|href)="', text)
  assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
  assert text.count("<script") == 2  # the data, and what draws it
  assert "onerror=alert" in json.dumps(data)
  assert "<img" not in text


@browser
def test_scores_outcomes_plot_and_comparison_are_drawn(visit):
  found = visit("""
    const text = (s) => document.querySelector(s).textContent;
    return {rows: document.querySelectorAll('#scores tr').length,
      scores: text('#scores'), bars: document.querySelectorAll('.bar-row').length,
      circles: document.querySelectorAll('#learning circle').length,
      comparison: text('#comparisons'), title: document.title,
      error: document.body.dataset.error || ''};
  """)
  assert found["rows"] == 3
  assert "40.0 [30.0, 50.0]" in found["scores"]
  assert f"{MINUS}5.0" in found["scores"]
  assert found["bars"] == 4
  assert found["circles"] == 2
  assert "0.040" in found["comparison"]
  assert (found["title"], found["error"]) == ("phi1_jax: evaluation report", "")


@browser
def test_filter_by_outcome_and_text(visit):
  found = visit("""
    const form = document.querySelector('form');
    const ids = () => [...document.querySelectorAll('#list .id')].map(
      (x) => x.textContent.split(' ')[0]);
    const set = (name, value, event) => {
      form.elements[name].value = value;
      form.elements[name].dispatchEvent(new Event(event));
    };
    const steps = [ids()];
    set('outcome', 'wrong', 'change'); steps.push(ids());
    set('run', 1, 'change'); steps.push(ids());
    set('outcome', '', 'change'); set('text', 'eval/2', 'input'); steps.push(ids());
    set('text', 'nothing has this', 'input'); steps.push(ids());
    return [steps, document.querySelector('#detail').textContent];
  """)
  every = [f"HumanEval/{number}" for number in range(3)]
  assert found[0] == [every, [every[1]], [every[0]], [every[2]], []]
  assert found[1] == "No problem matches the filter."


@browser
def test_a_problem_shows_what_happened(visit):
  found = visit(
    """
    const pres = {};
    for (const h of document.querySelectorAll('#detail h3'))
      pres[h.textContent] = h.nextElementSibling.textContent;
    return {pres, head: document.querySelector('#detail .facts').textContent,
      images: document.images.length, title: document.title,
      all: document.body.innerText,
      plus: [...document.querySelectorAll('#detail ins')].map((x) => x.textContent),
      minus: [...document.querySelectorAll('#detail del')].map((x) => x.textContent)};
    """,
    "#HumanEval%2F1",
  )
  pres = found["pres"]
  assert pres["Raw completion"] == HOSTILE
  assert (found["images"], found["title"]) == (0, "phi1_jax: evaluation report")
  assert pres["Failing test"] == "assert f(2) == 3"
  assert pres["What went wrong"] == "AssertionError: f(2) == 3, got 4"
  assert found["plus"] == ["+     return x + 2"]
  assert found["minus"] == [f"{MINUS}     y = x", f"{MINUS}     return y + 1"]
  assert "overrides_eq" in found["head"]
  assert not re.search("null|undefined|NaN", found["all"])


@browser
def test_a_single_checkpoint_is_no_curve(visit, data):
  hidden = "return document.querySelector('#learning').hidden;"
  assert visit(hidden, data={**data, "points": data["points"][:1]})
  assert not visit(hidden)


@browser
def test_a_narrow_page_cuts_nothing_off(visit):
  found = visit(
    """
    const wide = [...document.querySelectorAll('#scores td, #outcomes button')];
    return [document.documentElement.clientWidth,
      Math.max(...wide.map((x) => x.getBoundingClientRect().right)),
      wide.filter((x) => x.scrollWidth > x.clientWidth + 1).length];
    """,
    width=520,
  )
  assert found[1] <= found[0] <= 520
  assert found[2] == 0
