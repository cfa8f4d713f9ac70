"use strict";
// Draws the data beside it. Text from the data goes through textContent only, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const byId = (id) => document.getElementById(id);

const AXES = { usd: "Dollars", hours: "Hours", tokens: "Tokens", flops: "FLOPs" };
const LOSSES = { final: "Final", best: "Best" };
const LAYERS = {
  curves: "Learning curves", frontier: "Frontier", names: "Names",
  intervals: "Seeds, 95 %", references: "Published", log: "Log scales",
};
const state = {
  axis: data.axis, loss: "final", lit: null, hidden: new Set(),
  layers: new Set(Object.keys(LAYERS)), sorted: { column: "loss", up: true },
};
if (data.runs.length > 60) state.layers.delete("curves");

// ---- words and numbers

function count(value) {
  for (const [size, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= 0.9995 * size) return `${Number((value / size).toPrecision(3))}${letter}`;
  }
  return String(Number(value.toPrecision(3)));
}
function dollars(value) {
  if (value > 0 && value < 0.0995) return `$${Number(value.toPrecision(2))}`;
  const cents = value < 1000 ? 2 : 0;
  return `$${value.toLocaleString("en-US", { minimumFractionDigits: cents, maximumFractionDigits: cents })}`;
}
function duration(hours) {
  const seconds = Math.round(hours * 3600);
  if (seconds < 60) return `${Number((hours * 3600).toPrecision(3))}s`;
  const two = (n) => String(n).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h${two(Math.floor((seconds % 3600) / 60))}m`;
  return `${Math.floor(seconds / 86400)}d${two(Math.floor((seconds % 86400) / 3600))}h`;
}
const power = (value) => value.toExponential(2).replace("e+", "e");
const FORMATS = { usd: dollars, hours: duration, tokens: count, flops: power };
const spent = (value, axis) => (value === null ? "unknown" : FORMATS[axis](value));
const loss = (value) => (value === null ? "unknown" : value.toFixed(4));
const known = (value, format) => (value === null || value === undefined ? "unknown" : format(value));
const colour = (series) => (dark.matches ? data.dark : data.light)[series];

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function shape(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// ---- the plot

let view = null; // scales of the last drawing, and the runs in it from left to right

function visibleRuns() {
  return data.runs
    .map((run, index) => ({ run, index, x: run.x[state.axis], y: run[state.loss] }))
    .filter(({ run, x, y }) => x !== null && x > 0 && y !== null && !state.hidden.has(run.series))
    .sort((a, b) => a.x - b.x || a.y - b.y);
}

function scale(low, high, from, to, logarithmic) {
  const f = logarithmic ? Math.log : (v) => v;
  const span = f(high) - f(low) || 1;
  return (value) => from + ((f(value) - f(low)) / span) * (to - from);
}

function niceTicks(low, high, wanted) {
  const raw = (high - low) / wanted;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((factor) => unit * factor >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push(Number((i * step).toPrecision(10)));
  return ticks;
}
function decades(low, high, wanted) {
  if (state.axis === "hours") return data.round_hours.filter((tick) => tick >= low && tick <= high);
  const found = (factors) => {
    const ticks = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p += 1) {
      for (const factor of factors) {
        const tick = Number(`${factor}e${p}`);
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  };
  const choices = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]].map(found);
  return choices.find((ticks) => ticks.length >= Math.min(4, wanted)) || choices[3];
}

function limits(runs, logarithmic) {
  const xs = runs.map(({ x }) => x), ys = runs.map(({ y }) => y);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (!logarithmic) {
    const width = right - left || right, height = high - low || 0.05 * high;
    return [Math.max(0, left - 0.2 * width), right + 0.1 * width, low - 0.12 * height, high + 0.15 * height];
  }
  const width = Math.max(Math.log(right / left), 1), height = Math.max(Math.log(high / low), 0.02);
  return [
    left * Math.exp(-0.22 * width), right * Math.exp(0.12 * width),
    low * Math.exp(-0.14 * height), high * Math.exp(0.16 * height),
  ];
}

function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
}

class Labels { // texts that keep out of each other's way; one without room is left out
  constructor(box, points) {
    this.box = box;
    this.taken = points.map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  }
  place(parent, x, y, text, size, shifts, attributes) {
    if (x < this.box[0] || x > this.box[2] || y < this.box[1] || y > this.box[3]) return;
    const shown = text.length > 32 ? `${text.slice(0, 31)}…` : text;
    const width = shown.length * size * 0.6, height = size * 1.15;
    for (const [dx, dy] of shifts) {
      const left = x + dx - (dx < 0 ? width : 0), top = y + dy - height / 2;
      const mine = [left, top, left + width, top + height];
      const inside = mine[0] >= this.box[0] && mine[2] <= this.box[2] && mine[1] >= this.box[1] && mine[3] <= this.box[3];
      const free = this.taken.every((o) => mine[0] > o[2] || o[0] > mine[2] || mine[1] > o[3] || o[1] > mine[3]);
      if (!inside || !free) continue;
      this.taken.push(mine);
      const anchor = dx < 0 ? "end" : "start";
      shape(parent, "text", { x: x + dx, y: y + dy + size * 0.34, "text-anchor": anchor, ...attributes }, shown);
      return;
    }
  }
}

function draw() {
  const chart = byId("chart");
  const width = chart.clientWidth, height = chart.clientHeight;
  chart.replaceChildren();
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const box = { left: 56, right: width - 12, top: 10, bottom: height - 44 };
  const runs = visibleRuns();
  const logarithmic = state.layers.has("log");
  if (!runs.length) {
    view = null;
    const nothing = `No run with known ${AXES[state.axis].toLowerCase()} and a loss`;
    shape(chart, "text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "nothing" }, nothing);
    return;
  }
  const [left, right, low, high] = limits(runs, logarithmic);
  const x = scale(left, right, box.left, box.right, logarithmic);
  const y = scale(low, high, box.bottom, box.top, logarithmic);
  view = { runs, x, y };
  drawGrid(chart, box, { left, right, low, high, x, y, logarithmic });

  const defs = shape(chart, "defs", {});
  const clip = shape(defs, "clipPath", { id: "inside" });
  shape(clip, "rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
  const inside = shape(chart, "g", { "clip-path": "url(#inside)" });
  if (state.layers.has("references")) drawReferences(inside, box, x, y);
  const curves = shape(inside, "g", {});
  for (const { run, index } of runs) {
    if (state.layers.has("curves") || index === state.lit) drawCurve(curves, run, index, x, y, logarithmic);
  }
  const best = data.frontier[state.loss][state.axis]
    .map((index) => runs.find((shown) => shown.index === index)).filter(Boolean);
  if (state.layers.has("frontier")) {
    const steps = best.flatMap((run, i) => (i ? [[x(run.x), y(best[i - 1].y)], [x(run.x), y(run.y)]] : [[x(run.x), y(run.y)]]));
    shape(inside, "path", { d: path(steps), class: "frontier" });
  }
  if (state.layers.has("intervals") && state.loss === "final") drawIntervals(inside, x, y);
  const points = shape(chart, "g", { id: "points" });
  for (const { run, index, x: at, y: value } of runs) drawPoint(points, run, index, x(at), y(value));
  drawNames(chart, box, runs, best, x, y);
  light(state.lit, false);
}

function drawGrid(chart, box, { left, right, low, high, x, y, logarithmic }) {
  const grid = shape(chart, "g", { class: "grid", "aria-hidden": "true" });
  const room = (box.right - box.left) / 90;
  let across = logarithmic ? decades(left, right, room) : niceTicks(left, right, room);
  while (across.length > room + 1) across = across.filter((_, i) => i % 2 === 0);
  for (const tick of across) {
    shape(grid, "line", { x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom });
    const text = state.axis === "flops" ? tick.toExponential().replace("e+", "e") : FORMATS[state.axis](tick)
      .replace(/\.00$/, "").replace(/([dhm])00[hms]$/, "$1");
    shape(grid, "text", { x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, text);
  }
  for (const tick of niceTicks(low, high, (box.bottom - box.top) / 55)) {
    shape(grid, "line", { x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) });
    shape(grid, "text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick));
  }
  const name = `${AXES[state.axis]} the whole run took`;
  shape(grid, "text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, name);
  shape(grid, "text", { transform: `translate(12 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
    `${LOSSES[state.loss]} validation loss, ${data.unit}`);
}

function drawReferences(parent, box, x, y) {
  const series = new Map();
  for (const reference of data.references) {
    const group = shape(parent, "g", { class: "reference" });
    shape(group, "title", {}, `${reference.label || reference.series}: ${reference.loss} (${reference.source})`);
    const at = reference.x[state.axis];
    if (reference.kind === "level") {
      shape(group, "line", { x1: box.left, x2: box.right, y1: y(reference.loss), y2: y(reference.loss), class: "level" });
    } else if (at !== null) {
      const [px, py] = [x(at), y(reference.loss)];
      shape(group, "path", { d: `M${px - 4},${py}L${px},${py - 4}L${px + 4},${py}L${px},${py + 4}Z`, style: "fill: var(--faint)" });
      if (reference.series) series.set(reference.series, [...(series.get(reference.series) || []), [px, py]]);
    }
  }
  for (const points of series.values()) {
    const group = shape(parent, "g", { class: "reference" });
    shape(group, "path", { d: path(points.sort((a, b) => a[0] - b[0])) });
  }
}

function drawCurve(parent, run, index, x, y, logarithmic) {
  const points = run.curve[state.axis].map(([at, value]) => [x(at), y(value)]);
  if (points.length < 2) return;
  const lit = index === state.lit ? " lit" : "";
  shape(parent, "path", { d: path(points), class: `curve${lit}`, style: `stroke: ${colour(run.series)}`, "data-run": index });
}

function drawIntervals(parent, x, y) {
  for (const { x: at, low, high, mean, series } of data.intervals[state.axis]) {
    if (state.hidden.has(series)) continue;
    const [px, top, bottom] = [x(at), y(high), y(low)];
    const d = `M${px},${top}V${bottom}M${px - 6},${top}H${px + 6}M${px - 6},${bottom}H${px + 6}M${px - 4},${y(mean)}H${px + 4}`;
    shape(parent, "path", { d, class: "interval", style: `stroke: ${colour(series)}` });
  }
}

function drawPoint(parent, run, index, px, py) {
  const hollow = run.ended !== "finished";
  const style = hollow ? `stroke: ${colour(run.series)}` : `fill: ${colour(run.series)}`;
  const point = shape(parent, "circle", {
    cx: px, cy: py, r: data.runs.length > 300 ? 4 : 5.5, class: hollow ? "point hollow" : "point", style, "data-run": index,
  });
  point.addEventListener("pointerenter", () => light(index));
  point.addEventListener("pointerleave", () => light(null));
  point.addEventListener("click", () => rowOf(index)?.scrollIntoView({ block: "nearest" }));
}

function drawNames(chart, box, runs, best, x, y) {
  const layer = shape(chart, "g", { "aria-hidden": "true" });
  const labels = new Labels([box.left, box.top, box.right, box.bottom], runs.map((run) => [x(run.x), y(run.y)]));
  if (state.layers.has("names") && state.layers.has("frontier")) {
    const below = [[-8, 9], [-8, 22], [8, -10], [8, 10]];
    for (const run of [...best].reverse()) {
      labels.place(layer, x(run.x), y(run.y), run.run.name, 12, below, { class: "name" });
    }
  }
  if (!state.layers.has("references")) return;
  const published = shape(layer, "g", { class: "reference" });
  for (const reference of data.references) {
    const at = reference.kind === "level" ? null : reference.x[state.axis];
    if (reference.kind === "level") {
      labels.place(published, box.right, y(reference.loss), reference.label, 11.5, [[-3, -8], [-3, 9]], {});
    } else if (at !== null && reference.label) {
      const around = [[8, -8], [8, 9], [-8, -8], [-8, 9], [8, -20], [8, 20]];
      labels.place(published, x(at), y(reference.loss), reference.label, 11.5, around, {});
    }
  }
}

// ---- one run in the light: pointer, keyboard and table all end here

function light(index, redraw = true) {
  state.lit = index;
  for (const row of document.querySelectorAll("#runs tbody tr")) {
    row.classList.toggle("lit", Number(row.dataset.run) === index);
  }
  const chart = byId("chart"), tip = byId("tip");
  chart.querySelector(".ring")?.remove();
  if (redraw) {
    chart.querySelectorAll(".curve.lit").forEach((curve) => {
      curve.classList.remove("lit");
      if (!state.layers.has("curves")) curve.remove();
    });
  }
  const shown = view && view.runs.find((run) => run.index === index);
  tip.hidden = !shown;
  if (!shown) return;
  if (redraw) {
    const drawn = chart.querySelector(`.curve[data-run="${index}"]`);
    if (drawn) drawn.classList.add("lit");
    else drawCurve(chart.querySelector("[clip-path]"), shown.run, index, view.x, view.y);
  }
  const [px, py] = [view.x(shown.x), view.y(shown.y)];
  shape(chart, "circle", { cx: px, cy: py, r: 9, class: "ring" });
  fillTip(tip, shown.run);
  const plot = byId("plot");
  const onRight = px > plot.clientWidth / 2;
  tip.style.left = onRight ? "auto" : `${Math.min(px + 16, plot.clientWidth - 60)}px`;
  tip.style.right = onRight ? `${Math.min(plot.clientWidth - px + 16, plot.clientWidth - 60)}px` : "auto";
  tip.style.top = `${Math.max(0, Math.min(py - 30, plot.clientHeight - tip.offsetHeight))}px`;
}

function fillTip(tip, run) {
  const list = node("dl");
  const facts = [
    [`Final loss`, loss(run.final)], ["Best loss", loss(run.best)],
    ["Dollars", spent(run.x.usd, "usd")], ["Time", spent(run.x.hours, "hours")],
    ["Tokens", spent(run.x.tokens, "tokens")], ["FLOPs", spent(run.x.flops, "flops")],
    ["Size", count(run.params)], ["On", run.hardware], ["Seed", String(run.seed)], ["Ended", run.ended],
  ];
  for (const [name, value] of facts) list.append(node("dt", {}, name), node("dd", {}, value));
  tip.replaceChildren(node("strong", {}, run.name), list);
}

byId("chart").addEventListener("keydown", (event) => {
  if (!view) return;
  const at = view.runs.findIndex((run) => run.index === state.lit);
  const moves = { ArrowRight: at + 1, ArrowLeft: at < 0 ? view.runs.length - 1 : at - 1, Home: 0, End: view.runs.length - 1 };
  if (event.key === "Escape") light(null);
  else if (event.key in moves) {
    light(view.runs[Math.max(0, Math.min(view.runs.length - 1, moves[event.key]))].index);
    event.preventDefault();
  }
});
byId("chart").addEventListener("blur", () => light(null));

// ---- controls

function choices(parent, type, options, isOn, change) {
  for (const [value, name] of Object.entries(options)) {
    const input = node("input", { type, name: parent, value });
    input.checked = isOn(value);
    input.addEventListener("change", () => { change(value, input.checked); draw(); fillRuns(); });
    byId(parent).append(node("label", {}, input, node("span", {}, name)));
  }
}
function fillLegend() {
  byId("legend").replaceChildren(...data.series.map((name, series) => {
    const dot = node("i");
    dot.style.background = colour(series);
    const button = node("button", { type: "button", "aria-pressed": String(!state.hidden.has(series)) }, dot, name);
    button.addEventListener("click", () => {
      if (!state.hidden.delete(series)) state.hidden.add(series);
      button.setAttribute("aria-pressed", String(!state.hidden.has(series)));
      draw();
    });
    return button;
  }));
  byId("legend").hidden = data.series.length < 2;
}

// ---- tables

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const COLUMNS = [
  ["run", "Run", (run) => run.name, (run) => run.name],
  ["size", "Size", (run) => run.params, (run) => count(run.params)],
  ["tokens", "Tokens", (run) => run.x.tokens, (run) => spent(run.x.tokens, "tokens")],
  ["usd", "Dollars", (run) => run.x.usd, (run) => spent(run.x.usd, "usd")],
  ["hours", "Time", (run) => run.x.hours, (run) => spent(run.x.hours, "hours")],
  ["gpu_hours", "GPU-hours", (run) => run.gpu_hours,
    (run) => (run.gpus === 0 ? "no GPU" : known(run.gpu_hours, (v) => v.toFixed(2)))],
  ["tokens_per_s", "Tokens/s", (run) => run.tokens_per_s, (run) => known(run.tokens_per_s, count)],
  ["mfu", "MFU", (run) => run.mfu, (run) => known(run.mfu, percent)],
  ["loss", "Final loss", (run) => run.final, (run) => loss(run.final)],
  ["best", "Best loss", (run) => run.best, (run) => loss(run.best)],
  ["ended", "Ended", (run) => run.ended, (run) => run.ended],
  ["hardware", "On", (run) => run.hardware, (run) => run.hardware],
];
if (data.target !== null) {
  COLUMNS.splice(10, 0, ["reached", `$ to ${data.target}`, (run) => run.reached,
    (run) => (run.reached !== null ? (run.at_most ? "≤ " : "") + dollars(run.reached)
      : run.best !== null && run.best <= data.target ? "unknown" : "not reached")]);
}

function fillRuns() {
  const { column, up } = state.sorted;
  const valueOf = COLUMNS.find(([key]) => key === column)[2];
  const order = data.runs.map((_, index) => index).sort((a, b) => {
    const [p, q] = [valueOf(data.runs[a]), valueOf(data.runs[b])];
    if (p === null || q === null) return (p === null) - (q === null); // unknown last, either way
    return (p < q ? -1 : p > q ? 1 : 0) * (up ? 1 : -1);
  });
  const head = node("tr", {}, ...COLUMNS.map(([key, name]) => {
    const mark = key === column ? (up ? " ↑" : " ↓") : "";
    const button = node("button", { type: "button" }, name + mark);
    button.addEventListener("click", () => {
      state.sorted = { column: key, up: key === column ? !up : true };
      fillRuns();
      byId("runs").querySelectorAll("th button")[COLUMNS.findIndex(([k]) => k === key)].focus();
    });
    const sort = key === column ? (up ? "ascending" : "descending") : "none";
    return node("th", { scope: "col", "aria-sort": sort }, button);
  }));
  const frontier = new Set(data.frontier[state.loss][state.axis]);
  const rows = order.map((index) => {
    const run = data.runs[index];
    const cells = COLUMNS.map(([key, , , text]) => {
      const shown = text(run);
      const cell = node("td", shown === "unknown" ? { class: "unknown" } : {}, shown);
      if (key === "run") {
        const dot = node("i");
        dot.style.background = colour(run.series);
        cell.prepend(dot);
        if (frontier.has(index)) cell.classList.add("best");
      }
      return cell;
    });
    const row = node("tr", { tabindex: "0", "data-run": index }, ...cells);
    row.addEventListener("pointerenter", () => light(index));
    row.addEventListener("pointerleave", () => light(null));
    row.addEventListener("focus", () => light(index));
    return row;
  });
  byId("runs").replaceChildren(node("thead", {}, head), node("tbody", {}, ...rows));
}
const rowOf = (index) => document.querySelector(`#runs tr[data-run="${index}"]`);

function fillTable(id, names, rows) {
  const words = (column) => rows.some((cells) => cells[column].words !== undefined);
  const head = node("tr", {}, ...names.map((name, column) => node("th", words(column) ? { scope: "col", class: "words" } : { scope: "col" }, name)));
  const body = rows.map((cells) => node("tr", {}, ...cells.map((cell) => node("td", cell.words === undefined ? {} : { class: "words" }, cell.words ?? cell))));
  byId(id).replaceChildren(node("thead", {}, head), node("tbody", {}, ...body));
}

function fillRest() {
  byId("about").textContent = `${data.runs.length} runs, validation loss in ${data.unit}. ${data.text.join("; ")}`;
  byId("findings").replaceChildren(...data.findings.map((text) => node("p", {}, text)));
  byId("notes").replaceChildren(...data.notes.map((text) => node("p", {}, `Note: ${text}.`)));
  byId("grouped").hidden = !data.groups.length;
  fillTable("groups", ["Group", "Runs", "Seeds", "Mean final", "95 % interval", "On"], data.groups.map((group) => [
    group.label, String(group.runs.length), String(group.finished_seeds), loss(group.mean_final_val_loss),
    group.low === null ? (group.finished_seeds ? "one seed" : "unknown") : `${loss(group.low)} to ${loss(group.high)}`,
    { words: group.hardware.join("; ") },
  ]));
  const forecast = data.runs.filter((run) => Object.values(run.predicted).some((value) => value !== null));
  byId("forecast").hidden = !forecast.length;
  const pair = (predicted, actual, format, comparable) => {
    const error = comparable && predicted && actual ? ` (${actual >= predicted ? "+" : "−"}${Math.abs(100 * (actual / predicted - 1)).toFixed(0)} %)` : "";
    return `${known(predicted, format)} → ${known(actual, format)}${error}`;
  };
  fillTable("predicted", ["Run", "Dollars", "Time", "Memory", "Tokens/s"], forecast.map((run) => {
    const whole = run.ended === "finished";
    return [
      run.name, pair(run.predicted.usd, run.x.usd, dollars, whole), pair(run.predicted.hours, run.x.hours, duration, whole),
      pair(run.predicted.peak_gib, run.peak_gib, (v) => `${v.toFixed(1)} GiB`, true),
      pair(run.predicted.tokens_per_s, run.tokens_per_s, count, true),
    ];
  }));
  byId("published").hidden = !data.references.length;
  fillTable("references", ["Result", "Loss", "Dollars", "Source"], data.references.filter((reference) => reference.label).map((reference) => [
    reference.label, String(reference.loss), reference.kind === "level" ? "" : spent(reference.x.usd, "usd"), { words: reference.source },
  ]));
  for (const scroll of document.querySelectorAll(".scroll")) scroll.tabIndex = 0;
}

choices("axes", "radio", AXES, (value) => value === state.axis, (value) => { state.axis = value; });
choices("losses", "radio", LOSSES, (value) => value === state.loss, (value) => { state.loss = value; });
choices("layers", "checkbox", LAYERS, (value) => state.layers.has(value),
  (value, on) => { if (on) state.layers.add(value); else state.layers.delete(value); });
function everything() { fillLegend(); fillRuns(); draw(); }
dark.addEventListener("change", everything);
new ResizeObserver(draw).observe(byId("chart"));
fillRest();
everything();
