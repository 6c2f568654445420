"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const details = JSON.parse($("details").textContent);
  const tables = all("table.numbers");
  const make = (tag, text, attributes = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "", ...attributes });

  // ---- which numbers are shown
  const KEYS = { compare: "m", measured: "m", published: "p", difference: "d" };
  let view = "compare";
  const show = (chosen) => {
    view = chosen;
    document.documentElement.className = `view-${chosen}`;
    all(".sorted").forEach((head) => sort(head.closest("table"), head.cellIndex, head.getAttribute("aria-sort")));
  };
  all("input[name=view]").forEach((input) => {
    input.addEventListener("change", () => show(input.value));
    if (input.checked) show(input.value);
  });

  // ---- which rows are shown
  const narrow = () => {
    const data = $("dataset").value, name = $("filter").value.trim().toLowerCase();
    all("[data-dataset]").forEach((part) => { part.hidden = Boolean(data) && part.dataset.dataset !== data; });
    let shown = 0, total = 0;
    tables.forEach((table) => [...table.tBodies[0].rows].forEach((row) => {
      row.hidden = Boolean(name) && !row.cells[0].textContent.toLowerCase().includes(name);
      total += 1;
      shown += !row.hidden && !table.closest("section").hidden;
    }));
    $("status").textContent = data || name ? `${shown} of ${total} rows` : "";
  };
  $("dataset").addEventListener("change", narrow);
  $("filter").addEventListener("input", narrow);

  // ---- sorting: up, down, the paper's order
  const NEXT = { none: "descending", descending: "ascending", ascending: "none" };
  const number = (cell) => {
    const own = cell.classList.contains("n") || cell.closest("table").dataset.printed === undefined;
    const text = cell.dataset[own ? "m" : KEYS[view]];
    return text ? Number(text) : NaN;
  };
  const compare = (a, b, column, sign) => {
    if (!column) return sign * a.cells[0].textContent.localeCompare(b.cells[0].textContent);
    const [x, y] = [number(a.cells[column]), number(b.cells[column])];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // holes last, whichever way
    return sign * (x - y);
  };
  const sort = (table, column, order) => {
    const body = table.tBodies[0];
    table.rowsInOrder ??= [...body.rows];
    const rows = [...table.rowsInOrder];
    if (order !== "none") rows.sort((a, b) => compare(a, b, column, order === "ascending" ? 1 : -1));
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      head.setAttribute("aria-sort", i === column ? order : "none");
      head.classList.toggle("sorted", i === column && order !== "none");
    });
  };
  tables.forEach((table) => table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.parentElement;
    if (head) sort(table, head.cellIndex, NEXT[head.getAttribute("aria-sort")]);
  }));

  // ---- what a cell says
  const facts = (cell) => {
    const table = cell.closest("table"), row = cell.parentElement;
    table.rowsInOrder ??= [...table.tBodies[0].rows];
    const known = details[table.dataset.table], place = table.rowsInOrder.indexOf(row), column = cell.cellIndex - 2;
    const [outcome, reason, test] = known.rows[place].cells[column];
    return { known, row: known.rows[place], column, label: known.columns[column], outcome, reason, test };
  };
  const sentences = ({ outcome, reason, test, known }) => [
    outcome ? `Published number: ${outcome}${reason && reason !== outcome ? `: ${reason}` : ""}.` : "",
    test ? `Test: ${test}.` : "",
    known.simulated ? "Measured on simulated data." : "",
  ].filter(Boolean);

  const tip = $("tip");
  const hide = () => { tip.hidden = true; document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby"); };
  const hint = (cell) => {
    const lines = sentences(facts(cell));
    hide();
    if (!lines.length) return;
    tip.replaceChildren(...lines.map((line) => make("p", line)));
    tip.hidden = false;
    cell.setAttribute("aria-describedby", "tip");
    const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - own.width - 8));
    const below = box.bottom + 6 + own.height < window.innerHeight;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(below ? box.bottom + 6 : box.top - own.height - 6) + window.scrollY}px`;
  };

  const link = (href, text) => make("a", text, { href });
  const runLine = ([key, unit, state, fault, values, best, epochs, seconds, mlflow], column) => {
    const line = make("tr");
    line.append(make("th", unit, { scope: "row" }));
    line.append(make("td", state === "finished" ? values[column] : fault || state, { className: state === "failed" ? "failed" : "" }));
    line.append(make("td", best === null ? "" : `${best} of ${epochs}`), make("td", seconds === null ? "" : `${Math.round(seconds)} s`));
    const links = make("td");
    if (state === "finished") {
      links.append(link(`records/${key}/record.json`, "config, history, predictions"), " · ", link(`records/${key}/runtime.json`, "times"));
    } else if (state === "failed") links.append(link(`records/${key}/failure.json`, "failure"));
    if (mlflow) links.append(" · ", link(mlflow, "MLflow"));
    line.append(links);
    return line;
  };
  const open = (cell) => {
    const found = facts(cell);
    hide();
    $("cell-title").textContent = `${found.row.name}, ${found.label}`;
    const body = $("cell-body");
    body.replaceChildren(...sentences(found).map((line) => make("p", line)));
    if (found.row.about) body.append(make("p", found.row.about, { className: "cite" }));
    if (!found.row.runs.length) body.append(make("p", "Not measured: the published number alone stands here."));
    else {
      const table = make("table", "", { className: "plain" }), head = table.createTHead().insertRow(), rows = table.createTBody();
      ["Run", found.label, "Best epoch", "Time", "Record"].forEach((text) => head.append(make("th", text, { scope: "col" })));
      rows.append(...found.row.runs.map((run) => runLine(run, found.column)));
      const scroll = make("div", "", { className: "scroll" });
      scroll.append(table);
      body.append(scroll);
    }
    $("cell").showModal();
  };

  // ---- mouse, finger, keyboard: one tab stop per table, arrows move inside
  const move = (cell, key) => {
    const row = cell.parentElement, rows = [...row.parentElement.rows].filter((one) => one.offsetParent);
    const up = rows[rows.indexOf(row) + { ArrowUp: -1, ArrowDown: 1 }[key]]?.cells[cell.cellIndex];
    const beside = row.cells[cell.cellIndex + { ArrowLeft: -1, ArrowRight: 1 }[key]];
    const target = key === "Home" ? row.cells[2] : key === "End" ? row.cells[row.cells.length - 1] : up ?? beside;
    if (target?.classList.contains("c")) target.focus();
  };
  tables.forEach((table) => {
    const body = table.tBodies[0];
    const first = body.querySelector(".c");
    if (first) first.tabIndex = 0;
    body.addEventListener("focusin", (event) => {
      const cell = event.target.closest(".c");
      if (!cell) return;
      const before = body.querySelector("[tabindex='0']");
      if (before) before.tabIndex = -1;
      cell.tabIndex = 0;
      hint(cell);
    });
    body.addEventListener("focusout", hide);
    body.addEventListener("mouseover", (event) => { const cell = event.target.closest(".c"); if (cell) hint(cell); });
    body.addEventListener("mouseleave", hide);
    body.addEventListener("click", (event) => { const cell = event.target.closest(".c"); if (cell) open(cell); });
    body.addEventListener("keydown", (event) => {
      const cell = event.target.closest(".c");
      if (!cell) return;
      if (event.key === "Enter" || event.key === " ") open(cell);
      else if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") move(cell, event.key);
      else return;
      event.preventDefault();
    });
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  $("cell").addEventListener("click", (event) => { if (event.target === $("cell")) $("cell").close(); });

  // ---- small screens begin with the contents closed; paper shows all
  if (window.matchMedia("(max-width: 60rem)").matches) document.querySelector("nav details").open = false;
  window.addEventListener("beforeprint", () => all("main details").forEach((part) => { part.open = true; }));
})();
