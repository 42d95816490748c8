"use strict";
/* What is being looked at, and the helpers that every part of the page uses. */

const view = { about: null, rows: [], row: null, episode: null, time: 0, playing: false, speed: 1, picks: new Map() };
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, 8];
const byId = (id) => document.getElementById(id);
const waiting = new Map(); // number of an episode: what to do when its script has come

const robopolicy = {
  dataset(about) {
    view.about = about;
    if (about) startList();
  },
  episode(body) {
    const then = waiting.get(body.number);
    waiting.delete(body.number);
    if (then) then(body);
  },
};

/* A page from the disk may not read files, but it may run them. */
function loadEpisode(number, then, otherwise) {
  const first = !waiting.has(number);
  waiting.set(number, then);
  if (!first) return;
  const script = document.createElement("script");
  script.src = `episodes/${String(number).padStart(6, "0")}.js`;
  script.onload = () => script.remove();
  script.onerror = () => { waiting.delete(number); script.remove(); otherwise(script.src); };
  document.head.append(script);
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function badge(text, kind, title) {
  const element = make("span", `badge ${kind || ""}`, text);
  if (title) element.title = title;
  return element;
}

/* Index of the last of ascending times that is not after t; 0 if all are. */
function indexAt(times, t) {
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= t + 1e-6) low = middle; else high = middle - 1;
  }
  return Math.max(low, 0);
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size < 1e-6) return "0";
  if (size >= 10000 || size < 0.001) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

const percent = (share) => `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)} %`;

/* 3 5-8 of [3, 5, 6, 7, 8]. */
function ranges(numbers) {
  const runs = [];
  for (const n of [...numbers].sort((a, b) => a - b)) {
    const last = runs[runs.length - 1];
    if (last && n === last[1] + 1) last[1] = n; else runs.push([n, n]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(" ");
}

function stored(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(`robopolicy.${key}`);
    localStorage.setItem(`robopolicy.${key}`, value);
  } catch { /* a browser may keep nothing */ }
  return null;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  if (view.episode) drawPlots();
}

setTheme(stored("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
byId("theme").onclick = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  stored("theme", theme);
  setTheme(theme);
};
