"use strict";
/* The list of episodes: thumbnails, badges, filters, order; and the commands for those chosen. */

const filters = { text: "", outcome: "all", operator: "", task: "", flag: "", sort: "number" };
const outcome = (row) => (row.success === true ? "success" : row.success === false ? "failure" : "unlabelled");
const OUTCOMES = { success: "good", failure: "bad", unlabelled: "" };
const SORTS = {
  number: ["Number", (a, b) => a.number - b.number],
  newest: ["Newest first", (a, b) => b.number - a.number],
  longest: ["Longest first", (a, b) => b.seconds - a.seconds],
  shortest: ["Shortest first", (a, b) => a.seconds - b.seconds],
  idle: ["Most idle first", (a, b) => (b.idle || 0) - (a.idle || 0)],
  extraneous: ["Most extraneous first", (a, b) => (b.extraneous || 0) - (a.extraneous || 0)],
  score: ["Lowest score first", (a, b) => (a.score ?? Infinity) - (b.score ?? Infinity)],
};
const FLAGS = {
  outlier: ["outliers", (row) => row.outlier.length > 0],
  alarm: ["with an alarm", (row) => row.alarm],
  notes: ["with notes or marks", (row) => row.notes || row.marks.length],
  trouble: ["recovered, dropped, cut or damaged", (row) => row.recovered || row.drops || row.parent || row.damaged],
  human: ["taken over", (row) => row.sources.human && row.sources.policy],
};

function startList() {
  const rows = view.about.episodes;
  byId("name").textContent = view.about.name;
  byId("name").title = view.about.path;
  const total = rows.reduce((sum, row) => sum + row.seconds, 0);
  const count = (kind) => rows.filter((row) => outcome(row) === kind).length;
  byId("summary").textContent = `${rows.length} episode${rows.length === 1 ? "" : "s"} · ${duration(total)} · ${number(view.about.rate_hz).replace(/\.?0+$/, "")} Hz`;
  const bar = byId("bar");
  bar.setAttribute("aria-label", `${count("success")} successes, ${count("failure")} failures, ${count("unlabelled")} unlabelled`);
  for (const [kind, colour] of [["success", "good"], ["failure", "bad"], ["unlabelled", "hold"]]) {
    if (!count(kind)) continue;
    const part = make("i");
    part.style.cssText = `flex: ${count(kind)}; background: var(--${colour})`;
    bar.append(part);
  }
  byId("note").textContent = view.about.note || "";
  for (const kind of ["all", ...Object.keys(OUTCOMES)]) {
    const n = kind === "all" ? rows.length : count(kind);
    if (!n && kind !== "all") continue;
    const chip = make("button", "", `${kind} ${n}`);
    chip.dataset.outcome = kind;
    chip.onclick = () => { filters.outcome = kind; showList(); };
    byId("outcomes").append(chip);
  }
  addSelect("operator", "any operator", [...new Set(rows.map((row) => row.operator))].filter(Boolean).map((v) => [v, v]));
  addSelect("task", "any task", [...new Set(rows.map((row) => row.task))].map((v) => [v, v || "(no task)"]));
  addSelect("flag", "any episode", Object.entries(FLAGS).filter(([, [, test]]) => rows.some(test)).map(([k, [words]]) => [k, words]), 1);
  const sorts = Object.entries(SORTS).filter(([k]) => !["idle", "extraneous", "score"].includes(k) || rows.some((row) => typeof row[k] === "number"));
  addSelect("sort", null, sorts.map(([k, [words]]) => [k, words]), 1);
  byId("search").oninput = (event) => { filters.text = event.target.value; showList(); };
  restorePicks();
  showList();
  window.onhashchange = followHash;
  if (!followHash() && view.rows.length && !matchMedia("(max-width: 760px)").matches) openRow(view.rows[0], 0);
}

function addSelect(key, every, choices, least = 2) {
  if (choices.length < least) return;
  const select = make("select");
  select.id = `by-${key}`;
  select.setAttribute("aria-label", key);
  if (every) select.append(new Option(every, ""));
  for (const [value, words] of choices) select.append(new Option(words, value));
  select.onchange = () => { filters[key] = select.value; showList(); };
  byId("selects").append(select);
}

function followHash() {
  const match = /^#(\d+)(?:@([\d.]+))?$/.exec(location.hash);
  const row = match && view.about.episodes.find((r) => r.number === Number(match[1]));
  if (row && (!view.row || view.row.number !== row.number)) openRow(row, Number(match[2] || 0));
  return Boolean(row);
}

function passes(row) {
  if (filters.outcome !== "all" && outcome(row) !== filters.outcome) return false;
  if (filters.operator && row.operator !== filters.operator) return false;
  if (filters.task && row.task !== filters.task) return false;
  if (filters.flag && !FLAGS[filters.flag][1](row)) return false;
  const text = [row.number, row.task, row.operator, row.robot, row.notes, ...row.outlier, ...row.marks].join(" ").toLowerCase();
  return filters.text.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function showList() {
  for (const chip of byId("outcomes").children) chip.setAttribute("aria-pressed", String(chip.dataset.outcome === filters.outcome));
  view.rows = view.about.episodes.filter(passes).sort(SORTS[filters.sort][1]);
  const list = byId("episodes");
  list.replaceChildren(...view.rows.map(rowElement));
  if (!view.rows.length) list.append(make("p", "empty", "No episode is like that."));
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.style.backgroundImage = `url("${entry.target.dataset.src}")`;
    seen.unobserve(entry.target);
  }
}, { rootMargin: "300px" });

function rowElement(row) {
  const text = make("div", "text",
    make("div", "first", make("span", `dot ${OUTCOMES[outcome(row)]}`), String(row.number), make("span", "length", duration(row.seconds))),
    make("div", "second", [row.task, row.operator].filter(Boolean).join(" · ")),
    make("div", "badges", ...rowBadges(row)));
  const link = make("a", "", ...(row.thumb ? [thumbElement(row.thumb)] : []), text);
  link.href = `#${row.number}`;
  link.setAttribute("aria-current", String(view.row === row));
  link.title = row.notes || "";
  link.onclick = (event) => { event.preventDefault(); openRow(row, 0); };
  const item = make("li", "row", link);
  item.dataset.number = row.number;
  return item;
}

function rowBadges(row) {
  const badges = [];
  const pick = view.picks.get(row.number);
  if (pick) badges.push(badge(`→ ${pick}`, "warn", "chosen for a command"));
  if (row.damaged) badges.push(badge("damaged", "bad", row.damaged));
  if (row.outlier.length) badges.push(badge("outlier", "warn", row.outlier.join("; ")));
  if (row.alarm) badges.push(badge("alarm", "bad", "the monitor raised an alarm"));
  if (row.sources.human && row.sources.policy) badges.push(badge(`${percent(row.sources.human)} human`, "", "a person took over from a policy"));
  if (row.idle > 0.1) badges.push(badge(`${percent(row.idle)} idle`, "warn"));
  if (row.extraneous > 0) badges.push(badge(`${percent(row.extraneous)} extraneous`, "warn"));
  if (row.drops) badges.push(badge("dropped", "bad", `left out while recording: ${JSON.stringify(row.drops)}`));
  if (row.recovered) badges.push(badge("recovered", "warn", "made of an interrupted recording"));
  if (row.parent) badges.push(badge(`from ${row.parent.number ?? "another"}`, "", "cut from another episode"));
  for (const mark of row.marks.slice(0, 2)) badges.push(badge(mark, ""));
  return badges;
}

/* A strip of pictures, of which the one under the pointer is shown. */
function thumbElement(strip) {
  const box = make("div", "thumb", make("i"));
  const scale = Math.max(96 / strip.width, 66 / strip.height);
  box.dataset.src = strip.src;
  box.style.backgroundSize = `${strip.stride * strip.count * scale}px auto`;
  const show = (share) => {
    const i = Math.min(strip.count - 1, Math.floor(share * strip.count));
    box.style.backgroundPosition = `${-i * strip.stride * scale + (96 - strip.width * scale) / 2}px ${(66 - strip.height * scale) / 2}px`;
    box.firstChild.style.width = share < 1 ? `${100 * share}%` : "0";
  };
  show(1);
  box.onpointermove = (event) => show(Math.max(0, Math.min(0.999, event.offsetX / 96)));
  box.onpointerleave = () => show(1);
  seen.observe(box);
  return box;
}

/* Episodes chosen with s, f and x; the page cannot change a dataset, but it can write the command. */
function pick(kind) {
  if (!view.row) return;
  if (view.picks.get(view.row.number) === kind) view.picks.delete(view.row.number); else view.picks.set(view.row.number, kind);
  stored(`picks.${view.about.path}`, JSON.stringify([...view.picks]));
  showPicks();
  showList();
}

function restorePicks() {
  try { view.picks = new Map(JSON.parse(stored(`picks.${view.about.path}`) || "[]")); } catch { view.picks = new Map(); }
  const there = new Set(view.about.episodes.map((row) => row.number));
  for (const key of [...view.picks.keys()]) if (!there.has(key)) view.picks.delete(key);
  showPicks();
}

function showPicks() {
  const path = /^[\w./@-]+$/.test(view.about.path) ? view.about.path : `'${view.about.path.replaceAll("'", "'\\''")}'`;
  const words = { success: "label", failure: "label", delete: "delete" };
  const tail = { success: " --success true", failure: " --success false", delete: "" };
  const commands = Object.keys(words).map((kind) => {
    const numbers = [...view.picks].filter(([, k]) => k === kind).map(([n]) => n);
    return numbers.length ? `robopolicy data ${words[kind]} ${path} ${ranges(numbers)}${tail[kind]}` : null;
  }).filter(Boolean);
  byId("tray").hidden = !commands.length;
  byId("tray").replaceChildren(...commands.map((command) => {
    const copy = make("button", "", "Copy");
    copy.onclick = () => copyText(command, copy);
    return make("div", "command", make("code", "", command), copy);
  }));
  for (const button of document.querySelectorAll("[data-pick]")) {
    button.setAttribute("aria-pressed", String(Boolean(view.row) && view.picks.get(view.row.number) === button.dataset.pick));
  }
}

function copyText(text, button) {
  const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1200); };
  const byHand = () => {
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    done();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, byHand); else byHand();
}

for (const button of document.querySelectorAll("[data-pick]")) button.onclick = () => pick(button.dataset.pick);
