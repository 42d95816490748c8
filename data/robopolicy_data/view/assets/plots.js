"use strict";
/* The curves: states, actions, the monitor's statistic; one plot a stream and unit. */

let plots = [];
const UNITS = { 1: "", quat: "", rad_wrapped: "rad", open: "1 is open" };
const hidden = new Set(); // names of curves that were switched off, kept from episode to episode

function showPlots() {
  plots = view.episode.plots.map((plot) => {
    const canvas = make("canvas"), high = make("span", "high"), low = make("span", "low");
    const area = make("div", "area", canvas, high, low, make("div", "cursor"));
    const curves = plot.names.map((name, i) => {
      const value = make("b", ""), swatch = make("i");
      swatch.style.background = `var(--c${i % 8})`;
      const button = make("button", "", swatch, ...(name ? [name] : []), value);
      const key = `${plot.title}/${name}`;
      button.setAttribute("aria-pressed", String(!hidden.has(key)));
      button.onclick = () => {
        if (!hidden.delete(key)) hidden.add(key);
        button.setAttribute("aria-pressed", String(!hidden.has(key)));
        drawPlot(entry);
      };
      return { key, value, points: plot.curves[i] };
    });
    const legend = make("div", "curves", ...curves.map((curve) => curve.value.parentNode));
    const unit = UNITS[plot.unit] ?? plot.unit ? [make("small", "", UNITS[plot.unit] ?? plot.unit)] : [];
    const box = make("div", "plot", make("div", "name", plot.title, ...unit), area, legend);
    const entry = { ...plot, canvas, area, high, low, curves, box };
    scrubs(area);
    return entry;
  });
  byId("plots").replaceChildren(...plots.map((plot) => plot.box));
  drawPlots();
}

function drawPlots() {
  for (const plot of plots) drawPlot(plot);
}

function drawPlot(plot) {
  const ratio = window.devicePixelRatio || 1;
  const width = plot.area.clientWidth, height = plot.area.clientHeight;
  if (!width) return;
  plot.canvas.width = width * ratio;
  plot.canvas.height = height * ratio;
  const context = plot.canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  context.scale(ratio, ratio);
  const shown = plot.curves.filter((curve) => !hidden.has(curve.key));
  const values = shown.flatMap((curve) => curve.points.filter((v) => v !== null));
  let low = values.length ? values.reduce((a, b) => Math.min(a, b)) : 0;
  let high = values.length ? values.reduce((a, b) => Math.max(a, b)) : 1;
  plot.high.textContent = values.length ? number(high) : "";
  plot.low.textContent = values.length && high > low ? number(low) : "";
  if (high === low) { low -= 0.5; high += 0.5; }
  const pad = 7, end = view.episode.end || 1;
  const x = (t) => (t / end) * width;
  const y = (v) => height - pad - ((v - low) / (high - low)) * (height - 2 * pad);
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  for (const v of low < 0 && high > 0 ? [low, 0, high] : [low, high]) {
    context.beginPath();
    context.moveTo(0, Math.round(y(v)) + 0.5);
    context.lineTo(width, Math.round(y(v)) + 0.5);
    context.stroke();
  }
  context.lineWidth = 1.6;
  context.lineJoin = "round";
  plot.curves.forEach((curve, i) => {
    if (hidden.has(curve.key)) return;
    context.strokeStyle = style.getPropertyValue(`--c${i % 8}`);
    context.setLineDash(plot.title === "monitor" && i === 1 ? [5, 4] : []);
    context.beginPath();
    let pen = false, last = 0;
    curve.points.forEach((v, k) => {
      if (v === null) { if (!plot.steps) pen = false; return; }
      const px = x(view.episode.time[k]), py = y(v);
      if (!pen) context.moveTo(px, py); else {
        if (plot.steps) context.lineTo(px, last);
        context.lineTo(px, py);
      }
      pen = true;
      last = py;
    });
    context.stroke();
  });
  context.setLineDash([]);
}

/* The numbers at the cursor. */
function readPlots() {
  const k = indexAt(view.episode.time, view.time);
  for (const plot of plots) {
    for (const curve of plot.curves) {
      let i = k;
      if (plot.steps) while (i > 0 && curve.points[i] === null) i -= 1;
      const text = number(curve.points[i]);
      if (curve.value.textContent !== text) curve.value.textContent = text;
    }
  }
}
