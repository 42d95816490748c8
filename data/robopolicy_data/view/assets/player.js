"use strict";
/* One cursor in time for cameras, bands and curves. */

const ICONS = {
  play: '<svg viewBox="0 0 20 20"><path d="M5 3v14l12-7z"/></svg>',
  pause: '<svg viewBox="0 0 20 20"><path d="M4 3h4v14H4zM12 3h4v14h-4z"/></svg>',
};
const MONITOR_COLOURS = {
  nominal: "var(--good)",
  alarm: "var(--bad)", overrun: "var(--bad)", fault: "var(--bad)",
  uncalibrated: "var(--hold)", warn: "var(--hold)", stale: "var(--hold)",
};
let clock = 0; // of the animation frame before, ms

function openRow(row, time) {
  view.row = row;
  document.body.classList.add("watching");
  for (const link of document.querySelectorAll(".row > a")) {
    const here = Number(link.parentNode.dataset.number) === row.number;
    link.setAttribute("aria-current", String(here));
    if (here) link.scrollIntoView({ block: "nearest" });
  }
  showPicks();
  history.replaceState(null, "", `#${row.number}`);
  if (row.damaged) {
    showTrouble(row, row.damaged);
    return;
  }
  loadEpisode(row.number, (body) => {
    if (view.row !== row) return;
    view.episode = body;
    byId("main").hidden = false;
    showHead(row);
    showFilms();
    showTimeline();
    showPlots();
    showAbout(row);
    seek(time);
    if (document.body.scrollTo) window.scrollTo(0, 0);
  }, (address) => {
    if (view.row !== row) return;
    showTrouble(row, `${address} did not come.`);
    if (location.protocol !== "file:") {
      fetch(address).then((answer) => answer.text()).then((why) => { if (view.row === row) showTrouble(row, why); }, () => {});
    }
  });
}

/* Show why an episode cannot be looked at. */
function showTrouble(row, why) {
  play(false);
  view.episode = null;
  [films, plots] = [[], []];
  byId("main").hidden = false;
  showHead(row);
  for (const id of ["films", "timeline", "plots", "about", "clock", "stepno"]) byId(id).replaceChildren();
  byId("notes").hidden = false;
  byId("notes").textContent = [byId("notes").textContent, `This episode cannot be read: ${why}`].filter(Boolean).join("\n");
}

/* The step in force at a time; where not every step is in the curves, what lies between two of them is interpolated. */
function stepAt(time) {
  const { time: times, step } = view.episode, i = indexAt(times, time);
  if (i + 1 >= times.length) return step[i];
  const share = (time - times[i]) / (times[i + 1] - times[i] || 1);
  return Math.max(step[i], Math.floor(step[i] + share * (step[i + 1] - step[i]) + 1e-3));
}

/* When a step was. */
function timeOf(k) {
  const { time: times, step } = view.episode, i = indexAt(step, k);
  if (i + 1 >= step.length) return times[i];
  return times[i] + ((k - step[i]) / (step[i + 1] - step[i])) * (times[i + 1] - times[i]);
}

function showHead(row) {
  const kind = OUTCOMES[outcome(row)];
  byId("title").replaceChildren(`Episode ${row.number}`, badge(outcome(row), kind), ...rowBadges(row));
  const score = typeof row.score === "number" ? `score ${number(row.score)}` : "";
  const seed = row.seed === null ? "" : `seed ${row.seed}`;
  const when = row.recorded ? row.recorded.slice(0, 16).replace("T", " ") : "";
  const parts = [row.task, row.operator, row.robot, row.embodiment === "human" ? "human embodiment" : "", duration(row.seconds), seed, score, when];
  byId("line").replaceChildren(...parts.filter(Boolean).map((part) => make("span", "", part)));
  const words = [row.notes, ...row.outlier.map((reason) => `Outlier: ${reason}`)].filter(Boolean).join("\n");
  byId("notes").hidden = !words;
  byId("notes").textContent = words;
}

function showTimeline() {
  const { bands, marks, end } = view.episode;
  const at = (t) => `${(100 * t) / (end || 1)}%`;
  const tracks = make("div", "tracks"), labels = make("div", "labels"), legend = make("div"), words = new Set();
  legend.id = "legend";
  const ruler = make("div", "ruler");
  const every = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((s) => end / s <= 8) || 1800;
  for (let t = 0; t <= end - every / 3; t += every) {
    const tick = make("b", "", every < 1 ? t.toFixed(1) : every >= 60 ? `${Math.round(t / 60)} min` : `${Math.round(t)} s`);
    tick.style.left = at(t);
    ruler.append(tick);
  }
  tracks.append(ruler);
  const addTrack = (name, spans) => {
    const track = make("div", "track");
    for (const [from, to, word, title] of spans) {
      const span = make("i", /^[\w-]+$/.test(word) ? word : "mark");
      span.style.left = at(from);
      span.style.width = at(Math.min(to, end) - from);
      span.title = `${title || word}, ${from.toFixed(2)} to ${to.toFixed(2)} s`;
      if (["driver", "monitor"].includes(name)) words.add(word);
      track.append(span);
    }
    labels.append(make("span", "", name));
    tracks.append(track);
  };
  for (const band of bands) if (band.spans.length) addTrack(band.name, band.spans);
  const timed = marks.filter((mark) => mark.from !== undefined);
  if (timed.length) addTrack("marks", timed.map((mark) => [mark.from, mark.to, "mark", mark.text]));
  for (const word of words) {
    const swatch = make("i", word);
    swatch.style.background = MONITOR_COLOURS[word] || `var(--${word})`;
    legend.append(make("span", "", swatch, word));
  }
  tracks.append(make("div", "cursor"));
  byId("timeline").replaceChildren(labels, tracks, legend);
  scrubs(tracks);
}

function showAbout(row) {
  const { about, films: shots } = view.episode;
  const boxes = [];
  const facts = (title, entries) => {
    const list = entries.filter(([, value]) => value !== "" && value !== null && value !== undefined);
    if (!list.length) return;
    boxes.push(make("div", "facts", make("h3", "", title), make("dl", "", ...list.flatMap(([key, value]) => [make("dt", "", key), make("dd", "", String(value))]))));
  };
  const plain = (value) => (typeof value === "number" ? String(Number(value.toPrecision(5))) : typeof value === "object" ? JSON.stringify(value) : value);
  facts("Recording", [["recorded", row.recorded], ["robot", row.robot], ["steps", row.steps], ["software", about.software], ["uuid", about.uuid],
    ["recovered", about.recovered && plain(about.recovered)], ["cut from", about.parent && plain(about.parent)], ["dropped", about.drops && plain(about.drops)]]);
  facts("Streams", [...Object.entries(about.timing || {}).map(([name, t]) => [name, `${plain(t.hz)} Hz, jitter ${plain(t.jitter_p99_ms)} ms (p99)`]),
    ...(shots || []).map((film) => [film.camera, `${film.times.length} frames ${film.sheets ? "on this page" : ""}, ${film.width} x ${film.height}`])]);
  facts("Quality", Object.entries(about.quality || {}).map(([key, value]) => [key.replaceAll("_", " "), plain(value)]));
  facts("More", Object.entries(about.extra || {}).map(([key, value]) => [key, plain(value)]));
  facts("Marks", view.episode.marks.map((mark) => [mark.from === undefined ? "–" : `${mark.from.toFixed(2)} s`, mark.text]));
  byId("about").replaceChildren(...boxes);
}

/* Move the cursor. */
function seek(time) {
  const { end } = view.episode;
  view.time = Math.max(0, Math.min(end, time));
  document.body.style.setProperty("--at", `${(100 * view.time) / (end || 1)}%`);
  byId("clock").innerHTML = `${view.time.toFixed(2)} <small>/ ${end.toFixed(2)} s</small>`;
  byId("stepno").textContent = `step ${stepAt(view.time)} of ${view.episode.steps - 1}`;
  drawFilms();
  readPlots();
}

function play(on) {
  if (!view.episode) return;
  if (on && view.time >= view.episode.end) seek(0);
  view.playing = on;
  byId("play").innerHTML = on ? ICONS.pause : ICONS.play;
  byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
  clock = performance.now();
  if (on) requestAnimationFrame(tick);
}

function tick(now) {
  if (!view.playing) return;
  const passed = Math.min(now - clock, 250) / 1000;
  clock = now;
  seek(view.time + Math.max(passed, 0) * view.speed);
  if (view.time >= view.episode.end) play(false); else requestAnimationFrame(tick);
}

function setSpeed(speed) {
  view.speed = speed;
  byId("speed").value = String(speed);
}

function move(by) {
  const here = view.rows.findIndex((row) => row === view.row);
  const next = view.rows[here < 0 ? 0 : here + by];
  if (next) openRow(next, 0);
}

/* Press and drag over an area whose width is the episode. */
function scrubs(area) {
  const to = (event) => {
    const box = area.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * view.episode.end);
  };
  area.onpointerdown = (event) => { play(false); area.setPointerCapture(event.pointerId); to(event); };
  area.onpointermove = (event) => { if (event.buttons) to(event); };
}

for (const speed of SPEEDS) byId("speed").append(new Option(`${speed}×`, String(speed)));
setSpeed(1);
byId("play").innerHTML = ICONS.play;
byId("play").onclick = () => play(!view.playing);
byId("speed").onchange = (event) => { setSpeed(Number(event.target.value)); event.target.blur(); };
byId("previous").onclick = () => move(-1);
byId("next").onclick = () => move(1);
byId("help").onclick = () => byId("keys").showModal();
byId("back").onclick = () => { play(false); document.body.classList.remove("watching"); };
new ResizeObserver(() => { if (view.episode) drawPlots(); }).observe(byId("plots"));

document.onkeydown = (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const nudge = (by) => { play(false); seek(view.time + by); };
  const keys = {
    " ": () => play(!view.playing),
    ArrowLeft: () => nudge(event.shiftKey ? -1 : timeOf(Math.max(stepAt(view.time) - 1, 0)) - view.time),
    ArrowRight: () => nudge(event.shiftKey ? 1 : timeOf(Math.min(stepAt(view.time) + 1, view.episode.steps - 1)) - view.time),
    Home: () => nudge(-Infinity),
    End: () => nudge(Infinity),
    j: () => move(1),
    k: () => move(-1),
    "[": () => setSpeed(SPEEDS[Math.max(SPEEDS.indexOf(view.speed) - 1, 0)]),
    "]": () => setSpeed(SPEEDS[Math.min(SPEEDS.indexOf(view.speed) + 1, SPEEDS.length - 1)]),
    s: () => pick("success"),
    f: () => pick("failure"),
    x: () => pick("delete"),
    d: () => byId("theme").click(),
    "/": () => byId("search").focus(),
    "?": () => byId("keys").showModal(),
  };
  if (!keys[event.key] || (!view.episode && !["d", "/", "?"].includes(event.key))) return;
  event.preventDefault();
  keys[event.key]();
};
