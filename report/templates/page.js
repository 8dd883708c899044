"use strict";
// A click on a heading sorts a table; its menus and its search filter it. The page is readable without scripts.
const plain = (text) => text.replace(/\s+/g, " ").trim();  // cells have no-break spaces, menus do not
for (const table of document.querySelectorAll("table[data-interactive]")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const box = table.closest(".table").querySelector(".filters");
  const menus = [...box.querySelectorAll("select")], search = box.querySelector("input");
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
      table.classList.remove("grouped");  // the rules between groups hold for the original order only
    });
  });
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = plain(row.textContent.toLowerCase());
      row.hidden = words.some((word) => !text.includes(word)) || menus.some((menu) => {
        const cell = row.cells[menu.dataset.column];
        const first = cell.querySelector("a") ?? cell.firstChild;
        return menu.value && plain(first ? first.textContent : "") !== plain(menu.value);
      });
    }
    const shown = rows.filter((row) => !row.hidden).length;
    output.textContent = shown === rows.length ? "" : shown ? `${shown} of ${rows.length} rows` : "no row matches";
  };
  for (const menu of menus) menu.addEventListener("change", filter);
  search.addEventListener("input", filter);
  filter();
  box.hidden = false;
}

// The texts to copy are in the page. A page that is opened as a file may not have the clipboard's interface.
const copy = async (area) => {
  try {
    await navigator.clipboard.writeText(area.value);
    return true;
  } catch {
    area.hidden = false;
    area.select();
    const copied = document.execCommand("copy");
    area.hidden = copied;  // otherwise the text stays, selected, to be copied by hand
    return copied;
  }
};
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.textContent = await copy(button.nextElementSibling) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

// A table that is wider than its place says that it scrolls.
const cue = new ResizeObserver((entries) => {
  for (const { target } of entries) target.classList.toggle("wide-table", target.scrollWidth > target.clientWidth + 1);
});
for (const part of document.querySelectorAll(".scroll")) cue.observe(part);

// A link opens the folded sections around its target, and printing opens all figures.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => document.querySelectorAll("#figures details").forEach((part) => { part.open = true; }));
reveal();
