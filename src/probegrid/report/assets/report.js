"use strict";
// Tables that sort, filter and hide columns; examples behind a row. Data becomes text nodes alone.
const data = JSON.parse(document.getElementById("data").textContent);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// ---- tables ----------------------------------------------------------------------------------------------------
const NUMBER = /^[+-]?(\d[\d,]*\.?\d*|\.\d+)/;
function worth(text) {
  const found = NUMBER.exec(text);
  return found ? Number(found[0].replaceAll(",", "")) : null;
}
const MOST_PINNED = 6;  // as many as report.css knows
function makeTable(section) {
  const table = section.querySelector("table"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const further = data.further[section.id] || [], titles = heads.map((head) => head.textContent.trim());
  const n_names = heads.filter((head) => head.classList.contains("name")).length;
  let rows = [...body.rows].map((line, place) => ({ line, place, texts: [...line.cells].map((cell) => cell.firstChild ? cell.firstChild.textContent : "") }));
  rows = rows.concat(further.map((texts, place) => ({ line: null, place: rows.length + place, texts })));
  const state = { sort: null, down: false, text: "", chosen: {}, hidden: new Set(), all: further.length === 0 };
  const FIRST = rows.length - further.length;
  function build(row) {
    if (row.line) return row.line;
    row.line = el("tr", {}, ...row.texts.map((text, place) => el("td", { class: place < n_names ? (text.length > 60 ? "name long" : "name") : text === "-" ? "none" : null, "data-column": titles[place], text, hidden: state.hidden.has(place) })));
    behind(section.id, row);
    return row.line;
  }
  function show() {
    const wanted = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = rows.filter((row) => Object.entries(state.chosen).every(([place, value]) => !value || row.texts[place] === value)
      && wanted.every((word) => row.texts.some((text) => text.toLowerCase().includes(word))));
    if (state.sort !== null) {
      const values = new Map(kept.map((row) => [row, state.sort < n_names && !kept.every((one) => worth(one.texts[state.sort]) !== null) ? row.texts[state.sort] : worth(row.texts[state.sort])]));
      kept = [...kept].sort((a, b) => {
        const x = values.get(a), y = values.get(b);
        if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;
        const sign = typeof x === "number" ? x - y : x.localeCompare(y);
        return (state.down ? -sign : sign) || a.place - b.place;
      });
    }
    const most = state.all ? kept.length : FIRST;
    body.replaceChildren(...kept.slice(0, most).map(build));
    count.textContent = kept.length > most ? `${most} of ${kept.length} rows` : kept.length === rows.length ? `${rows.length} rows` : `${kept.length} of ${rows.length} rows`;
    rest.hidden = kept.length <= most;
    heads.forEach((head, place) => {
      if (state.sort === place) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
      head.firstChild.textContent = titles[place] + (state.sort === place ? (state.down ? " ▼" : " ▲") : "");
    });
    pin();
  }
  /** The names that a row begins with stay in view beside the numbers, as many as leave these room. */
  function pin() {
    const room = 0.6 * table.parentElement.clientWidth;
    let left = 0, pinned = 0;
    while (pinned < Math.min(n_names, MOST_PINNED) && left + heads[pinned].offsetWidth <= room) {
      pinned += 1;
      table.style.setProperty(`--left-${pinned}`, `${left}px`);
      left += heads[pinned - 1].offsetWidth;
    }
    table.dataset.pinned = pinned;
  }
  const count = el("span", { class: "faint", role: "status" });
  const rest = el("button", { type: "button", text: "show all rows", on: { click: () => { state.all = true; show(); } } });
  const search = el("input", { type: "search", id: `find-${section.id}`, on: { input: (event) => { state.text = event.target.value; show(); } } });
  const facets = titles.slice(0, n_names).map((title, place) => {
    const values = [...new Set(rows.map((row) => row.texts[place]))];
    if (values.length < 2 || values.length > 15 || values.some((value) => value.length > 40)) return null;
    const box = el("select", { id: `${section.id}-${place}`, on: { change: (event) => { state.chosen[place] = event.target.value; show(); } } },
      el("option", { value: "", text: "all" }), ...values.map((value) => el("option", { value, text: value })));
    return el("label", { for: `${section.id}-${place}`, text: title }, box);
  });
  const boxes = titles.map((title, place) => el("label", {}, el("input", { type: "checkbox", checked: true, on: { change: (event) => {
    if (event.target.checked) state.hidden.delete(place); else state.hidden.add(place);
    heads[place].hidden = state.hidden.has(place);
    for (const row of rows) if (row.line) row.line.cells[place].hidden = state.hidden.has(place);
    pin();
  } } }), title));
  const columns = el("details", { class: "columns" }, el("summary", { text: "columns" }), el("fieldset", {}, el("legend", { class: "visually-hidden", text: "Columns that are shown" }), ...boxes));
  section.querySelector(".wide").before(el("div", { class: "bar" }, el("label", { for: search.id, text: "filter" }, search), ...facets.filter(Boolean), columns, count, rest));
  heads.forEach((head, place) => {
    const button = el("button", { type: "button", text: titles[place], title: `sort by ${titles[place]}`, on: { click: () => {
      state.down = state.sort === place ? !state.down : place >= n_names;
      state.sort = place;
      show();
    } } });
    head.replaceChildren(button, el("span", { class: "on-paper", text: titles[place] }));  // a page's later heads leave out what can be pressed
  });
  for (const row of rows) if (row.line) behind(section.id, row);
  show();
  window.addEventListener("resize", pin);
  window.addEventListener("beforeprint", () => { state.all = true; show(); });
}

// ---- examples behind a row -------------------------------------------------------------------------------------
const dialog = document.getElementById("behind");
function behind(table, row) {
  const keys = (data.cells[table] || [])[row.place];
  if (!keys || !keys.length) return;
  const name = row.texts.slice(0, 6).join(" "), cell = row.line.cells[0];
  if (keys.length === 1 && data.examples[keys[0]])
    cell.append(el("button", { type: "button", class: "more", text: "examples", "aria-label": `examples of ${name}`, on: { click: () => showExamples(data.examples[keys[0]]) } }));
  if (keys.length === 2 && data.pairs[keys.join(" ")])
    cell.append(el("button", { type: "button", class: "more", text: "side by side", "aria-label": `${name} side by side`, on: { click: () => showPair(data.pairs[keys.join(" ")]) } }));
}
function filled(caption, columns, rows) {
  return el("table", {}, el("caption", { class: "visually-hidden", text: caption }), el("thead", {}, el("tr", {}, ...columns.map((column) => el("th", { scope: "col", text: column })))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((value) => typeof value === "number" ? el("td", { class: "number", text: value.toFixed(3) })
      : value === true || value === false ? el("td", { class: value ? "right" : "wrong", text: value ? "right" : "wrong" })
      : el("td", { text: value === null ? "-" : value === "" ? "(nothing)" : value }))))));
}
function show(title, ...parts) {
  dialog.replaceChildren(el("button", { type: "button", class: "close", text: "close", on: { click: () => dialog.close() } }), el("h2", { id: "behind-title", text: title }), ...parts.filter(Boolean));
  dialog.showModal();
  dialog.scrollTop = 0;
}
function whole(href, hash, text) {
  return href ? el("p", {}, el("a", { href: hash ? `${href}#${hash}` : href, text })) : null;
}
function showExamples(of) {
  const kinds = [["confident-wrong", "Confident and wrong"], ["unsure-right", "Unsure and right"], ["empty", "Empty"]];
  show(of.name, whole(of.href, "", `all ${of.n} examples`), ...kinds.flatMap(([kind, title]) => of[kind] && of[kind].length
    ? [el("h3", { text: title }), whole(of.href, kind, "all of them"), filled(title, of.columns, of[kind])] : [])
    .filter(Boolean));
}
function showPair(of) {
  show(of.name, el("p", { text: of.says }), whole(of.href, "changed", "all of them side by side"), of.rows.length ? filled("answers that changed", of.columns, of.rows) : null);
}

for (const section of document.querySelectorAll("section.of-table")) makeTable(section);
