// The larger figures, drawn by Plotly when their part is opened: learning curves, score against cost, during training.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const settings = { displayModeBar: false, responsive: false };
const hover = (row) => tipOf(row).split("\n").map((line, i) => (i ? plain(line) : `<b>${plain(line)}</b>`)).join("<br>");
const fontSize = () => (narrow() ? 11 : 13);

// Axes with known ends, so that labels can be placed in pixels.
const frameOf = (id, right, titles) => {
  const width = byId(id).clientWidth;
  const height = narrow() ? 420 : 460;
  const margin = { l: 56, r: right, t: 12, b: 50 };
  const box = { x: margin.l, y: margin.t, width: width - margin.l - right, height: height - margin.t - margin.b };
  const axis = { gridcolor: css("--grid"), zeroline: false, linecolor: css("--faint"), tickangle: 0, automargin: false, fixedrange: true };
  const layout = {
    paper_bgcolor: css("--ground"), plot_bgcolor: css("--ground"),
    font: { color: css("--text"), family: FONT, size: fontSize() },
    width, height, margin, hovermode: "closest", showlegend: false,
    xaxis: { ...axis, title: { text: short(titles[0], narrow() ? 44 : 110), standoff: 8 } },
    yaxis: { ...axis, title: { text: titles[1], standoff: 6 } },
    annotations: [], shapes: [],
  };
  return { box, layout };
};
const scale = (layout, box, [x0, x1], [y0, y1], isLog) => {
  layout.xaxis.range = [x0, x1];
  layout.yaxis.range = [y0, y1];
  if (isLog) layout.xaxis.type = "log";
  const [values, labels] = roundLabels(y0, y1, Math.floor(box.height / 50));
  Object.assign(layout.yaxis, { tickmode: "array", tickvals: values, ticktext: labels });
  const px = (x) => box.x + (((isLog ? Math.log10(x) : x) - x0) / (x1 - x0)) * box.width;
  const py = (y) => box.y + ((y1 - y) / (y1 - y0)) * box.height;
  return [px, py];
};
const write = (layout, box, text, x, y, bold) =>
  layout.annotations.push({
    text: bold ? `<b>${plain(text)}</b>` : plain(text), xref: "paper", yref: "paper", xanchor: "left", yanchor: "middle",
    x: (x - box.x) / box.width, y: 1 - (y - box.y) / box.height, showarrow: false, borderpad: 0, font: { size: fontSize() },
  });
const lead = (layout, box, from, to) =>
  layout.shapes.push({
    type: "line", xref: "paper", yref: "paper", line: { width: 1, color: css("--faint"), dash: "dot" },
    x0: (from[0] - box.x) / box.width, y0: 1 - (from[1] - box.y) / box.height,
    x1: (to[0] - box.x) / box.width, y1: 1 - (to[1] - box.y) / box.height,
  });
const padded = ([low, high], part) => {
  const pad = (high - low || Math.abs(high) || 1) * part;
  return [low - pad, high + pad];
};

const draw = (id, traces, layout) => {
  const target = byId(id);
  if (target.dataset.drawn !== "yes") target.textContent = "";
  target.dataset.drawn = "yes";
  target.classList.remove("empty");
  Plotly.react(target, traces, layout, settings);
  if (!target.dataset.listens) {
    target.dataset.listens = "yes";
    target.on("plotly_click", ({ points }) => points[0].data.meta && toggle(points[0].data.meta));
  }
};
const drawNothing = (id) => {
  const target = byId(id);
  if (target.dataset.drawn === "yes") Plotly.purge(target);
  delete target.dataset.drawn;
  delete target.dataset.listens;
  target.classList.add("empty");
  target.textContent = "Nothing to draw for this task.";
};

const linesOf = (rows) => {
  const lines = new Map();
  for (const row of rows) {
    if (row.score === null) continue;
    if (!lines.has(row.line)) lines.set(row.line, []);
    lines.get(row.line).push(row);
  }
  // Grey lines first, so that the coloured ones lie on top.
  return [...lines].sort((a, b) => colours.has(a[0]) - colours.has(b[0]));
};
const lookOf = (line) => {
  const style = panel.styles[line] || { symbol: "circle", dash: "solid" };
  const isColoured = colours.has(line);
  return { ...style, isColoured, colour: isColoured ? colours.get(line) : css("--rest"), width: isColoured ? 2.2 : 1 };
};

// Names at the right of the axes, each at the height of its line's end.
const nameEnds = (layout, box, ends) => {
  const heights = spread(ends.map((end) => end.y), fontSize() * 1.35, box.y + 4, box.y + box.height - 4);
  const x = box.x + box.width + 12;
  ends.forEach((end, i) => {
    if (Math.abs(end.x - x) > 20 || Math.abs(end.y - heights[i]) > 3) lead(layout, box, [end.x, end.y], [x - 3, heights[i]]);
    write(layout, box, end.text, x, heights[i], answered.best && end.line === answered.best.line);
  });
};
const roomForNames = (id, names) => {
  const most = byId(id).clientWidth * (narrow() ? 0.36 : 0.3);
  const texts = names.map((name) => shortTo(name, most, fontSize()));
  return [texts, 22 + Math.max(10, ...texts.map((text) => widthOf(text, fontSize(), 700)))];
};

const drawCurves = () => {
  const scored = rowsOf(panel).filter((row) => row.score !== null);
  const sizes = [...new Set(scored.filter((row) => row.n_train > 0).map((row) => row.n_train))].sort((a, b) => a - b);
  if (!scored.length) return drawNothing("curves-figure");
  const lines = linesOf(scored);
  const named = lines.filter(([line]) => colours.has(line));
  const [texts, right] = roomForNames("curves-figure", named.map(([line]) => line));
  const { box, layout } = frameOf("curves-figure", right, ["labels (n_train)", plain(scoredBy(panel))]);
  const [from, to] = sizes.length ? extent(sizes) : [1, 2];
  const xs = padded([Math.log10(from), Math.log10(to)], from === to ? 0.1 : 0.04);
  const ys = padded(extent(scored.flatMap((row) => (colours.has(row.line) && row.low !== null ? [row.low, row.high, row.score] : [row.score]))), 0.05);
  const [px, py] = scale(layout, box, xs, ys, true);
  const shownSizes = sizes.filter((size, i) => i === 0 || i === sizes.length - 1 || px(size) - px(sizes[i - 1]) > 34);
  Object.assign(layout.xaxis, { tickmode: "array", tickvals: shownSizes, ticktext: shownSizes.map(counted) });
  const [traces, ends] = [[], []];
  for (const [line, all] of lines) {
    const look = lookOf(line);
    const free = all.filter((row) => row.n_train === 0);
    const own = all.filter((row) => row.n_train > 0).sort((a, b) => a.n_train - b.n_train);
    if (own.length) {
      const last = own[own.length - 1];
      traces.push({
        type: "scatter", mode: "lines+markers", name: plain(short(line)), meta: line,
        x: own.map((row) => row.n_train), y: own.map((row) => row.score), text: own.map(hover), hoverinfo: "text",
        error_y: look.isColoured ? {
          type: "data", symmetric: false, color: look.colour, thickness: 1.2, width: 3,
          array: own.map((row) => (row.high === null ? 0 : row.high - row.score)),
          arrayminus: own.map((row) => (row.low === null ? 0 : row.score - row.low)),
        } : {},
        line: { color: look.colour, dash: look.isColoured ? look.dash : "solid", width: look.width },
        marker: { symbol: look.isColoured ? look.symbol : "circle", size: look.isColoured ? 9 : 5, color: look.colour, opacity: own.map((row) => (fits(row) ? 1 : 0.25)) },
      });
      if (look.isColoured) ends.push({ line, x: px(last.n_train), y: py(last.score) });
    }
    if (free.length) {
      const across = sizes.length > 1 ? [from, to] : [10 ** xs[0], 10 ** xs[1]];
      traces.push({
        type: "scatter", mode: "lines", name: plain(short(line)), meta: line,
        x: across, y: across.map(() => free[0].score), text: across.map(() => hover(free[0])), hoverinfo: "text",
        line: { color: look.colour, dash: "dot", width: look.width }, opacity: fits(free[0]) ? 1 : 0.3,
      });
      if (look.isColoured && !own.length) ends.push({ line, x: px(across[1]), y: py(free[0].score) });
    }
  }
  for (const end of ends) end.text = texts[named.findIndex(([line]) => line === end.line)];
  nameEnds(layout, box, ends);
  draw("curves-figure", traces, layout);
};

const drawCost = () => {
  const cost = costs[Number(byId("axis").value)];
  const rows = rowsOf(panel).filter((row) => row.score !== null);
  const known = rows.filter((row) => row[cost.key] !== null);
  if (!known.length) return drawNothing("cost-figure");
  const front = frontOf(known.filter(fits), cost.key);
  const x = (row) => Math.max(row[cost.key], cost.least);
  const biggest = Math.max(1, ...known.map((row) => row.n_train));
  const sizeOf = (row) => 8 + 9 * Math.sqrt(Math.log2(1 + row.n_train) / Math.log2(1 + biggest));
  const { box, layout } = frameOf("cost-figure", 16, [narrow() ? cost.name : `${cost.axis}, on ${plain(short(panel.device, 40))}`, plain(scoredBy(panel))]);
  const [low, high] = extent(known.map((row) => Math.log10(x(row))));
  const xs = [low - Math.max(0.1, (high - low) * 0.05), high + Math.max(0.15, (high - low) * 0.1)];
  const [px, py] = scale(layout, box, xs, padded(extent(known.map((row) => row.score)), 0.08), true);
  const at = logTicks(xs[0], xs[1], Math.floor(box.width / 85));
  Object.assign(layout.xaxis, { tickmode: "array", tickvals: at, ticktext: at.map(cost.shown) });
  const traces = [];
  const steps = [...front].sort((a, b) => a[cost.key] - b[cost.key]);
  if (steps.length > 1) {
    traces.push({
      type: "scatter", mode: "lines", name: "Pareto front", x: steps.map(x), y: steps.map((row) => row.score),
      line: { shape: "hv", dash: "dash", width: 1.5, color: css("--faint") }, hoverinfo: "skip",
    });
  }
  for (const [line, own] of linesOf(known)) {
    const look = lookOf(line);
    traces.push({
      type: "scatter", mode: "markers", name: plain(short(line)), meta: line,
      x: own.map(x), y: own.map((row) => row.score), text: own.map(hover), hoverinfo: "text",
      marker: {
        symbol: own.map((row) => (look.isColoured ? look.symbol : "circle") + (front.has(row) ? "" : "-open")),
        size: own.map((row) => sizeOf(row) * (look.isColoured ? 1 : 0.7)),
        color: look.colour, line: { width: look.isColoured ? 1.6 : 1, color: look.colour }, opacity: own.map((row) => (fits(row) ? 1 : 0.2)),
      },
    });
  }
  // One name for each coloured method: at its largest size on the front, else at its largest size that fits.
  const place = (row) => (front.has(row) ? 2 : fits(row) ? 1 : 0);
  const labelled = coloured().map((line) => known.filter((row) => row.line === line).sort((a, b) => place(b) - place(a) || b.n_train - a.n_train)[0]);
  const items = labelled.filter(Boolean).map((row) => {
    const size = row.n_train && panel.sizes.length > 1 ? `, ${counted(row.n_train)}` : "";
    const name = shortTo(row.name, box.width * 0.5 - widthOf(size, fontSize()), fontSize());
    return { x: px(x(row)), y: py(row.score), text: short(name, 30 - size.length) + size, size: fontSize(), weight: row === answered.best ? 700 : 400 };
  });
  const points = known.map((row) => ({ x: px(x(row)), y: py(row.score), r: sizeOf(row) / 2 }));
  const corners = [...steps].sort((a, b) => a[cost.key] - b[cost.key]).map((row) => ({ x: px(x(row)), y: py(row.score) }));
  placeLabels(items, [...points, ...alongSteps(corners)], box, panel.higher).forEach((place, i) => {
    if (!place) return;
    const middle = place.y + place.height / 2;
    if (place.leader) lead(layout, box, ...place.leader);
    write(layout, box, items[i].text, place.x + 1, middle, items[i].weight === 700);
  });
  draw("cost-figure", traces, layout);
  const unknown = rows.length - known.length;
  const least = known.filter((row) => row[cost.key] < cost.least).length;
  byId("cost-notes").textContent =
    "Filled points are on the Pareto front of the rows that fit: nothing at least as good costs no more. Larger points have more labels." +
    (least ? ` ${several(least, "point")} below ${cost.shown(cost.least)} are drawn there, since the axis has no 0.` : "") +
    (unknown ? ` ${unknown} of ${rows.length} points are not drawn: this cost is not known of them.` : "");
};

const drawAnytime = () => {
  const curves = panel.anytime || [];
  byId("anytime").querySelector(".chips").hidden = !curves.length;
  if (!curves.length) return drawNothing("anytime-figure");
  const named = curves.filter(({ line }) => colours.has(line));
  const [texts, right] = roomForNames("anytime-figure", named.map(({ line }) => line));
  const { box, layout } = frameOf("anytime-figure", right, ["seconds of training", "validation " + plain(scoredBy(panel))]);
  const [, last] = extent(curves.flatMap((curve) => curve.seconds));
  const [px, py] = scale(layout, box, [0, last * 1.03 || 1], padded(extent(curves.flatMap((curve) => curve.validation)), 0.06), false);
  const traces = [...curves].sort((a, b) => colours.has(a.line) - colours.has(b.line)).map((curve) => {
    const look = lookOf(curve.line);
    return {
      type: "scatter", mode: look.isColoured ? "lines+markers" : "lines", name: plain(short(curve.line)), meta: curve.line,
      x: curve.seconds, y: curve.validation,
      hovertemplate: `${plain(short(curve.line))}, ${counted(curve.n_train)} labels<br>%{x:.3g} s: %{y:.3f}<extra></extra>`,
      line: { color: look.colour, dash: look.isColoured ? look.dash : "solid", width: look.isColoured ? 1.8 : 1 },
      marker: { symbol: look.symbol, size: 6, color: look.colour },
    };
  });
  const end = (values) => values[values.length - 1];
  nameEnds(layout, box, named.map((curve, i) => ({ line: curve.line, text: texts[i], x: px(end(curve.seconds)), y: py(end(curve.validation)) })));
  draw("anytime-figure", traces, layout);
};
