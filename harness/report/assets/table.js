// The table of all figures: sorted by any column, filtered by words and by the budget.

const columns = [
  { key: "line", name: "method", shown: (row) => row.line, text: true },
  { key: "family", name: "family", shown: (row) => row.family, text: true, of: "name" },
  { key: "n_train", name: "labels", shown: (row) => row.label },
  { key: "score", name: "score", shown: (row) => scoreOf(row.score) },
  { key: "low", name: "95 % interval", shown: (row) => interval(row) || "–" },
  { key: "n_seeds", name: "seeds", shown: (row) => String(row.n_seeds) },
  { key: "basis", name: "interval over", shown: (row) => row.basis || "–", text: true },
  { key: "gap", name: () => (panel.higher ? "train − test" : "test − train"), shown: (row) => scoreOf(row.gap) },
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

const headOf = (table) => {
  const head = table.createTHead().insertRow();
  columns.forEach((column, i) => {
    const cell = make("th", "", column.of);
    const name = typeof column.name === "function" ? column.name() : column.name;
    const button = make("button", name + (order.column === i ? (order.down ? " ▼" : " ▲") : ""));
    cell.scope = "col";
    button.type = "button";
    cell.setAttribute("aria-sort", order.column !== i ? "none" : order.down ? "descending" : "ascending");
    button.addEventListener("click", () => {
      order = { column: i, down: order.column === i ? !order.down : !column.text };
      drawTable();
      byId("full-table").querySelectorAll("thead button")[i].focus();
    });
    cell.append(button);
    head.append(cell);
  });
};

const methodCell = (row) => {
  const cell = make("th");
  cell.scope = "row";
  cell.append(named({ ...row, name: row.line }));
  return cell;
};

const drawTable = () => {
  const wanted = byId("filter").value.trim().toLowerCase();
  const only = byId("only-fitting").checked;
  const rows = rowsOf(panel).filter(
    (row) => (!only || fits(row)) && (!wanted || columns.some((column) => column.shown(row).toLowerCase().includes(wanted)))
  );
  const table = document.createElement("table");
  headOf(table);
  const body = table.createTBody();
  for (const row of sorted(rows).slice(0, MOST_ROWS)) {
    const line = body.insertRow();
    if (!fits(row)) line.className = "unfit";
    line.append(methodCell(row));
    for (const column of columns.slice(1)) {
      const said = column.shown(row);
      const cell = make("td", short(said, 120), column.of);
      if (said.length > 120) cell.title = said.slice(0, 1000);
      if (column.key === "score" && row.best) cell.className = "best";
      else if (column.key === "score" && row.tied) cell.className = "tied";
      line.append(cell);
    }
  }
  byId("full-table").replaceChildren(table);
  byId("table-notes").textContent =
    `${Math.min(rows.length, MOST_ROWS)} of ${rowsOf(panel).length} rows. The best score at each size is bold and coloured; ` +
    "methods not shown to be worse are half bold. Rows that do not fit the budget are grey and in italics.";
};
