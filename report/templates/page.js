"use strict";
// A click on a heading sorts a table, and its menus filter it. The page is readable without scripts.
for (const table of document.querySelectorAll("table[data-interactive]")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const box = table.closest(".table").querySelector(".filters");
  const menus = [...box.querySelectorAll("select")];
  const output = box.querySelector("output");

  const value = (row, column) => {
    const cell = row.cells[column];
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? -1 : 1;  // entries without a number come last
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const known = rows.filter((row) => typeof value(row, column) === "number");
      const rest = rows.filter((row) => typeof value(row, column) !== "number");
      for (const part of [known, rest]) {
        part.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
      }
      body.append(...known, ...rest);
    });
  });
  const filter = () => {
    for (const row of rows) {
      row.hidden = menus.some((menu) => {
        const cell = row.cells[menu.dataset.column];
        const first = cell.querySelector("a") ?? cell.firstChild;
        return menu.value && (first ? first.textContent.trim() : "") !== menu.value;
      });
    }
    output.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  for (const menu of menus) menu.addEventListener("change", filter);
  filter();
  box.hidden = false;
}

// A link opens the folded sections around its target, and printing opens all figures.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => document.querySelectorAll("#figures details").forEach((part) => { part.open = true; }));
reveal();
