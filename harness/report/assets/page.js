// The page's state: a panel, a budget, the methods that a reader colours; and the controls that change them.

const report = JSON.parse(byId("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = () => window.innerWidth < 700;
const MOST_COLOURED = 8;
const mostColoured = () => (narrow() ? 6 : MOST_COLOURED);
const PALETTE = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494"];

let panel = report.panels[0];
let at = 0; // position of the number of labels among the panel's sizes
let chosen = {}; // limits by the key of a cost
let order = { column: null, down: true };
let answered = {}; // rows that the answer names
let picked = []; // lines that the reader has coloured, the latest last
let dropped = new Set(); // lines that the reader has turned grey
let colours = new Map(); // colour of each coloured line

// ---- rows: columns in the data, objects here

const rowsOf = (one) => {
  if (!one.objects) {
    const names = Object.keys(one.rows);
    const n = names.length ? one.rows[names[0]].length : 0;
    one.objects = Array.from({ length: n }, (_, i) => Object.fromEntries(names.map((name) => [name, one.rows[name][i]])));
  }
  return one.objects;
};
const rowsAt = (one, size) => size.rows.map((i) => rowsOf(one)[i]);
const most = () => (panel.sizes.length ? panel.sizes[at].n_train : Infinity);
const fits = (row) => row.n_train <= most() && fitsIn(row, chosen);
const better = (a, b) => (panel.higher ? a > b : a < b);

// ---- colours: what the reader picks, then the answer, then the front, then what ties

const coloured = () => {
  const own = panel.sizes.length ? rowsAt(panel, panel.sizes[at]) : [];
  const key = costs[Number(byId("axis").value)].key;
  const front = [...frontOf(own.filter((row) => fitsIn(row, chosen)), key)].sort((a, b) => (better(a.score, b.score) ? -1 : 1));
  const rest = own.length <= mostColoured() ? own : answered.tied || [];
  const wanted = [answered.best, answered.saver, answered.cheap, ...front, ...rest].filter(Boolean).map((row) => row.line);
  const known = picked.slice(-mostColoured());
  return [...new Set([...known, ...wanted.filter((line) => !dropped.has(line))])].slice(0, mostColoured());
};
// Backbones of one configuration share its colour; their markers and dashes differ.
const groupOf = (line) => (panel.styles[line] || {}).group || line;
const assignColours = () => {
  colours = new Map();
  const given = new Map(); // colour of each group
  const lines = coloured();
  const isFree = (colour) => ![...given.values()].includes(colour);
  const ownOf = (line) => (panel.styles[line] || {}).colour;
  for (const line of lines) {
    if (!given.has(groupOf(line)) && ownOf(line) && isFree(ownOf(line))) given.set(groupOf(line), ownOf(line));
    if (given.get(groupOf(line)) === ownOf(line) && ownOf(line)) colours.set(line, ownOf(line));
  }
  for (const line of lines) {
    if (!given.has(groupOf(line))) given.set(groupOf(line), PALETTE.find(isFree));
    if (!colours.has(line)) colours.set(line, given.get(groupOf(line)));
  }
};
const toggle = (line) => {
  if (colours.has(line)) {
    picked = picked.filter((one) => one !== line);
    dropped.add(line);
  } else {
    dropped.delete(line);
    picked = [...picked, line].slice(-mostColoured());
  }
  update();
};

const drawChips = () => {
  const lines = [...new Set(rowsOf(panel).filter((row) => row.score !== null).map((row) => row.line))];
  const grey = lines.filter((line) => !colours.has(line));
  for (const box of document.querySelectorAll(".chips")) {
    const had = box.contains(document.activeElement) ? document.activeElement.dataset.line : undefined;
    box.replaceChildren();
    for (const [line, colour] of colours) {
      const chip = make("button", short(line), "chip");
      chip.type = "button";
      chip.dataset.line = line;
      chip.style.setProperty("--own", colour);
      chip.setAttribute("aria-label", `${line}: coloured; make it grey`);
      chip.addEventListener("click", () => toggle(line));
      box.append(chip);
    }
    if (grey.length) {
      const select = document.createElement("select");
      select.setAttribute("aria-label", "Colour another method");
      select.add(new Option("Colour another…", ""));
      for (const line of [...grey].sort()) select.add(new Option(short(line), line));
      select.addEventListener("change", () => toggle(select.value));
      select.dataset.line = "";
      box.append(select);
    }
    if (had !== undefined) ([...box.children].find((one) => one.dataset.line === had) || box.lastChild).focus();
  }
};

// ---- budget

const STEPS = {
  train: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400, 172800, 604800],
  memory: [5, 6, 7, 8, 9, 10, 11].flatMap((power) => [1, 2, 5].map((factor) => factor * 10 ** power)),
  trainable: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].flatMap((power) => [1, 2, 5].map((factor) => factor * 10 ** power)),
};
// Round limits that exclude some of the measured values but not all, and one that excludes all where there is room.
const stopsOf = (key) => {
  const values = rowsOf(panel).filter((row) => row.score !== null && row[key] !== null).map((row) => row[key]);
  if (!values.length) return [];
  const [low, high] = extent(values);
  const found = STEPS[key].filter((step) => step < high);
  return found.filter((step, i) => step >= low || (i + 1 < found.length ? found[i + 1] > low : true));
};

const slider = (id, name, said, max, value, moved) => {
  const [box, label, input, output] = ["div", "label", "input", "output"].map((tag) => make(tag));
  Object.assign(input, { type: "range", id: "limit-" + id, min: 0, max });
  input.value = value; // after its ends: a browser would cut it
  label.htmlFor = output.htmlFor = input.id;
  label.textContent = name;
  const say = () => {
    output.textContent = said(Number(input.value), input);
    input.setAttribute("aria-valuetext", output.textContent);
    input.style.setProperty("--share", `${max ? (100 * input.value) / max : 100}%`);
  };
  input.addEventListener("input", () => {
    moved(Number(input.value));
    say();
    update();
  });
  say();
  box.append(label, input, output);
  return box;
};
const labelAt = (i) => {
  const row = rowsAt(panel, panel.sizes[i]).find((one) => one.n_train === panel.sizes[i].n_train);
  return row && row.n_train ? row.label : "none";
};
const limitSlider = (key, name) => {
  const stops = stopsOf(key);
  if (!stops.length) return null;
  const said = (i, input) => {
    input.dataset.limit = i < stops.length ? stops[i] : "";
    return i < stops.length ? "≤ " + costOf(key).shown(stops[i]) : "no limit";
  };
  return slider(key, name, said, stops.length, stops.length, (i) => (chosen[key] = i < stops.length ? stops[i] : null));
};

const makeSliders = () => {
  const form = byId("sliders");
  form.replaceChildren();
  chosen = {};
  at = mainSize(panel);
  if (panel.sizes.length > 1) form.append(slider("n_train", "Labels", labelAt, panel.sizes.length - 1, at, (i) => (at = i)));
  else if (panel.sizes.length) {
    const only = make("div");
    only.append(make("span", "Labels"), make("span", "the only size measured", "notes"), make("output", labelAt(0)));
    form.append(only);
  }
  const sliders = [limitSlider("train", "Training"), limitSlider("memory", "Memory")].filter(Boolean);
  const last = limitSlider("trainable", "Parameters");
  form.append(...sliders);
  byId("budget-help").hidden = !sliders.length && !last;
  if (!last) return;
  const more = document.createElement("details");
  more.append(make("summary", "Trainable parameters"), last);
  form.append(more);
};

// ---- the answer

const drawAnswer = () => {
  const target = byId("answer");
  if (!panel.sizes.length) {
    [answered, colours] = [{}, new Map()];
    target.replaceChildren(make("p", "Nothing was scored.", "said"));
    return;
  }
  const own = rowsAt(panel, panel.sizes[at]);
  const found = choose(panel.sizes[at], own, chosen);
  const row = (place) => (place === null ? null : own[place]);
  answered = { best: row(found.best), saver: row(found.saver), cheap: row(found.cheap), tied: found.tied.map(row) };
  assignColours();
  const said = make("p", "", "said");
  for (const part of inWords(panel, at, chosen)) {
    if (typeof part === "string") said.append(unbroken(part));
    else {
      const name = named(part, "strong", part === answered.best ? "use" : "method");
      if (colours.has(part.line)) name.style.setProperty("--own", colours.get(part.line));
      said.append(name);
    }
  }
  target.replaceChildren(said, make("p", footnote(panel, at, chosen), "notes"));
};

// ---- all of it

const figures = { curves: drawCurves, cost: drawCost, anytime: drawAnytime, table: drawTable };
const drawOpen = (name) => byId(name).open && figures[name]();
const update = () => {
  drawAnswer();
  assignColours();
  drawFront();
  drawChips();
  Object.keys(figures).forEach(drawOpen);
};
const show = () => {
  panel = report.panels[Number(byId("panel").value) || 0];
  document.querySelectorAll("[data-panel]").forEach((part) => {
    part.hidden = part.dataset.panel !== String(report.panels.indexOf(panel));
  });
  [order, picked, dropped] = [{ column: null, down: true }, [], new Set()];
  const known = costs.findIndex((cost) => rowsOf(panel).some((row) => row.score !== null && row[cost.key] !== null));
  setAxis(String(Math.max(0, known)));
  byId("h-front").parentElement.hidden = known < 0;
  makeSliders();
  update();
};
const measureHead = () =>
  document.documentElement.style.setProperty("--head", document.querySelector("header").getBoundingClientRect().bottom + window.scrollY + "px");
const openTarget = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") target.open = true;
};

document.documentElement.classList.add("scripted");
report.panels.forEach((one, i) => byId("panel").add(new Option(short(one.heading, 120), i)));
const axes = [byId("axis"), byId("axis-too")];
axes.forEach((axis) => costs.forEach((cost, i) => axis.add(new Option(cost.name, i))));
const setAxis = (value) => axes.forEach((axis) => (axis.value = value));
byId("panel").value = "0";
byId("panel").addEventListener("change", show);
axes.forEach((axis) => axis.addEventListener("change", () => (setAxis(axis.value), update())));
byId("filter").addEventListener("input", drawTable);
byId("only-fitting").addEventListener("change", drawTable);
byId("sliders").addEventListener("submit", (event) => event.preventDefault());
for (const name of Object.keys(figures)) byId(name).addEventListener("toggle", () => drawOpen(name));
dark.addEventListener("change", update);
window.addEventListener("hashchange", openTarget);
document.querySelectorAll("nav a").forEach((link) => link.addEventListener("click", () => setTimeout(openTarget)));
let wasWide = window.innerWidth + "x" + window.innerHeight;
let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const isWide = window.innerWidth + "x" + window.innerHeight;
    if (isWide === wasWide) return;
    wasWide = isWide;
    measureHead();
    update();
  }, 80);
});
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((part) => (part.open = true));
  Object.keys(figures).forEach(drawOpen);
});
window.addEventListener("afterprint", () => closed.forEach((part) => (part.open = false)));
document.querySelectorAll(".use[title], .method[title]").forEach((name) => {
  name.dataset.tip = name.title;
  name.removeAttribute("title");
});
// Names of methods in the tables that are written beforehand get their tooltips.
const settingsOf = new Map(
  report.panels.flatMap(rowsOf).filter((row) => row.settings || row.behind).map((row) => [row.name + (row.behind ? " §" : ""), row])
);
if (settingsOf.size) {
  document.querySelectorAll("#standings td.name, #standings td.words, #failures tbody th").forEach((cell) => {
    const parts = cell.textContent.split(/(, |: |; )/);
    if (parts.some((part) => settingsOf.has(part))) {
      cell.replaceChildren(...parts.map((part) => (settingsOf.has(part) ? named(settingsOf.get(part)) : part)));
    }
  });
}
measureHead();
show();
openTarget();
document.documentElement.dataset.ready = "true";
