"use strict";
// Tables sort by a click on a heading, or by Enter on it; rows of the large one are chosen by words and by lists.

function value(row, column, kind) {
  const text = row.cells[column].textContent.trim();
  if (kind !== "number") return text;
  return text === "" ? -Infinity : Number(text.replaceAll(",", ""));
}

function sort(table, heading) {
  const headings = [...heading.parentElement.cells];
  const column = headings.indexOf(heading);
  const kind = heading.dataset.sort;
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [value(row, column, kind), row]);
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  keyed.sort(([a], [b]) => (down ? order(b, a) : order(a, b)));
  body.append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sort(table, heading));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort(table, heading);
      }
    });
  }
}

const search = document.getElementById("search");
const lists = [...document.querySelectorAll("select[data-column]")];

function choose() {
  const words = search.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const chosen = lists.filter((list) => list.value !== "").map((list) => [Number(list.dataset.column), list.value]);
  const rows = [...document.getElementById("all").tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    const text = words.length > 0 ? [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase() : "";
    const fits =
      words.every((word) => text.includes(word)) &&
      chosen.every(([column, wanted]) => row.cells[column].textContent === wanted);
    row.hidden = !fits;
    shown += fits ? 1 : 0;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} rows`;
}

search.addEventListener("input", choose);
for (const list of lists) list.addEventListener("change", choose);
