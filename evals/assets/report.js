"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const VARIANTS = ["truncated", "sanitized"];
// Outcomes of programs that were ended from outside; the other failures gave an answer.
const STOPPED = /limit|exited|crash|sandbox|killed/;
const view = { variant: "truncated", run: 0, outcome: "", text: "", problem: "", sample: 0, axis: "step" };

// ---- Making elements. Text is only ever set as text.
function make(tag, fields = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
// A row of a table; a narrow page shows the titles in front of the cells.
function row(titles, cells) {
  return make("tr", {}, ...cells.map((cell, index) => {
    const [kind, children] = Array.isArray(cell) ? ["", cell] : [cell.class, cell.children];
    return make("td", { class: kind, "data-title": titles[index] }, make("div", {}, ...children));
  }));
}
const number = (...children) => ({ class: "number", children });
const heads = (titles) => make("tr", {}, ...titles.map((title) => make("th", {}, title)));
function draw(tag, fields, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(fields)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const find = (selector) => document.querySelector(selector);
const percent = (x) => (100 * x).toFixed(1);
const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(1)}`;
const seconds = (x) => (x === null || x === undefined ? "unknown" : `${x.toFixed(x < 10 ? 2 : 0)} s`);
const kind = (outcome) => (outcome === "passed" ? "passed" : STOPPED.test(outcome) ? "stopped" : "failed");
const tag = (outcome, text) => make("span", { class: `tag ${kind(outcome)}` }, text ?? outcome);
const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

// ---- Scores
function modelOf(summary) {
  const model = summary.settings.model ?? {};
  const step = summary.generate.step;
  const name = model.model ?? model.checkpoint ?? model.kind ?? "model";
  return [name, step === null || step === undefined ? "" : ` step ${step.toLocaleString("en")}`].join("");
}
function samplingOf(summary) {
  const s = summary.settings.sampling;
  if (!s) return "as given";
  const parts = [s.temperature === 0 ? "greedy" : `temperature ${s.temperature}`];
  if (s.top_p) parts.push(`top_p ${s.top_p}`);
  if (s.top_k) parts.push(`top_k ${s.top_k}`);
  return parts.concat(summary.settings.model?.dtype ?? []).join(", ");
}
function interval(score) {
  const x = (value) => 2 + 146 * value;
  return draw("svg", { class: "interval", viewBox: "0 0 150 14", role: "img",
    "aria-label": `${percent(score.value)}, interval ${percent(score.low)} to ${percent(score.high)}` },
    draw("line", { x1: 2, x2: 148, y1: 7, y2: 7, class: "axis" }),
    draw("line", { x1: x(score.low), x2: x(score.high), y1: 7, y2: 7, stroke: "var(--pass)", "stroke-width": 5, opacity: 0.4 }),
    draw("circle", { cx: x(score.value), cy: 7, r: 4, fill: "var(--pass)" }));
}
function scoreRows() {
  const table = find("#scores table");
  const titles = ["Run", "Task set and prompt", "Sampling", "Metric", "Truncated", "Sanitized", "Difference", "Judged"];
  table.append(heads(titles));
  for (const { name, summary } of data.runs) {
    const found = Object.fromEntries(VARIANTS.map((v) => [v, { ...summary.scores[v], ...summary.rates[v] }]));
    for (const metric of Object.keys(found.truncated)) {
      const cells = VARIANTS.map((variant) => {
        const score = found[variant][metric];
        return number(make("b", {}, percent(score.value)),
          make("small", {}, ` [${percent(score.low)}, ${percent(score.high)}]`), interval(score));
      });
      const difference = 100 * (summary.difference[metric] ?? found.sanitized[metric].value - found.truncated[metric].value);
      const own = summary.in_process ? `, ${summary.in_process} judged in the code's process` : "";
      const samples = `${count(summary.samples, "sample")}, ${count(summary.problems, "problem")}${own}`;
      const took = `${seconds(summary.generate.seconds)} to generate, ${seconds(summary.execute.seconds)} to execute`;
      table.append(row(titles, [
        [name, make("br"), make("small", {}, modelOf(summary))],
        [summary.settings.task_set, make("br"), make("small", {}, summary.settings.prompt_style)],
        [samplingOf(summary), make("br"), make("small", {}, samples)],
        [metric], ...cells, number(signed(difference)),
        [summary.execute.identity?.isolation ?? "unknown", make("br"), make("small", {}, took)]]));
    }
  }
}

// ---- Outcomes
function outcomeBars() {
  const place = find("#outcomes div");
  data.runs.forEach(({ name, summary }, run) => {
    for (const variant of VARIANTS) {
      const counts = Object.entries(summary.outcomes[variant]);
      const order = { passed: 0, failed: 1, stopped: 2 };
      counts.sort(([a, x], [b, y]) => order[kind(a)] - order[kind(b)] || y - x);
      const choose = (outcome) => { Object.assign(view, { run, variant, outcome }); show(); find("#problems").scrollIntoView(); };
      place.append(make("div", { class: "bar-row" }, make("span", {}, name, make("small", { class: "soft" }, ` ${variant}`)),
        make("div", {},
          make("div", { class: "bar" }, ...counts.map(([outcome, number]) =>
            make("span", { class: kind(outcome), style: `flex: ${number} 0 0` }))),
          make("div", { class: "counts" }, ...counts.map(([outcome, number]) =>
            make("button", { class: `tag ${kind(outcome)}`, type: "button", title: `${outcome}: ${number} of ${summary.samples}`,
              onclick: () => choose(outcome) }, `${outcome} ${number}`))))));
    }
  });
}

// ---- Learning curve
function learning() {
  const section = find("#learning");
  // A curve needs two checkpoints.
  if (new Set(data.points.map((point) => point.step)).size < 2) { section.hidden = true; return; }
  const pick = section.querySelector(".pick");
  pick.replaceChildren(...[["step", "steps"], ["tokens_seen", "tokens"]].map(([axis, label]) =>
    make("button", { type: "button", "aria-pressed": String(view.axis === axis),
      onclick: () => { view.axis = axis; learning(); } }, `against ${label}`)));
  section.querySelector("div").replaceChildren(plot(view.axis));
}
function plot(axis) {
  const [width, height, left, bottom, top] = [860, 300, 52, 36, 12];
  const points = data.points.filter((point) => point[axis] !== null);
  const most = Math.max(...points.map((point) => point[axis]), 1);
  const highest = Math.max(...points.map((point) => point.high));
  const ceiling = [0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8].find((value) => value >= highest) ?? 1;
  const x = (value) => left + ((width - left - 30) * value) / most;
  const y = (value) => top + (height - bottom - top) * (1 - value / ceiling);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", style: "max-width: 100%",
    "aria-label": `pass@1 against ${axis}` });
  const short = (v) => (v >= 1e9 ? `${+(v / 1e9).toPrecision(3)}B` : v >= 1e6 ? `${+(v / 1e6).toPrecision(3)}M`
    : v >= 1e4 ? `${+(v / 1e3).toPrecision(3)}k` : String(Math.round(v)));
  for (let i = 0; i <= 4; i++) {
    const value = (ceiling * i) / 4;
    svg.append(draw("line", { x1: left, x2: width - 20, y1: y(value), y2: y(value), class: "axis" }));
    svg.append(draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, `${(100 * value).toFixed(1)}%`));
    svg.append(draw("text", { x: x((most * i) / 4), y: height - 16, "text-anchor": "middle" }, short((most * i) / 4)));
  }
  const series = new Map();
  for (const point of points) {
    const name = `${point.task_set}, ${point.prompt_style}, ${point.variant}`;
    series.set(name, [...(series.get(name) ?? []), point]);
  }
  const colours = ["var(--pass)", "var(--fail)", "var(--stop)", "var(--ink)", "var(--soft)"];
  [...series].forEach(([name, row], index) => {
    const colour = colours[index % colours.length];
    const shift = 3 * (index - (series.size - 1) / 2); // so that intervals at one step can be told apart
    row.sort((a, b) => a[axis] - b[axis]);
    const line = row.map((point) => `${x(point[axis]) + shift},${y(point.value)}`).join(" ");
    svg.append(draw("polyline", { points: line, fill: "none", stroke: colour, "stroke-width": 1.5,
      "stroke-dasharray": index % 2 ? "5 4" : "none" }));
    for (const point of row) {
      const at = x(point[axis]) + shift;
      svg.append(draw("line", { x1: at, x2: at, y1: y(point.low), y2: y(point.high), stroke: colour, opacity: 0.5, "stroke-width": 2 }));
      svg.append(draw("circle", { cx: at, cy: y(point.value), r: 4, fill: colour },
        draw("title", {}, `${point.run}: ${percent(point.value)} [${percent(point.low)}, ${percent(point.high)}] at ${short(point[axis])}`)));
    }
    svg.append(draw("text", { x: left + 14, y: top + 14 + 16 * index, style: `fill: ${colour}` }, name));
  });
  return svg;
}

// ---- Comparisons
function comparisonRows() {
  if (!data.comparisons.length) { find("#comparisons").hidden = true; return; }
  const table = find("#comparisons table");
  const titles = ["A", "B", "Judged as", "B − A", "p", "Only A solves", "Only B solves"];
  table.append(heads(titles));
  const links = (ids) => [...ids.slice(0, 24).flatMap((id) => [
    make("button", { class: "link", type: "button", onclick: () => open(id) }, id.replace(/^.*\//, "")), " "]),
    ids.length > 24 ? `and ${ids.length - 24} more` : ids.length ? "" : "none"];
  for (const pair of data.comparisons) {
    const range = pair.low === null || pair.low === undefined ? "" : ` [${percent(pair.low)}, ${percent(pair.high)}]`;
    table.append(row(titles, [[pair.a], [pair.b], [pair.variant],
      number(signed(100 * pair.difference), make("small", {}, range)),
      number(pair.p_value.toFixed(3), make("br"), make("small", {}, pair.method)),
      links(pair.ids_only_a), links(pair.ids_only_b)]));
  }
}

// ---- Problems
const problemsOf = data.runs.map((run) => new Map(run.problems.map((problem) => [problem.id, problem])));
function verdictOf(sample) { return sample.variants[view.variant]; }
function matches(problem) {
  const samples = problem.samples.filter((sample) => !view.outcome || verdictOf(sample).outcome === view.outcome);
  if (!samples.length) return false;
  if (!view.text) return true;
  const wanted = view.text.toLowerCase();
  return [problem.id, problem.prompt, ...samples.map((sample) => verdictOf(sample).code)]
    .some((text) => text.toLowerCase().includes(wanted));
}
function open(id) {
  Object.assign(view, { problem: id, sample: 0, outcome: "", text: "" });
  show();
  find("#problems").scrollIntoView();
}
function controls() {
  const form = find("form");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.variant.append(...VARIANTS.map((variant) => new Option(variant, variant)));
  form.elements.run.append(...data.runs.map((run, index) => new Option(run.name, index)));
  form.elements.text.addEventListener("input", (event) => { view.text = event.target.value; show(); });
  for (const name of ["variant", "run", "outcome"]) {
    form.elements[name].addEventListener("change", (event) => {
      view[name] = name === "run" ? Number(event.target.value) : event.target.value;
      show();
    });
  }
}
function show() {
  const form = find("form");
  const counts = data.runs[view.run].summary.outcomes[view.variant];
  if (view.outcome && !(view.outcome in counts)) view.outcome = "";
  form.elements.outcome.replaceChildren(new Option("all", ""),
    ...Object.keys(counts).map((outcome) => new Option(`${outcome} (${counts[outcome]})`, outcome)));
  for (const name of ["variant", "run", "outcome", "text"]) form.elements[name].value = view[name];
  const run = data.runs[view.run];
  const found = run.problems.filter(matches);
  form.querySelector("output").textContent = `${found.length} of ${count(run.problems.length, "problem")}`;
  if (!found.some((problem) => problem.id === view.problem)) Object.assign(view, { problem: found[0]?.id ?? "", sample: 0 });
  find("#list").replaceChildren(...found.map(listItem));
  const list = find("#list"), current = find("#list [aria-current]");
  if (current) {  // only the list: scrollIntoView would move the page around it, too
    const outer = list.getBoundingClientRect(), inner = current.getBoundingClientRect();
    if (inner.top < outer.top) list.scrollTop += inner.top - outer.top;
    if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
  }
  detail(problemsOf[view.run].get(view.problem));
  history.replaceState(null, "", `#${encodeURIComponent(view.problem)}`);
}
function listItem(problem) {
  const tags = data.runs.map((run, index) => {
    const there = problemsOf[index].get(problem.id);
    if (!there) return null;
    const outcomes = there.samples.map((sample) => verdictOf(sample).outcome);
    const passed = outcomes.filter((outcome) => outcome === "passed").length;
    const text = outcomes.length === 1 ? outcomes[0] : `${passed}/${outcomes.length}`;
    const item = tag(passed ? "passed" : outcomes[0], text);
    item.title = run.name;
    return item;
  });
  return make("li", {}, make("button", { type: "button", "aria-current": problem.id === view.problem ? "true" : null,
    onclick: () => { Object.assign(view, { problem: problem.id, sample: 0 }); show(); } },
    make("span", { class: "id" }, problem.id, make("small", { class: "soft" }, ` ${problem.entry_point}`)), ...tags));
}
function detail(problem) {
  const place = find("#detail");
  if (!problem) { place.replaceChildren(make("p", { class: "note" }, "No problem matches the filter.")); return; }
  const wanted = problem.samples.findIndex((sample) => verdictOf(sample).outcome === view.outcome);
  if (view.outcome && verdictOf(problem.samples[view.sample]).outcome !== view.outcome) view.sample = Math.max(wanted, 0);
  const sample = problem.samples[view.sample];
  const verdict = verdictOf(sample);
  const part = (title, text) => (text ? [make("h3", {}, title), make("pre", {}, text)] : []);
  const facts = [`CPU ${seconds(verdict.cpu_seconds)}`, `wall ${seconds(verdict.wall_seconds)}`,
    sample.finish ? `ended by ${sample.finish}` : null, sample.tokens === null ? null : count(sample.tokens, "token"),
    verdict.attempts > 1 ? "wall limit, judged again alone" : null, ...verdict.flags];
  place.replaceChildren(...[
    make("h2", {}, `${problem.id} `, make("small", { class: "soft" }, problem.entry_point)),
    problem.samples.length > 1 ? make("div", { class: "samples" }, ...problem.samples.map((other, index) =>
      make("button", { type: "button", class: kind(verdictOf(other).outcome), "aria-pressed": String(index === view.sample),
        onclick: () => { view.sample = index; show(); } }, `${other.sample}`))) : null,
    make("p", { class: "facts" }, tag(verdict.outcome), ...facts.filter(Boolean).map((fact) => make("span", {}, fact))),
    ...part("What went wrong", verdict.outcome === "passed" ? "" : verdict.detail),
    ...part("Failing test", verdict.failed_test),
    ...part("Prompt", problem.prompt),
    ...part("Raw completion", sample.text),
    ...part("Executed code", verdict.code),
    ...part("Left out by sanitizing", (verdict.dropped ?? []).join("\n")),
    make("h3", {}, "Difference to the reference (− reference, + executed)"), difference(problem.reference, verdict.code),
    ...part("Reference", problem.reference),
    ...part("Tests", problem.tests.join("\n\n")),
  ].filter((child) => child !== null));
}
function difference(before, after) {
  const [a, b] = [before.trimEnd().split("\n"), after.trimEnd().split("\n")];
  const pre = make("pre", { class: "difference" });
  if (a.length * b.length > 4e6) { pre.append("too long to compare here"); return pre; }
  // common[i][j]: length of the longest common subsequence of a[i:] and b[j:].
  const common = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { pre.append(`  ${a[i]}\n`); i++; j++; }
    else if (j >= b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) pre.append(make("del", {}, `− ${a[i++]}`));
    else pre.append(make("ins", {}, `+ ${b[j++]}`));
  }
  return pre;
}

// ---- Start
const total = data.runs.reduce((sum, run) => sum + run.summary.samples, 0);
find("#lead").textContent = `${count(data.runs.length, "run")}, ${count(total, "sample")}, each judged twice.`;
view.problem = decodeURIComponent(location.hash.slice(1));
scoreRows();
outcomeBars();
learning();
comparisonRows();
controls();
show();
