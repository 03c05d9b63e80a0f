"use strict";
const table = document.getElementById("table");
const rows = [...table.tBodies[0].rows];
const cards = [...document.querySelectorAll(".card")];
const cardOf = new Map(rows.map((row, i) => [row, cards[i]]));
const words = document.getElementById("words");
const found = document.getElementById("found");

function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const shown = wanted.every((word) => text.includes(word));
    row.hidden = !shown;
    if (cardOf.get(row)) cardOf.get(row).hidden = !shown;
    count += shown;
  }
  found.textContent = `${count} of ${rows.length} scenes`;
}

function sort(head, column) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const order = new Intl.Collator("en", { numeric: true });
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  rows.sort((a, b) => (down ? -1 : 1) * order.compare(key(a), key(b)));
  table.tBodies[0].append(...rows);
}

[...table.tHead.rows[0].cells].forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  button.addEventListener("click", () => sort(head, column));
  head.replaceChildren(button);
});
document.getElementById("filter").hidden = false;
document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
words.addEventListener("input", filter);
