"use strict";
// Tables sort by a click on a heading and filter by their menus; without scripts all of it is readable.
for (const table of document.querySelectorAll("table[data-interactive]")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const box = table.closest(".table").querySelector(".filters");
  const menus = [...box.querySelectorAll("select")];
  const told = box.querySelector("output");

  const value = (row, column) => {
    const cell = row.cells[column];
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? -1 : 1;  // what has no number stands last
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
    told.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  for (const menu of menus) menu.addEventListener("change", filter);
  filter();
  box.hidden = false;
}

// A link to what is folded away opens it; paper has everything open.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => document.querySelectorAll("#figures details").forEach((part) => { part.open = true; }));
reveal();
