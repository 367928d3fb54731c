// The small figure of the first screen: score against cost at the chosen number of labels, drawn as SVG.

const svg = (tag, attributes = {}, said = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (said) element.textContent = said;
  return element;
};

// Not dominated: none at least as good costs no more, and is better in one of the two.
const frontOf = (rows, key) => {
  const known = rows.filter((row) => row[key] !== null && row.score !== null);
  known.sort((a, b) => a[key] - b[key] || (panel.higher ? b.score - a.score : a.score - b.score));
  const front = new Set();
  let best = null;
  for (const row of known) {
    const same = best !== null && row[key] === best[key] && row.score === best.score;
    if (best === null || better(row.score, best.score)) best = row;
    else if (!same) continue;
    front.add(row);
  }
  return front;
};

const tipOf = (row) =>
  [
    `${row.name} · ${row.label} labels, ${several(row.n_seeds, "seed")}`,
    `${panel.metric} ${scoreOf(row.score)}${row.low === null ? "" : ` (${interval(row)})`}`,
    costs.map(({ key, name, shown }) => `${name} ${shown(row[key])}`).join(" · "),
    row.settings || "",
  ].filter(Boolean).join("\n");

// The marker of a row: a circle, or the shape of its backbone where there are several.
const SHAPES = {
  square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  diamond: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
  "triangle-up": [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]],
  "triangle-down": [[0, 1.2], [1.1, -0.8], [-1.1, -0.8]],
};
const markOf = (row, x, y, r, attributes) => {
  const style = panel.styles[row.line] || {};
  const corners = style.group ? SHAPES[style.symbol] || SHAPES.diamond : null;
  if (!corners || style.symbol === "circle") return svg("circle", { cx: x, cy: y, r, ...attributes });
  return svg("polygon", { points: corners.map(([dx, dy]) => `${x + r * dx},${y + r * dy}`).join(" "), ...attributes });
};

const extent = (values) => [Math.min(...values), Math.max(...values)];

// Scores alone, best first, where no cost is known.
const drawRanking = (target, own) => {
  const [width, size] = [target.clientWidth, narrow() ? 12 : 13];
  const rows = own.slice(0, Math.max(1, Math.floor((target.clientHeight - 30) / 22)));
  const texts = rows.map((row) => shortTo(row.name, width * 0.45, size));
  const left = 20 + Math.max(...texts.map((text) => widthOf(text, size, 700)));
  const [low, high] = extent(rows.flatMap((row) => (row.low === null ? [row.score] : [row.low, row.high, row.score])));
  const pad = (high - low || 0.1) * 0.05;
  const px = (score) => left + ((score - low + pad) / (high - low + 2 * pad)) * (width - left - 12);
  const pitch = Math.max(22, Math.min(44, (target.clientHeight - 30) / rows.length));
  const height = pitch * rows.length + 30;
  const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-size": size });
  const add = (tag, attributes, said) => picture.appendChild(svg(tag, attributes, said));
  const [ticks, labels] = roundLabels(low - pad, high + pad, Math.max(2, Math.floor((width - left) / 90)));
  ticks.forEach((tick, i) => {
    add("line", { x1: px(tick), x2: px(tick), y1: 0, y2: height - 24, class: "grid" });
    add("text", { x: px(tick), y: height - 8, "text-anchor": "middle", class: "tick" }, labels[i]);
  });
  rows.forEach((row, i) => {
    const [y, colour] = [pitch * (i + 0.5), colours.get(row.line) || "var(--rest)"];
    if (row.low !== null) add("line", { x1: px(row.low), x2: px(row.high), y1: y, y2: y, stroke: colour, class: "whisker" });
    add("circle", { cx: px(row.score), cy: y, r: 5, fill: colour }).dataset.tip = tipOf(row);
    add("text", { x: 0, y: y + 4, class: "direct-label", "font-weight": row === answered.best ? 700 : 400 }, texts[i]);
  });
  target.append(picture);
};

const drawFront = () => {
  const cost = costs[Number(byId("axis").value)];
  const target = byId("front-figure");
  const own = panel.sizes.length ? rowsAt(panel, panel.sizes[at]) : [];
  const rows = own.filter((row) => row[cost.key] !== null);
  target.replaceChildren();
  byId("front-notes").textContent = "";
  byId("first").classList.toggle("nothing", !own.length);
  if (!own.length) return;
  if (!rows.length) {
    drawRanking(target, own);
    const what = costs.some(({ key }) => own.some((row) => row[key] !== null)) ? cost.name : "cost";
    byId("front-notes").textContent = `No ${what} was recorded here: these are the scores alone, with 95 % intervals.`;
    return;
  }
  const unknown = own.length - rows.length;
  const least = rows.filter((row) => row[cost.key] < cost.least).length;
  byId("front-notes").textContent =
    "The line is the Pareto front: nothing at least as good costs less. Click a point to colour it." +
    (least ? ` ${several(least, "point")} below ${cost.shown(cost.least)} ${least === 1 ? "is" : "are"} drawn there.` : "") +
    (unknown ? ` ${several(unknown, "method")} without a known cost ${unknown === 1 ? "is" : "are"} not drawn.` : "");
  // Measured after the notes are written, as they take their room first.
  const [width, height] = [target.clientWidth, target.clientHeight];
  const size = narrow() ? 12 : 13;
  const front = frontOf(rows.filter(fits), cost.key);
  const shown = new Set(coloured().filter((line) => colours.has(line)));
  const isShown = (row) => shown.has(row.line);
  const xOf = (row) => Math.log10(Math.max(row[cost.key], cost.least));

  let [x0, x1] = extent(rows.map(xOf));
  const pad = Math.max(0.15, (x1 - x0) * 0.06);
  [x0, x1] = [x0 - pad, x1 + pad * 1.4];
  let [y0, y1] = extent(rows.flatMap((row) => (isShown(row) && row.low !== null ? [row.low, row.high, row.score] : [row.score])));
  const lift = (y1 - y0 || 0.1) * 0.08;
  [y0, y1] = [y0 - lift, y1 + lift];
  const [yTicks, tickLabels] = roundLabels(y0, y1, Math.max(3, Math.floor(height / 60)));
  const box = { x: 12 + Math.max(...tickLabels.map((label) => widthOf(label, size - 1))), y: 20 };
  Object.assign(box, { width: width - box.x - 8, height: height - box.y - 24 });
  const px = (x) => box.x + ((x - x0) / (x1 - x0)) * box.width;
  const py = (y) => box.y + ((y1 - y) / (y1 - y0)) * box.height;

  const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-size": size });
  const add = (tag, attributes, said) => picture.appendChild(svg(tag, attributes, said));
  const limit = chosen[cost.key];
  if (limit != null && Math.log10(limit) < x1) {
    const from = Math.max(box.x, px(Math.log10(limit)));
    add("rect", { x: from, y: box.y, width: box.x + box.width - from, height: box.height, class: "beyond" });
  }
  yTicks.forEach((tick, i) => {
    add("line", { x1: box.x, x2: box.x + box.width, y1: py(tick), y2: py(tick), class: "grid" });
    add("text", { x: box.x - 6, y: py(tick) + 4, "text-anchor": "end", class: "tick" }, tickLabels[i]);
  });
  let free = 0;
  for (const tick of logTicks(x0, x1, Math.floor(box.width / 80))) {
    const [x, label] = [px(Math.log10(tick)), cost.shown(tick)];
    const half = widthOf(label, size - 1) / 2;
    add("line", { x1: x, x2: x, y1: box.y, y2: box.y + box.height, class: "grid" });
    if (x - half < free || x + half > width) continue;
    free = x + half + 8;
    add("text", { x, y: height - 7, "text-anchor": "middle", class: "tick" }, label);
  }
  add("text", { x: 2, y: 12, class: "tick" }, scoredBy(panel));

  const steps = [...front].sort((a, b) => a[cost.key] - b[cost.key]);
  if (steps.length > 1) {
    const path = steps.map((row, i) => (i ? `H${px(xOf(row))}V${py(row.score)}` : `M${px(xOf(row))},${py(row.score)}`)).join("");
    add("path", { d: path, class: "front-line" });
  }
  const obstacles = alongSteps(steps.map((row) => ({ x: px(xOf(row)), y: py(row.score) })));
  // Grey points first, so that the coloured ones lie on top.
  const ordered = [...rows].sort((a, b) => isShown(a) - isShown(b) || b.score - a.score);
  const points = [];
  for (const row of ordered) {
    const [x, y, isIn] = [px(xOf(row)), py(row.score), fits(row)];
    const colour = isShown(row) ? colours.get(row.line) : "var(--rest)";
    if (isShown(row) && row.low !== null) {
      add("line", { x1: x, x2: x, y1: py(row.low), y2: py(row.high), stroke: colour, class: "whisker" });
      for (let level = py(row.high); level < py(row.low); level += 8) points.push({ x, y: level, r: 1 });
    }
    const r = isShown(row) ? 6 : 4;
    points.push({ x, y, r });
    const looks = { fill: isIn ? colour : "var(--ground)", stroke: isIn ? "var(--ground)" : colour, class: isIn ? "point" : "point out" };
    const point = picture.appendChild(markOf(row, x, y, r, looks));
    point.dataset.tip = tipOf(row);
    point.dataset.line = row.line;
    if (isShown(row)) {
      point.setAttribute("tabindex", "0");
      point.setAttribute("role", "img");
      point.setAttribute("aria-label", `${row.name}: ${scoreOf(row.score)}, ${cost.name} ${cost.shown(row[cost.key])}`);
    }
    point.addEventListener("click", () => toggle(row.line));
  }
  const labelled = coloured().map((line) => rows.find((row) => row.line === line)).filter(Boolean);
  const items = labelled.map((row) => ({
    x: px(xOf(row)), y: py(row.score), size,
    text: shortTo(row.name, box.width * 0.6, size), weight: row === answered.best ? 700 : 400,
  }));
  placeLabels(items, [...points, ...obstacles], { x: box.x, y: 16, width: box.width, height: box.height + 2 }, panel.higher).forEach((place, i) => {
    if (!place) return;
    if (place.leader) {
      const [[x1, y1], [x2, y2]] = place.leader;
      add("line", { x1, y1, x2, y2, class: "leader" });
    }
    const label = add("text", { x: place.x + 1, y: place.y + size, class: "direct-label", "font-weight": items[i].weight }, items[i].text);
    if (!fits(labelled[i])) label.classList.add("out");
  });
  target.append(picture);
};
