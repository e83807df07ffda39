"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, content = "", attributes = {}) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...[content].flat());
    return element;
  };

  // Sorting: a button in every head. Numbers as numbers, words as words, what is missing last in either direction.
  const words = new Intl.Collator("en", { numeric: true });
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.sort;
    const text = cell.textContent.trim();
    if (number !== undefined) return Number(number);
    const leading = /^[+−-]?\d[\d,]*(\.\d+)?(?=$|\s)/.exec(text);
    if (leading) return Number(leading[0].replaceAll(",", "").replace("−", "-"));
    return /^(|–|missing.*|diverged.*|no[tn]? .*)$/.test(text) ? null : text;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const numbers = typeof a === "number" && typeof b === "number";
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (numbers ? a - b : words.compare(a, b));
  };
  const columnOf = (head) => {
    const [first, second] = head.closest("thead").rows;
    if (head.parentElement === first || !second) return head.cellIndex;
    return all("th[rowspan]", first).length + head.cellIndex;
  };
  const sort = (table, head) => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    all("[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const column = columnOf(head);
    for (const body of table.tBodies) {
      const rows = all("tr:not(.title)", body).map((row) => [value(row, column), row]);
      rows.sort(([a], [b]) => compare(a, b, descending ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    }
  };
  for (const table of all("table.sortable")) {
    for (const head of all("th[data-sorts]", table)) {
      const button = make("button", [...head.childNodes], { type: "button" });
      button.addEventListener("click", () => sort(table, head));
      head.append(button);
    }
  }

  // The filter: rows without such a cell go, cells of another status fade, sections without any go.
  const filter = document.querySelector(".filter");
  const select = filter.querySelector("select");
  const apply = () => {
    const wanted = select.value;
    let cells = 0;
    let sections = 0;
    for (const section of all("section.experiment")) {
      let here = 0;
      for (const table of all(":scope > .scroll table, :scope > .fold > .scroll table", section).slice(0, 1)) {
        for (const row of all("tbody tr:not(.title)", table)) {
          const ours = all("td.ours", row);
          const found = ours.filter((cell) => cell.dataset.status === wanted);
          row.hidden = wanted !== "" && !found.length;
          here += wanted ? found.length : 0;
          let dim = false;
          for (const cell of row.querySelectorAll("td.ours, td.published, td.difference")) {
            if (cell.classList.contains("ours")) dim = wanted !== "" && !found.includes(cell);
            cell.classList.toggle("dim", dim);
          }
        }
        for (const body of table.tBodies) body.hidden = all("tr:not(.title)", body).every((row) => row.hidden);
      }
      section.hidden = wanted !== "" && !here;
      const fold = section.querySelector("details.fold");
      if (fold) fold.open = wanted !== "" && here > 0;
      cells += here;
      sections += here > 0;
    }
    filter.querySelector("output").value = wanted && `${cells} cells in ${sections} tables`;
  };
  filter.hidden = false;
  select.addEventListener("change", apply);

  // A link to a place inside what is folded unfolds it.
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("section.experiment[hidden], tr[hidden]")) {
      select.value = "";
      apply();
    }
    for (let around = target.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
    target.scrollIntoView({ block: target.matches("section") ? "start" : "center" });
  };
  addEventListener("hashchange", unfold);
  if (location.hash) unfold();

  // A number, opened: what is behind it and every run of it, in one place.
  const dialog = make("dialog", "", { className: "why" });
  dialog.setAttribute("aria-label", "Where this number comes from");
  document.body.append(dialog);
  const copy = (id) => {
    const made = document.getElementById(id).cloneNode(true);
    made.removeAttribute("id");
    made.open = false;
    return made;
  };
  const describe = (row) => {
    const heads = all("thead th", row.closest("table"));
    const facts = [...row.cells].flatMap((cell, place) => [
      make("dt", heads[place].textContent),
      make("dd", [...cell.cloneNode(true).childNodes]),
    ]);
    const shared = all("a[href^='#shared-']", row).map((link) => copy(link.getAttribute("href").slice(1)));
    const words = `Run ${row.cells[0].textContent}: its record`;
    return make("details", [make("summary", words), make("dl", facts, { className: "keys" }), ...shared]);
  };
  const open = (entry) => {
    const shown = copy(entry.id);
    const runs = new Set(all('a[href^="#run-"]', entry).map((link) => link.getAttribute("href").slice(1)));
    const rows = [...runs].map((run) => document.getElementById(run)?.closest("tr")).filter(Boolean);
    const close = make("button", "Close", { type: "button" });
    close.addEventListener("click", () => dialog.close());
    dialog.replaceChildren(close, shown, ...rows.slice(0, 30).map(describe));
    if (rows.length) dialog.querySelector("details").open = true;
    dialog.showModal();
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#why.']");
    const entry = link && !event.ctrlKey && !event.metaKey && document.getElementById(link.getAttribute("href").slice(1));
    if (entry) {
      event.preventDefault();
      open(entry);
    } else if (event.target === dialog || event.target.closest("dialog a")) {
      dialog.close();
    }
  });

  // Paper has no fold: runs and what they share are opened for print, and folded again.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details[data-print]:not([open])");
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
  if (matchMedia("(max-width: 70rem)").matches) document.querySelector(".toc details").open = false;
})();
