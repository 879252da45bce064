"use strict";
// What the page does with the data in #data. Text becomes text nodes alone: nothing in the data is markup or code.
const data = JSON.parse(document.getElementById("data").textContent);
const ROW_HEIGHT = 34, AROUND = 12;
const isStatements = data.kind === "statements";
const state = { preset: "all", text: "", verdict: "", split: data.splits.includes("test") && data.splits.length > 1 ? "test" : "", score: 0, layer: "", sort: null, down: true, chosen: null };
let shown = [], low = 0, high = 0, spread = 1;  // sure: above the median of the cell's own scores

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const isFar = (value) => Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 0.001);  // of what three decimals show
const number = (value) => (value === null || value === undefined ? "-" : isFar(value) ? value.toExponential(2) : value.toFixed(3));
const two = () => data.cells.length > 1;

// ---- what a row is worth --------------------------------------------------------------------------------------
function score(row, cell = 0) {
  const at = row.at[cell];
  if (!at) return null;
  if (state.layer !== "" && at.layers) return at.layers[Number(state.layer)];
  const name = data.cells[0].scores[state.score], own = state.score === 0 ? 0 : data.cells[cell].scores.indexOf(name);
  return own < 0 ? null : at.scores[own];
}
function isRight(row, cell = 0) {
  const at = row.at[cell];
  if (!at) return null;
  if (!isStatements) return at.correct;
  const own = at.scores[0];
  return own === null || row.label === null ? null : (own > data.cells[cell].threshold) === row.label;
}
/** How sure the cell is: its score; of a statement, how far its score is from the threshold, whichever way. */
function sureness(row) {
  const value = score(row);
  if (value === null) return null;
  return isStatements ? Math.abs(value - (state.layer === "" ? data.cells[0].threshold : 0)) : value;
}
const isEmpty = (row) => row.at.some((at) => at && (at.ended === "empty" || (at.answer !== undefined && at.answer.trim() === "")));
const changed = (row) => row.at[0] && row.at[1] && row.at[0].answer !== row.at[1].answer;
const PRESETS = {
  all: ["all", () => true, null],
  "confident-wrong": ["confident and wrong", (row) => isRight(row) === false && sureness(row) !== null && sureness(row) >= high, true],
  "unsure-right": ["unsure and right", (row) => isRight(row) === true && sureness(row) !== null && sureness(row) <= low, false],
  ...(isStatements ? {} : {
    empty: ["empty", isEmpty, null],
    cut: ["cut at the limit", (row) => row.at.some((at) => at && at.ended === "length"), null],
  }),
};
const HINTS = { "confident-wrong": "wrong, with a score above the median; the surest first", "unsure-right": "right, with a score below the median; the least sure first" };
function pairPresets() {
  const right = (row, a, b) => row.at[a] && row.at[b] && isRight(row, a) === true && isRight(row, b) === false;
  return {
    ...(isStatements ? {} : { changed: ["answer changed", changed, null] }),
    verdict: ["verdict changed", (row) => row.at[0] && row.at[1] && isRight(row, 0) !== isRight(row, 1), null],
    lost: ["A right, B wrong", (row) => right(row, 0, 1), null],
    won: ["A wrong, B right", (row) => right(row, 1, 0), null],
  };
}
const presets = () => (two() ? { ...PRESETS, ...pairPresets() } : PRESETS);

// ---- columns of the list --------------------------------------------------------------------------------------
const verdictText = (right) => (right === null ? "-" : right ? "right" : "wrong");
const layerName = () => `layer ${data.cells[0].layers[Number(state.layer)]}`;
/** The first score is each cell's own, whatever its probe; others are of one name. */
const scoreName = (cell = 0) => (state.layer !== "" ? layerName() : data.cells[state.score === 0 ? cell : 0].scores[state.score] || "score");
function columns() {
  const letters = two() ? ["A", "B"] : [""];
  const each = (title, value, more) => letters.map((letter, cell) => ({
    title: [typeof title === "function" ? title(cell) : title, letter].filter(Boolean).join(" "), value: (row) => (row.at[cell] ? value(row, cell) : null), ...more }));
  const first = { title: isStatements ? "statement" : "question", value: (row) => row.question, isFirst: true, wide: 3 };
  if (isStatements) return [first, { title: "label", value: (row) => (row.label === null ? "-" : row.label ? "true" : "false"), wide: 0.8 },
    ...each("called", (row, cell) => verdictText(isRight(row, cell)), { isVerdict: true, wide: 1 }),
    ...each(scoreName, (row, cell) => score(row, cell), { isNumber: true, wide: 1.4 }),
    ...(data.splits.length > 1 ? [{ title: "split", value: (row) => row.split, wide: 0.8 }] : []),
    ...(data.has_sources ? [{ title: "source", value: (row) => row.source, wide: 1 }] : [])];
  return [first, ...each("answer", (row, cell) => row.at[cell].answer, { wide: 2 }),
    { title: "reference", value: (row) => row.references.join(" | "), wide: 2 },
    ...each("verdict", (row, cell) => verdictText(isRight(row, cell)), { isVerdict: true, wide: two() ? 1.5 : 1.25 }),
    ...each(scoreName, (row, cell) => score(row, cell), { isNumber: true, wide: 1.4 }),
    ...(two() ? [] : each("ended", (row, cell) => row.at[cell].ended, { wide: 1 })),
    ...(data.splits.length > 1 ? [{ title: "split", value: (row) => row.split, wide: 0.8 }] : [])];
}

// ---- choosing and ordering ------------------------------------------------------------------------------------
function texts(row) {
  if (row.found === undefined) row.found = [row.id, row.question, ...(row.references || []), row.source || "",
    ...row.at.map((at) => (at && at.answer) || "")].join("\n").toLowerCase();
  return row.found;
}
function choose() {
  const sure = data.rows.map(sureness).filter((value) => value !== null).sort((a, b) => a - b);
  low = high = sure[Math.floor(sure.length / 2)] ?? 0;
  const values = data.rows.map((row) => score(row)).filter((value) => value !== null);
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length)) || 1;
  const all = columns(), [, keeps, isDown] = presets()[state.preset] || PRESETS.all;
  const wanted = state.text.toLowerCase();
  shown = data.rows.filter((row) => keeps(row) && (!wanted || texts(row).includes(wanted))
    && (!state.verdict || verdictText(isRight(row)) === state.verdict) && (!state.split || row.split === state.split));
  let key = null, down = state.down;
  if (state.sort !== null && all[state.sort]) key = all[state.sort].value;
  else if (isDown !== null) { key = sureness; down = isDown; }
  if (key) {
    const held = new Map(shown.map((row) => [row, key(row)]));
    const order = (a, b) => {
      const x = held.get(a), y = held.get(b);
      if (x === null || y === null) return (x === null) - (y === null);  // what has none stands last, either way
      const sign = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
      return down ? -sign : sign;
    };
    shown.sort(order);
  }
  document.getElementById("count").textContent = `${shown.length} of ${data.rows.length} shown`;
}

// ---- the list: only the rows in view are in the document -------------------------------------------------------
const list = document.getElementById("list"), body = el("tbody"), head = el("thead");
list.append(el("table", {}, el("caption", { class: "visually-hidden", text: "Examples; choose one to see all of it" }), head, body));
function drawHead() {
  list.classList.toggle("pair", two());
  const all = columns(), total = all.reduce((sum, one) => sum + one.wide, 0);
  head.replaceChildren(el("tr", {}, ...all.map((column, place) => {
    const arrow = state.sort === place ? (state.down ? " ▼" : " ▲") : "";
    return el("th", { scope: "col", class: column.isNumber ? "number" : null, style: `width: ${(100 * column.wide) / total}%`,
      "aria-sort": state.sort === place ? (state.down ? "descending" : "ascending") : null },
    el("button", { type: "button", text: column.title + arrow, title: `sort by ${column.title}`, on: { click: () => {
      state.down = state.sort === place ? !state.down : Boolean(column.isNumber);
      state.sort = place;
      refresh();
    } } }), el("span", { class: "on-paper", text: column.title }));
  })));
}
function drawRow(row, all) {
  const cells = all.map((column) => {
    const value = column.value(row);
    const text = column.isNumber ? number(value) : value === null || value === "" ? "-" : String(value);
    if (column.isFirst) return el("td", {}, el("button", { type: "button", text: text.slice(0, 300), on: { click: () => open(row, true) } }));
    return el("td", { class: [column.isNumber ? "number" : "", column.isVerdict ? value || "" : ""].join(" "),
      text: text.slice(0, 300), title: text.length > 25 ? text.slice(0, 300) : null });
  });
  const line = el("tr", { class: row === state.chosen ? "chosen" : null, on: { click: () => open(row, false) } }, ...cells);
  return line;
}
const spacer = (rows, width) => el("tr", { class: "spacer", "aria-hidden": "true" }, el("td", { colspan: width, style: `height: ${rows * ROW_HEIGHT}px` }));
function drawRows(whole = false) {
  const all = columns();
  const begin = whole ? 0 : Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - AROUND);
  const end = whole ? shown.length : Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + AROUND);
  const rows = shown.slice(begin, end).map((row) => drawRow(row, all));
  body.replaceChildren(...(begin ? [spacer(begin, all.length)] : []), ...rows,
    ...(end < shown.length ? [spacer(shown.length - end, all.length)] : []));
}
let waiting = false;
list.addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; drawRows(); });
});
window.addEventListener("resize", () => drawRows());
window.addEventListener("beforeprint", () => drawRows(true));
window.addEventListener("afterprint", () => drawRows());
list.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], place = shown.indexOf(state.chosen) + (step || 0);
  if (!step || !shown[place]) return;
  event.preventDefault();
  open(shown[place], false);
  list.scrollTop = Math.max(0, place * ROW_HEIGHT - list.clientHeight / 2);
  drawRows();
  const focus = [...body.rows].find((line) => line.classList.contains("chosen"));
  if (focus) focus.querySelector("button").focus({ preventScroll: true });
});
function refresh() {
  for (const button of document.querySelectorAll("#presets button")) button.setAttribute("aria-pressed", String(button.value === state.preset));
  choose();
  drawHead();
  list.scrollTop = 0;
  drawRows();
}

// ---- one example, whole ----------------------------------------------------------------------------------------
const detail = document.getElementById("detail");
const said = (text) => el("div", { class: "said", text: text === "" ? "(nothing)" : text });
const shade = (share, color) => `background: rgb(${color} / ${(0.55 * Math.max(0, Math.min(1, share))).toFixed(3)})`;
function tokens(at) {
  if (!at.tokens || !at.tokens.length) return null;
  return el("div", { class: "said" }, ...at.tokens.map(([text, logprob]) => el("span", {
    class: logprob !== null && logprob < Math.log(0.1) ? "token unsure" : "token", text: text === "\n" ? "↵\n" : text,
    title: logprob === null ? null : `log p ${logprob.toFixed(3)}, p ${Math.exp(logprob).toFixed(3)}`,
    style: logprob === null ? null : shade(-logprob / 4, "213 94 0") })));
}
function pairsTable(caption, pairs) {
  return el("table", {}, el("caption", { class: "visually-hidden", text: caption }), el("tbody", {}, ...pairs.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row", class: "name", text: name }), typeof value === "number" || value === null ? el("td", { class: "number", text: number(value) }) : el("td", { text: value })))));
}
function samples(at) {
  if (!at.samples || !at.samples.length) return null;
  const inOrder = [...at.samples].sort((a, b) => (a[1] ?? 0) - (b[1] ?? 0));
  const clusters = new Set(at.samples.map((one) => one[1]).filter((one) => one !== null)).size;
  const title = `${at.samples.length} samples${clusters ? ` in ${clusters} ${clusters > 1 ? "clusters" : "cluster"} of meaning` : ""}`;
  return el("div", {}, el("h3", { text: title }), el("ul", { class: "samples" }, ...inOrder.map(([text, cluster, logprob]) => el("li", {},
    cluster === null ? null : el("span", { class: "cluster", title: "cluster", text: String(cluster + 1) }),
    el("span", { text: text === "" ? "(nothing)" : text }), el("span", { class: "faint", text: ` log p ${number(logprob)}` })))));
}
function layers(at, cell) {
  const of = data.cells[cell].layers;
  if (!at.layers || !of.length) return null;
  const values = at.layers.map((value) => value ?? 0), most = Math.max(1e-9, ...values.map(Math.abs)), W = 320, H = 110, step = W / of.length;
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("viewBox", `0 0 ${W} ${H + 16}`);
  picture.setAttribute("class", "layers");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `scores by layer: ${of.map((layer, place) => `${layer} ${number(at.layers[place])}`).join(", ")}`);
  const add = (tag, attributes, text, title) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (title) { const said = document.createElementNS("http://www.w3.org/2000/svg", "title"); said.textContent = title; node.append(said); }
    picture.append(node);
  };
  of.forEach((layer, place) => {
    const height = (Math.abs(values[place]) / most) * (H / 2 - 4), up = values[place] >= 0;
    add("rect", { x: place * step + 1, width: Math.max(1, step - 2), y: up ? H / 2 - height : H / 2, height: Math.max(0.5, height),
      fill: up ? "#0072b2" : "#d55e00", opacity: layer === data.cells[cell].layer ? 1 : 0.55 }, undefined, `layer ${layer}: ${number(at.layers[place])}`);
    if (of.length <= 16 || place % Math.ceil(of.length / 12) === 0)
      add("text", { x: place * step + step / 2, y: H + 12, "text-anchor": "middle" }, String(layer));
  });
  return el("div", {}, el("h3", { text: `Score by layer (true above, false below; chosen: ${data.cells[cell].layer})` }), picture);
}
function conversation(row, cell) {
  const talk = data.talks[row.talk];
  if (!talk) return null;
  const inIt = data.rows.filter((other) => other.talk === row.talk).sort((a, b) => a.span[0] - b.span[0]);
  const parts = [];
  let place = 0;
  for (const other of inIt) {
    const [begin, end] = other.span, value = score(other, cell), from = state.layer === "" ? data.cells[cell].threshold : 0;
    const far = value === null ? 0 : (value - from) / spread;
    if (begin < place) continue;
    parts.push(document.createTextNode(talk.text.slice(place, begin)), el("span", {
      class: other === row ? "statement this" : "statement", text: talk.text.slice(begin, end), on: { click: () => open(other, false) },
      title: `${other.label === null ? "" : other.label ? "true" : "false"}, ${scoreName()} ${number(value)}`,
      style: shade(Math.abs(far) / 2, far > 0 ? "0 114 178" : "213 94 0") }));
    place = end;
  }
  parts.push(document.createTextNode(talk.text.slice(place)));
  return el("div", {}, ...talk.before.map(([role, text]) => el("div", {}, el("span", { class: "faint", text: role }), said(text))),
    el("h3", { text: "Where it stands (blue: scored as true, orange: as false)" }), el("div", { class: "said" }, ...parts));
}
function oneSide(row, cell) {
  const at = row.at[cell], of = data.cells[cell];
  if (!at) return el("div", {}, el("p", { class: "faint", text: "not read by this cell" }));
  const right = isRight(row, cell), parts = [];
  if (two()) parts.push(el("h3", { text: `${cell ? "B" : "A"}: ${of.name}` }));
  parts.push(el("p", {}, el("span", { class: verdictText(right), text: isStatements ? `called ${right === null ? "-" : right === row.label ? "true" : "false"}, ${verdictText(right)}` : verdictText(right) }),
    el("span", { class: "faint", text: at.ended ? `, ended by ${at.ended}${at.n_tokens !== null ? ` after ${at.n_tokens} ${at.n_tokens === 1 ? "token" : "tokens"}` : ""}` : "" })));
  if (!isStatements) {
    parts.push(tokens(at) || said(at.answer));
    if (at.extracted !== undefined) parts.push(el("p", { text: at.extracted === null ? "nothing was found in it to judge" : `judged of it: ${at.extracted}` }));
    for (const [name, text] of at.more || []) parts.push(el("h3", { text: name.replaceAll("_", " ") }), said(String(text)));
  }
  parts.push(el("h3", { text: "Scores" }), el("p", { class: "faint", text: `larger: ${isStatements ? "more likely true" : "surer that the answer is right"}` }), pairsTable("scores", of.scores.map((name, place) => [name.replaceAll("_", " "), at.scores[place]]).concat(at.marks || [])));
  parts.push(layers(at, cell), samples(at));
  return el("div", {}, ...parts);
}
function open(row, byButton) {
  state.chosen = row;
  const title = el("h2", { tabindex: "-1", text: row.question });
  const known = [["example", row.id], ...(row.group && row.group !== row.id ? [["group", row.group]] : []), ...(row.split ? [["split", row.split]] : []),
    ...(row.source ? [["source", row.source]] : [])].map(([name, value]) => `${name} ${value}`).join(" · ");
  detail.replaceChildren(title, el("p", { class: "faint", text: known }),
    ...(isStatements ? [row.label === null ? null : el("p", { text: `labelled ${row.label ? "true" : "false"}` })]
      : [el("h3", { text: "References" }), said(row.references.length ? row.references.join("\n") : "no answer")]).filter(Boolean),
    el("div", { class: "side" }, ...data.cells.map((_, cell) => oneSide(row, cell))),
    ...(isStatements ? [conversation(row, 0)] : []).filter(Boolean),
    ...(row.prompt ? [el("details", {}, el("summary", { text: "The prompt" }), said(data.prefix + row.prompt))] : []));
  drawRows();
  if (byButton) title.focus({ preventScroll: true });
  history.replaceState(null, "", `#id=${encodeURIComponent(row.id)}`);
}

// ---- controls --------------------------------------------------------------------------------------------------
function option(value, text) { return el("option", { value, text }); }
function select(id, label, choices, act, chosen = "") {
  const box = el("select", { id, on: { change: (event) => { act(event.target.value); refresh(); } } }, ...choices.map(([value, text]) => option(value, text)));
  if (chosen) box.value = chosen;
  return el("label", { for: id, text: label }, box);
}
function controls() {
  const buttons = Object.entries(presets()).map(([value, [text]]) => el("button", { type: "button", value, text, "aria-pressed": "false", title: HINTS[value] || null,
    on: { click: () => { state.preset = value; state.sort = null; refresh(); history.replaceState(null, "", `#${value}`); } } }));
  document.getElementById("presets").replaceChildren(...buttons);
  const cell = data.cells[0], scores = cell.scores.map((name, place) => [String(place), name.replaceAll("_", " ")]);
  document.getElementById("controls").replaceChildren(
    el("label", { for: "search", text: "search" }, el("input", { id: "search", type: "search", on: { input: (event) => { state.text = event.target.value; refresh(); } } })),
    select("verdict", "verdict", [["", "any"], ["right", "right"], ["wrong", "wrong"]], (value) => { state.verdict = value; }),
    ...(scores.length > 1 ? [select("score", "score", scores, (value) => { state.score = Number(value); state.sort = null; })] : []),
    ...(cell.layers.length ? [select("layer", "layer", [["", `chosen (${cell.layer})`], ...cell.layers.map((layer, place) => [String(place), String(layer)])],
      (value) => { state.layer = value; state.sort = null; if (state.chosen) open(state.chosen, false); })] : []),
    ...(data.splits.length > 1 ? [select("split", "split", [["", "all"], ...data.splits.map((name) => [name, name])], (value) => { state.split = value; }, state.split)] : []),
    el("label", { for: "beside", text: "beside" }, el("input", { id: "beside", type: "file", accept: ".html",
      title: "examples.html of another cell: which answers changed?", on: { change: (event) => beside(event.target.files[0]) } })),
    el("span", { id: "count", role: "status", class: "faint" }));
}
/** Put another cell's page beside this one: its data is read, nothing of it is run. */
async function beside(file) {
  if (!file) return;
  const say = (text) => { document.getElementById("count").textContent = text; };
  let other;
  try {
    const page = new DOMParser().parseFromString(await file.text(), "text/html");
    other = JSON.parse(page.getElementById("data").textContent);
  } catch { say(`${file.name} is no examples.html of a cell`); return; }
  if (other.kind !== data.kind) { say(`${file.name} holds ${other.kind}, this page ${data.kind}`); return; }
  const found = new Map(other.rows.map((row) => [row.id, row]));
  data.cells = [data.cells[0], other.cells[0]];
  for (const row of data.rows) {
    const at = found.get(row.id);  // an id may be a row's number in another file
    row.at = [row.at[0], at && at.question === row.question ? at.at[0] : null];
    row.found = undefined;
  }
  document.getElementById("other").textContent = `A: ${data.cells[0].name}; B: ${data.cells[1].name}`;
  state.preset = "all";
  state.chosen = null;
  detail.replaceChildren(el("p", { class: "faint", text: "Choose an example." }));
  controls();
  refresh();
}
function fromAddress() {
  let wanted = location.hash.slice(1);
  try { wanted = decodeURIComponent(wanted); } catch { /* an address that somebody typed: as it is */ }
  if (Object.hasOwn(presets(), wanted)) state.preset = wanted;
  refresh();
  if (wanted.startsWith("id=")) { const row = data.rows.find((one) => one.id === wanted.slice(3)); if (row) open(row, false); }
  else if (shown.length && matchMedia("(min-width: 901px)").matches) { const kept = location.hash; open(shown[0], false); history.replaceState(null, "", kept || "#all"); }
}
controls();
fromAddress();
window.addEventListener("hashchange", fromAddress);
