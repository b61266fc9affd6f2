// A click on a heading (or enter on its button) sorts a table by that column: the better end first, then the other.
// Rows of a tbody of class "fixed" stay; a row without a number comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const [...headings] = table.querySelectorAll("thead th:not([colspan])");
  const body = table.querySelector("tbody:not(.fixed)");
  const columns = columnsOf(table);
  for (const heading of headings) {
    if (!heading.textContent.trim()) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    if (heading.hasAttribute("aria-label")) button.setAttribute("aria-label", heading.getAttribute("aria-label"));
    heading.append(button);
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const first = heading.dataset.better === "higher" ? "descending" : "ascending";
      const order = before ? (before === "ascending" ? "descending" : "ascending") : first;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      table.classList.add("sorted");
      const column = columns.get(heading), sign = order === "ascending" ? 1 : -1;
      const keyed = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
      const numeric = keyed.some(([key]) => typeof key === "number");
      keyed.sort(([a], [b]) => {
        if (!numeric) return sign * a.localeCompare(b, undefined, { numeric: true });
        const missing = (typeof a !== "number") - (typeof b !== "number");
        return missing || (typeof a === "number" ? sign * (a - b) : 0);
      });
      body.append(...keyed.map(([, row]) => row));
    });
  }
}

function keyOf(cell) {
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

// The column of each heading, with those above and beside it that span several taken into account.
function columnsOf(table) {
  const places = new Map(), taken = [];
  [...table.tHead.rows].forEach((row, y) => {
    let x = 0;
    for (const cell of row.cells) {
      while (taken[y]?.[x]) x += 1;
      places.set(cell, x);
      for (let down = 0; down < cell.rowSpan; down++)
        for (let right = 0; right < cell.colSpan; right++) (taken[y + down] ??= [])[x + right] = true;
      x += cell.colSpan;
    }
  });
  return places;
}
