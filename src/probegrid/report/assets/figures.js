"use strict";
// Figures that answer to the pointer, by plotly: each is drawn when it comes into view, from the values in #charts.
const charts = JSON.parse(document.getElementById("charts").textContent);
const DASHES = ["solid", "dash", "dot", "dashdot"];
const MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"];
const darkness = matchMedia("(prefers-color-scheme: dark)");
const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
const lines = () => getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
/** Plotly reads a little HTML in names: data is to stay text. */
const text = (value) => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
function color(place) {
  const one = charts.colors[place % charts.colors.length];
  return darkness.matches && one === "#000000" ? "#ffffff" : one;
}
/** A band about a line: its upper end, and the lower one filled up to it. */
function band(curve) {
  const rgb = [1, 3, 5].map((at) => parseInt(color(curve.place).slice(at, at + 2), 16)).join(",");
  const end = { type: "scatter", x: curve.x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: text(curve.name) };
  return [{ ...end, y: curve.high }, { ...end, y: curve.low, fill: "tonexty", fillcolor: `rgba(${rgb},0.18)` }];
}
function traces(chart, panel) {
  const isNamed = panel.names.length > 0;
  const curves = panel.curves.flatMap((curve) => {
    const value = isNamed ? "x" : "y", ends = curve.low && !curve.is_band ? { type: "data", symmetric: false, thickness: 1.2, width: 4,
      array: curve.high.map((end, place) => (end === null ? 0 : Math.max(0, end - curve[value][place]))),
      arrayminus: curve.low.map((end, place) => (end === null ? 0 : Math.max(0, curve[value][place] - end))) } : undefined;
    const drawn = { type: "scatter", name: text(curve.name), legendgroup: text(curve.name), x: curve.x, y: isNamed ? curve.y.map((place) => text(panel.names[place])) : curve.y,
      mode: curve.mark === "line" ? "lines" : curve.mark === "points" ? "markers" : "lines+markers",
      line: { color: color(curve.place), dash: DASHES[curve.place % DASHES.length], width: 2 },
      marker: { color: color(curve.place), symbol: MARKERS[curve.place % MARKERS.length], size: curve.sizes ? curve.sizes.map((area) => 3 + Math.sqrt(area)) : 8, opacity: curve.sizes ? 0.7 : 1 },
      ...(ends ? { [isNamed ? "error_x" : "error_y"]: ends } : {}),
      text: curve.says.length ? curve.says.map(text) : undefined,
      hovertemplate: `${curve.says.length ? "%{text}<br>" : ""}%{x:.4~g}, %{y}<extra>%{fullData.name}</extra>` };
    return curve.is_band ? [...band(curve), drawn] : [drawn];
  });
  const bars = panel.bars.map((bar) => ({ type: "bar", orientation: "h", name: text(bar.name), x: bar.values, y: panel.names.map((_, place) => place),
    marker: { color: bar.color, pattern: { shape: panel.names.map((_, place) => (panel.hatched.includes(place) ? "/" : "")) } },
    text: panel.names.map(text), textposition: "none", hovertemplate: "%{text}<br>%{x:.4~g}<extra>%{fullData.name}</extra>" }));
  return [...curves, ...bars];
}
function layout(chart, panel) {
  const isNamed = panel.names.length > 0, entries = panel.curves.length || panel.bars.length, hasLegend = entries > 1 || (panel.curves.length > 0 && panel.curves[0].name);
  const axis = { gridcolor: lines(), zeroline: false, linecolor: lines(), automargin: true };
  const shapes = [];
  const line = (of) => shapes.push({ type: "line", line: { color: "#888", width: 1, dash: "dash" }, layer: "below", ...of });
  if (chart.square) line({ x0: 0, y0: 0, x1: 1, y1: 1 });
  if (chart.level !== null) line({ xref: "paper", x0: 0, x1: 1, y0: chart.level, y1: chart.level });
  if (chart.upright !== null) line({ yref: "paper", y0: 0, y1: 1, x0: chart.upright, x1: chart.upright });
  const plot = isNamed ? 60 + 30 * panel.names.length : 330;
  return { title: panel.title ? { text: text(panel.title), font: { size: 14 }, y: 1, yref: "container", yanchor: "top", pad: { t: 8 } } : undefined,
    height: plot + 80 + (hasLegend ? 22 * entries : 0), margin: { l: 60, r: 20, t: panel.title ? 36 : 14, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink(), family: "system-ui, sans-serif", size: 12 },
    xaxis: { ...axis, title: { text: text(chart.x_label) }, type: chart.is_log ? "log" : "linear", ...(chart.square ? { range: [-0.02, 1.02] } : {}), ...(chart.whole_x ? { tickformat: "d" } : {}) },
    yaxis: { ...axis, title: { text: text(chart.y_label) }, ...(chart.square ? { range: [-0.02, 1.02] } : {}),
      ...(isNamed ? (panel.bars.length ? { autorange: "reversed", tickvals: panel.names.map((_, place) => place), ticktext: panel.names.map(text) }
        : { type: "category", categoryorder: "array", categoryarray: panel.names.map(text).reverse(), range: [-0.5, panel.names.length - 0.5] }) : {}) },
    barmode: "stack", shapes, hovermode: "closest", showlegend: Boolean(hasLegend), legend: { orientation: "v", x: 0, xanchor: "left", y: -(60 / plot), yanchor: "top", font: { size: 11 } },
    hoverlabel: { align: "left" } };
}
function draw(figure) {
  const chart = charts.figures[figure.dataset.chart], live = figure.querySelector(".live");
  live.replaceChildren();
  figure.classList.add("is-live");
  const boxes = chart.panels.map((panel) => {
    const box = document.createElement("div"), entries = panel.curves.map((curve) => curve.name).join("; ");
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", [chart.name.replaceAll("_", " "), panel.title, entries].filter(Boolean).join(": "));
    live.append(box);
    return box;
  });  // all before the first is drawn, for their number decides how wide each is
  boxes.forEach((box, place) => Plotly.newPlot(box, traces(chart, chart.panels[place]), layout(chart, chart.panels[place]),
    { responsive: true, displaylogo: false, displayModeBar: false }));
  figure.dataset.drawn = "yes";
}
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "300px" });
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const save = document.createElement("a");
  save.textContent = "as SVG";
  save.href = figure.querySelector("img").src;
  save.download = `${figure.dataset.chart}.svg`;
  save.className = "save";
  figure.append(save);
  seen.observe(figure);
}
/** What would be small on one page is printed in rows of panels, each the same drawing seen through a window, and none is cut. */
window.addEventListener("beforeprint", () => {
  for (const figure of document.querySelectorAll("figure[data-rows]")) {
    const image = figure.querySelector("img"), shares = figure.dataset.rows.split(" ").map(Number);
    if (shares.length < 2 || image.naturalHeight < 0.9 * image.naturalWidth || figure.querySelector(".row")) continue;
    let above = 0;
    figure.append(...shares.map((share) => {
      const row = document.createElement("div"), part = image.cloneNode();
      row.className = "row";
      row.style.aspectRatio = `${image.naturalWidth} / ${share * image.naturalHeight}`;
      part.style.top = `${(-100 * above) / share}%`;
      above += share;
      row.append(part);
      return row;
    }));
    figure.classList.add("in-rows");
  }
});
window.addEventListener("afterprint", () => {
  for (const row of document.querySelectorAll("figure .row")) row.remove();
  for (const figure of document.querySelectorAll("figure.in-rows")) figure.classList.remove("in-rows");
});
darkness.addEventListener("change", () => { for (const figure of document.querySelectorAll("figure[data-drawn]")) draw(figure); });
