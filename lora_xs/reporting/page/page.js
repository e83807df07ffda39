"use strict";
(() => {
  const number = (text) => (text.trim() === "" ? NaN : Number(text.replace(/[,+]/g, "").replace("−", "-").split(" ")[0]));
  const words = new Intl.Collator("en", { numeric: true });
  const valueOf = (row, at) => {
    const cell = row.cells[at];
    return cell === undefined ? "" : (cell.dataset.value ?? cell.textContent).trim();
  };
  const compare = (one, other) => {
    const [a, b] = [number(one), number(other)];
    if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    return words.compare(one, other);
  };
  const missing = (text) => text === "" || text === "–";

  // rows move inside their own block; what is missing stays last whichever way
  const sort = (table, at, down) => {
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("title"));
      const keyed = rows.map((row, place) => ({ row, place, value: valueOf(row, at) }));
      keyed.sort((x, y) =>
        missing(x.value) - missing(y.value) || (down ? -1 : 1) * compare(x.value, y.value) || x.place - y.place);
      body.append(...keyed.map((one) => one.row));
    }
  };

  // which column of the body a header's button stands over: two header rows, the first with spans
  const columns = (table) => {
    const taken = [];
    const found = new Map();
    [...table.tHead.rows].forEach((row, line) => {
      let at = 0;
      for (const cell of row.cells) {
        while ((taken[line] ??= [])[at]) at += 1;
        found.set(cell, at);
        for (let down = 0; down < cell.rowSpan; down += 1)
          for (let right = 0; right < cell.colSpan; right += 1) (taken[line + down] ??= [])[at + right] = true;
        at += cell.colSpan;
      }
    });
    return found;
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const places = columns(table);
    const heads = [...places.keys()].filter((cell) => cell.querySelector("button"));
    for (const cell of heads) {
      cell.querySelector("button").addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, places.get(cell), down);
      });
    }
  }

  const form = document.querySelector("form.filter");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("status").addEventListener("change", (event) => {
    const wanted = event.target.value;
    for (const row of document.querySelectorAll(".experiment .whole > .scroll tbody tr:not(.title)"))
      row.hidden = wanted !== "" && ![...row.cells].some((cell) => cell.dataset.status === wanted);
  });
  const openAll = () => document.querySelectorAll("details.whole").forEach((one) => { one.open = true; });
  document.getElementById("all").addEventListener("click", openAll);
  window.addEventListener("beforeprint", openAll);

  // an address inside something folded opens it
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let one = target.parentElement; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    target.querySelector(":scope > details.whole")?.setAttribute("open", "");
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);
  reveal();
})();
