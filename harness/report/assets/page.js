"use strict";
(function () {
  const report = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let panel = report.panels[0];
  let order = { column: null, down: true };

  // ---- words and numbers

  // Plotly reads a little HTML in its labels; a method's name is a name.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, width) => (text.length <= width ? text : text.slice(0, width - 1) + "…");
  const scoreOf = (x) => {
    if (x === null) return "–";
    const size = Math.abs(x);
    return size <= 1 ? x.toFixed(3) : size < 9.995 ? x.toFixed(2) : x.toFixed(1);
  };
  const counted = (x) => {
    if (x === null) return "–";
    if (x < 10000) return Math.round(x).toLocaleString("en");
    if (x < 999950) return (x / 1e3).toFixed(1) + "k";
    return x < 999.95e6 ? (x / 1e6).toFixed(1) + "M" : (x / 1e9).toFixed(2) + "B";
  };
  const bytes = (x) => {
    if (x === null) return "–";
    if (x < 1e6) return (x / 1e3).toFixed(0) + " kB";
    return x < 999.5e6 ? (x / 1e6).toFixed(0) + " MB" : (x / 1e9).toFixed(1) + " GB";
  };
  const seconds = (x) => {
    if (x === null) return "–";
    if (x < 0.0995) return x >= 0.001 ? (x * 1000).toFixed(0) + " ms" : x === 0 ? "0 s" : "<1 ms";
    if (x < 119.5) return (x < 9.95 ? x.toFixed(1) : x.toFixed(0)) + " s";
    return x < 7200 ? (x / 60).toFixed(1) + " min" : (x / 3600).toFixed(1) + " h";
  };

  const costs = [
    { key: "train", name: "train: seconds of encoding, tuning and fitting", shown: seconds, least: 0.001 },
    { key: "memory", name: "peak memory above the baseline, bytes", shown: bytes, least: 1000 },
    { key: "trainable", name: "trainable parameters", shown: counted, least: 1 },
    { key: "stored", name: "bytes to store", shown: bytes, least: 100 },
    { key: "predict", name: "seconds to predict 1,000 texts", shown: seconds, least: 0.001 },
  ];
  const limits = [
    { key: "n_train", name: "Labelled examples", shown: counted },
    { key: "train", name: "Training time", shown: seconds },
    { key: "memory", name: "Peak memory", shown: bytes },
    { key: "trainable", name: "Trainable parameters", shown: counted },
  ];
  const chosen = {};

  // ---- rows of the panel: columns in the data, objects here

  const rowsOf = (one) => {
    if (!one.objects) {
      const names = Object.keys(one.rows);
      const n = names.length ? one.rows[names[0]].length : 0;
      one.objects = Array.from({ length: n }, (_, i) => Object.fromEntries(names.map((name) => [name, one.rows[name][i]])));
    }
    return one.objects;
  };
  const fits = (row) => limits.every(({ key }) => chosen[key] == null || (row[key] !== null && row[key] <= chosen[key]));
  const better = (a, b) => (panel.higher ? a > b : a < b);

  // ---- figures

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = () => window.innerWidth < 700;
  const layoutOf = (titles) => ({
    paper_bgcolor: css("--ground"),
    plot_bgcolor: css("--ground"),
    font: { color: css("--text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 62, r: 14, t: 12, b: 54 },
    height: narrow() ? 560 : 460,
    hovermode: "closest",
    legend: narrow() ? { orientation: "h", y: -0.3, font: { size: 12 } } : { font: { size: 12 } },
    xaxis: { title: { text: short(titles[0], narrow() ? 34 : 110) }, tickangle: 0, gridcolor: css("--grid"), zeroline: false, linecolor: css("--faint") },
    yaxis: { title: { text: titles[1] }, gridcolor: css("--grid"), zeroline: false, linecolor: css("--faint") },
  });
  const settings = { displayModeBar: false, responsive: true };
  const draw = (id, traces, layout) => {
    const target = byId(id);
    if (!traces.length) {
      Plotly.purge(target);
      target.className = "figure empty";
      target.textContent = "Nothing to draw for this task.";
      return;
    }
    if (target.className !== "figure") target.textContent = "";
    target.className = "figure";
    Plotly.react(target, traces, layout, settings);
  };
  const linesOf = (rows) => {
    const lines = new Map();
    for (const row of rows) {
      if (row.score === null) continue;
      if (!lines.has(row.line)) lines.set(row.line, []);
      lines.get(row.line).push(row);
    }
    return lines;
  };
  const ticks = (values, shown) => ({ tickmode: "array", tickvals: values, ticktext: values.map(shown) });
  const hover = (row) =>
    `<b>${plain(short(row.line, 60))}</b><br>${plain(row.label)} labels, ${row.n_seeds} seed${row.n_seeds === 1 ? "" : "s"}` +
    `<br>${plain(panel.metric)} ${scoreOf(row.score)}` +
    (row.low === null ? "" : ` [${scoreOf(row.low)}, ${scoreOf(row.high)}]`) +
    costs.map(({ key, name, shown }) => `<br>${name.replace(/: .*| above.*|, bytes/g, "")}: ${shown(row[key])}`).join("");
  const errorsOf = (rows) => ({
    type: "data",
    symmetric: false,
    array: rows.map((row) => (row.high === null ? 0 : row.high - row.score)),
    arrayminus: rows.map((row) => (row.low === null ? 0 : row.score - row.low)),
    thickness: 1.2,
    width: 3,
  });

  const drawCurves = () => {
    const sizes = [...new Set(rowsOf(panel).filter((row) => row.n_train > 0 && row.score !== null).map((row) => row.n_train))];
    sizes.sort((a, b) => a - b);
    const traces = [];
    for (const [line, all] of linesOf(rowsOf(panel))) {
      const style = panel.styles[line];
      const free = all.filter((row) => row.n_train === 0);
      const own = all.filter((row) => row.n_train > 0).sort((a, b) => a.n_train - b.n_train);
      if (own.length) {
        traces.push({
          type: "scatter",
          mode: "lines+markers",
          name: plain(short(line, 34)),
          x: own.map((row) => row.n_train),
          y: own.map((row) => row.score),
          text: own.map(hover),
          hoverinfo: "text",
          error_y: { ...errorsOf(own), color: style.colour },
          line: { color: style.colour, dash: style.dash, width: 2 },
          marker: { symbol: style.symbol, size: 9, color: style.colour, opacity: own.map((row) => (fits(row) ? 1 : 0.2)) },
        });
      }
      if (free.length) {
        const ends = sizes.length ? [sizes[0], sizes[sizes.length - 1]] : [1, 2];
        traces.push({
          type: "scatter",
          mode: "lines",
          name: plain(short(line, 26)) + " (no labels)",
          x: ends,
          y: ends.map(() => free[0].score),
          text: ends.map(() => hover(free[0])),
          hoverinfo: "text",
          line: { color: style.colour, dash: "dot", width: 2 },
          opacity: fits(free[0]) ? 1 : 0.25,
        });
      }
    }
    const layout = layoutOf(["labels (n_train)", plain(panel.metric || "score")]);
    Object.assign(layout.xaxis, { type: "log" }, ticks(sizes, counted));
    draw("curves-figure", traces, layout);
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

  const drawCost = () => {
    const cost = costs[Number(byId("axis").value)];
    const rows = rowsOf(panel).filter((row) => row.score !== null);
    const known = rows.filter((row) => row[cost.key] !== null);
    const front = frontOf(known.filter(fits), cost.key);
    const x = (row) => Math.max(row[cost.key], cost.least);
    const biggest = Math.max(1, ...known.map((row) => row.n_train));
    const traces = [];
    if (front.size > 1) {
      const steps = [...front].sort((a, b) => a[cost.key] - b[cost.key]);
      traces.push({
        type: "scatter",
        mode: "lines",
        name: "Pareto front",
        x: steps.map(x),
        y: steps.map((row) => row.score),
        line: { shape: "hv", dash: "dash", width: 1.5, color: css("--faint") },
        hoverinfo: "skip",
      });
    }
    for (const [line, own] of linesOf(known)) {
      const style = panel.styles[line];
      traces.push({
        type: "scatter",
        mode: "markers",
        name: plain(short(line, 34)),
        x: own.map(x),
        y: own.map((row) => row.score),
        text: own.map(hover),
        hoverinfo: "text",
        marker: {
          symbol: own.map((row) => style.symbol + (front.has(row) ? "" : "-open")),
          size: own.map((row) => 8 + 9 * Math.sqrt(Math.log2(1 + row.n_train) / Math.log2(1 + biggest))),
          color: style.colour,
          line: { width: 1.6, color: style.colour },
          opacity: own.map((row) => (fits(row) ? 1 : 0.15)),
        },
      });
    }
    const layout = layoutOf([cost.name + (panel.device ? ", on " + plain(short(panel.device, 40)) : ""), plain(panel.metric || "score")]);
    const values = known.map(x);
    if (values.length) {
      const low = Math.floor(Math.log10(Math.min(...values)));
      const high = Math.ceil(Math.log10(Math.max(...values)));
      const factors = high - low <= 2 && !narrow() ? [1, 2, 5] : [1];
      const step = Math.max(1, Math.ceil((high - low) / (narrow() ? 3 : 7)));
      const at = [];
      for (let power = low; power <= high; power += step) for (const f of factors) at.push(f * 10 ** power);
      Object.assign(layout.xaxis, { type: "log" }, ticks(at, cost.shown));
    }
    draw("cost-figure", traces, layout);
    const unknown = rows.length - known.length;
    const least = known.filter((row) => row[cost.key] < cost.least).length;
    byId("cost-notes").textContent =
      "Filled points are on the Pareto front of the methods that fit: nothing at least as good costs no more. Larger points have more labels." +
      (least ? ` ${least} points of less are drawn at ${cost.shown(cost.least)}, since the axis has no 0.` : "") +
      (unknown ? ` ${unknown} of ${rows.length} points are not drawn: this cost is not known of them.` : "");
  };

  const drawAnytime = () => {
    const traces = (panel.anytime || []).map((curve) => {
      const style = panel.styles[curve.line];
      return {
        type: "scatter",
        mode: "lines+markers",
        name: plain(short(curve.line, 26)) + `, ${counted(curve.n_train)}`,
        x: curve.seconds,
        y: curve.validation,
        line: { color: style.colour, dash: style.dash, width: 1.8 },
        marker: { symbol: style.symbol, size: 6, color: style.colour },
      };
    });
    const layout = layoutOf(["seconds of training", "validation " + plain(panel.metric || "score")]);
    draw("anytime-figure", traces, layout);
  };

  // ---- budget

  const stops = (key) => [...new Set(rowsOf(panel).filter((row) => row.score !== null && row[key] !== null).map((row) => row[key]))].sort((a, b) => a - b);

  const makeSliders = () => {
    const form = byId("sliders");
    form.replaceChildren();
    for (const limit of limits) {
      const values = stops(limit.key);
      chosen[limit.key] = null;
      if (values.length < 2) continue;
      const box = document.createElement("div");
      const label = document.createElement("label");
      const input = document.createElement("input");
      const output = document.createElement("output");
      input.type = "range";
      input.id = "limit-" + limit.key;
      input.min = 0;
      input.max = values.length;
      input.value = values.length;
      label.htmlFor = output.htmlFor = input.id;
      label.textContent = limit.name;
      const say = () => {
        const at = Number(input.value);
        chosen[limit.key] = at >= values.length ? null : values[at];
        output.textContent = chosen[limit.key] === null ? "no limit" : "at most " + limit.shown(chosen[limit.key]);
        input.setAttribute("aria-valuetext", output.textContent);
      };
      input.addEventListener("input", () => {
        say();
        update();
      });
      say();
      box.append(label, input, output);
      form.append(box);
    }
  };

  const answer = () => {
    const rows = rowsOf(panel).filter((row) => row.score !== null);
    const fitting = rows.filter(fits);
    const target = byId("budget-answer");
    if (!fitting.length) {
      target.textContent = rows.length ? "No measured method fits this budget." : "Nothing was scored here.";
      return;
    }
    const best = fitting.reduce((a, b) => (better(b.score, a.score) ? b : a));
    const tied = fitting.filter((row) => row !== best && row.n_train === best.n_train && row.draw === best.draw && row.tied && best.best);
    const interval = best.low === null ? "" : ` [${scoreOf(best.low)}, ${scoreOf(best.high)}]`;
    target.textContent =
      `Best that fits: ${short(best.line, 80)} with ${best.label} labels: ${panel.metric} ${scoreOf(best.score)}${interval}, ` +
      `${seconds(best.train)} of training, ${bytes(best.memory)} of memory, ${counted(best.trainable)} trainable parameters. ` +
      (tied.length ? `Not shown to be worse: ${tied.map((row) => short(row.line, 40)).join(", ")}. ` : "") +
      `${fitting.length} of ${rows.length} measured choices fit.`;
  };

  // ---- the table

  const columns = [
    { key: "line", name: "method", shown: (row) => row.line, text: true },
    { key: "family", name: "family", shown: (row) => row.family, text: true, of: "name" },
    { key: "n_train", name: "labels", shown: (row) => row.label },
    { key: "score", name: "score", shown: (row) => scoreOf(row.score) },
    { key: "low", name: "95 % interval", shown: (row) => (row.low === null ? "–" : `${scoreOf(row.low)}–${scoreOf(row.high)}`) },
    { key: "n_seeds", name: "seeds", shown: (row) => String(row.n_seeds) },
    { key: "basis", name: "interval over", shown: (row) => row.basis || "–", text: true },
    { key: "gap", name: "train − test", shown: (row) => scoreOf(row.gap) },
    { key: "train", name: "train", shown: (row) => seconds(row.train) },
    { key: "predict", name: "predict 1,000", shown: (row) => seconds(row.predict) },
    { key: "memory", name: "memory", shown: (row) => bytes(row.memory) },
    { key: "trainable", name: "trainable", shown: (row) => counted(row.trainable) },
    { key: "stored", name: "stored", shown: (row) => bytes(row.stored) },
    { key: "note", name: "missing", shown: (row) => row.note || "", text: true, of: "words" },
  ];
  const MOST_ROWS = 2000;

  const sorted = (rows) => {
    if (order.column === null) return rows;
    const { key, text } = columns[order.column];
    const sign = order.down ? -1 : 1;
    return [...rows].sort((a, b) => {
      if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null);
      return sign * (text ? String(a[key]).localeCompare(String(b[key])) : a[key] - b[key]);
    });
  };

  const drawTable = () => {
    const wanted = byId("filter").value.trim().toLowerCase();
    const only = byId("only-fitting").checked;
    const rows = rowsOf(panel).filter(
      (row) => (!only || fits(row)) && (!wanted || columns.some((column) => column.shown(row).toLowerCase().includes(wanted)))
    );
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    columns.forEach((column, i) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.className = column.of || "";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.name + (order.column === i ? (order.down ? " ▼" : " ▲") : "");
      cell.setAttribute("aria-sort", order.column !== i ? "none" : order.down ? "descending" : "ascending");
      button.addEventListener("click", () => {
        order = { column: i, down: order.column === i ? !order.down : !column.text };
        drawTable();
        byId("full-table").querySelectorAll("thead button")[i].focus();
      });
      cell.append(button);
      head.append(cell);
    });
    const body = table.createTBody();
    for (const row of sorted(rows).slice(0, MOST_ROWS)) {
      const line = body.insertRow();
      if (!fits(row)) line.className = "unfit";
      columns.forEach((column, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (!i) cell.scope = "row";
        const said = column.shown(row);
        cell.textContent = short(said, 120);
        if (said.length > 120) cell.title = said.slice(0, 1000);
        cell.className = column.of || "";
        if (column.key === "score" && row.best) cell.className = "best";
        else if (column.key === "score" && row.tied) cell.className = "tied";
        line.append(cell);
      });
    }
    byId("full-table").replaceChildren(table);
    byId("table-notes").textContent =
      `${Math.min(rows.length, MOST_ROWS)} of ${rowsOf(panel).length} rows. The best score at each size is bold and coloured; ` +
      "methods not shown to be worse are half bold. Rows that do not fit the budget are struck through.";
  };

  // ---- all of it

  const update = () => {
    answer();
    drawCurves();
    drawCost();
    drawTable();
  };
  const show = () => {
    panel = report.panels[Number(byId("panel").value) || 0];
    document.querySelectorAll("[data-panel]").forEach((part) => {
      part.hidden = part.dataset.panel !== String(report.panels.indexOf(panel));
    });
    order = { column: null, down: true };
    makeSliders();
    update();
    drawAnytime();
  };

  report.panels.forEach((one, i) => byId("panel").add(new Option(short(one.title, 120), i)));
  costs.forEach((cost, i) => byId("axis").add(new Option(cost.name, i)));
  const largest = report.panels.reduce((best, one, i) => (one.size > report.panels[best].size ? i : best), 0);
  byId("panel").value = String(largest);
  byId("axis").value = "0";
  byId("panel").addEventListener("change", show);
  byId("axis").addEventListener("change", drawCost);
  byId("filter").addEventListener("input", drawTable);
  byId("only-fitting").addEventListener("change", drawTable);
  byId("sliders").addEventListener("submit", (event) => event.preventDefault());
  dark.addEventListener("change", () => (update(), drawAnytime()));
  let wasNarrow = narrow();
  window.addEventListener("resize", () => {
    if (wasNarrow === narrow()) return;
    wasNarrow = narrow();
    update();
    drawAnytime();
  });
  if (panel) show();
  document.documentElement.dataset.ready = "true";
})();
