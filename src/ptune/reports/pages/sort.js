// Tables are sorted by a click on a column's name. Without scripts they stay as they were written.
const LAST = /^(|-|diverged)$/;

function value(row, column) {
  const text = (row.cells[column]?.innerText ?? "").trim();
  if (LAST.test(text)) return null;
  const parts = text.replaceAll(",", "").match(/^([+-]?\d+(?:\.\d+)?)\s*(M\b)?/);
  return parts ? Number(parts[1]) * (parts[2] ? 1e6 : 1) : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sort(table, column, cell) {
  const falling = cell.ariaSort ? cell.ariaSort === "ascending" : column > 0;
  const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return falling ? compare(b, a) : compare(a, b);
  });
  for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
  cell.ariaSort = falling ? "descending" : "ascending";
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table:not(.confusion)")) {
  const head = table.tHead?.rows[0];
  if (!head || table.tBodies[0].rows.length < 2) continue;
  [...head.cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.title = "Sort by this column";
    button.append(...cell.childNodes);
    if (!button.innerText.trim()) return;
    cell.append(button);
    button.addEventListener("click", () => sort(table, column, cell));
  });
}
