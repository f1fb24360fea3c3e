"use strict";
// Draws what the server's events say. Everything from the API is put in as text, never as HTML.

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const SVG = "http://www.w3.org/2000/svg";
const PHASES = {
  running: "Running", paused: "Paused", silent: "Crashed", complete: "Complete", stopped: "Stopped",
  away: "Database away", gone: "Not connected", none: "No crawl yet",
};
// Nothing from the server for so long: it is gone, in milliseconds.
const PATIENCE = 5000;

const known = { run: undefined, ledger: null, series: null, runs: [], rejections: [], health: null };
let lastHeard = Date.now();
let ended = false;
let source = null;
let plots = null;
let runShown = null;

function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0 || Math.abs(value) >= 100) return whole.format(value);
  if (Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(2)));
}

function duration(value) {
  const s = Math.round(value);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function time(value) {
  if (value === null) return "–";
  const at = new Date(value * 1000);
  const day = at.toDateString() === new Date().toDateString() ? "" : at.toLocaleDateString("en-CA") + " ";
  return day + at.toLocaleTimeString("en-GB");
}

function put(id, text) {
  const at = $(id);
  if (at.textContent !== text) at.textContent = text;
}

// The run that the address names; the newest is shown when it names none.
function chosenRun() {
  const run = new URLSearchParams(location.search).get("run");
  return run && /^[0-9]{1,18}$/.test(run) ? run : null;
}

// --- what is drawn ------------------------------------------------------------------------------

function drawState() {
  const { run, health } = known;
  const chosen = chosenRun();
  const silent = Date.now() - lastHeard > PATIENCE || ended;
  const away = health && health.away_s !== null;
  let phase = "none";
  if (run) phase = run.paused ? "paused" : run.phase;
  const settled = phase === "complete" || phase === "stopped";
  const lines = [];
  let kind = "warn";
  if (silent) {
    if (!settled) phase = "gone";
    if (settled) lines.push(...run.words);
    lines.push(settled
      ? "The crawl’s process has ended, and this page’s server doesn’t answer any more. “scrapy dashboard” shows it again."
      : "This page’s server doesn’t answer: it has ended, or the network is away. The figures are from before; the page goes on by itself as soon as it answers.");
    kind = phase === "complete" ? "good" : settled ? "warn" : "bad";
  } else if (away) {
    phase = "away";
    lines.push(`The database is away, for ${duration(health.away_s)}. The figures are from before; the page goes on by itself when it is back.`);
  } else if (run === null && chosen) {
    lines.push(`There is no run ${chosen} in this database. Leave “?run=${chosen}” out of the address to see the newest.`);
  } else if (run === null) {
    lines.push("No crawl has written into this database yet. Start one with “scrapy crawl events”: it appears here by itself.");
  } else if (run) {
    lines.push(...run.words);
    kind = { silent: "bad", complete: "good" }[run.phase] || "warn";
  }
  document.body.classList.toggle("stale", Boolean(run) && (silent && !settled || Boolean(away)));
  $("badge").dataset.phase = phase;
  put("phase", PHASES[phase] || "Connecting");
  const notice = $("notice");
  notice.dataset.kind = kind;
  notice.hidden = lines.length === 0;
  if (notice.dataset.text !== lines.join("\n")) {
    notice.dataset.text = lines.join("\n");
    notice.replaceChildren(...lines.map((line) => element("p", "", line)));
  }
  $("content").hidden = !run;
}

function drawRun() {
  const { run, ledger } = known;
  if (!run) return;
  const share = run.total ? Math.min(run.done / run.total, 1) : null;
  // Never 100 % before it is all there.
  const percent = share === null ? "–" : share === 1 ? "100 %" : `${Math.min(Math.floor(share * 1000) / 10, 99.9).toFixed(1)} %`;
  put("percent", percent);
  put("done", whole.format(run.done));
  put("total", run.total === null ? "an unknown number of" : whole.format(run.total));
  put("left", run.phase !== "running" ? "" : run.left_s === null ? "" : run.left_s < 1 ? "Almost done" : `About ${duration(run.left_s)} left`);
  put("rate-now", run.phase === "running" ? whole.format(run.rate_now) : "–");
  put("rate-mean", whole.format(run.rate_mean));
  put("lasted-name", run.phase === "running" ? "Running for" : "Lasted");
  put("lasted", duration(run.lasted_s));
  $("bar-fill").setAttribute("width", String((share || 0) * 1000));
  const bar = $("bar");
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.floor(share * 100)));
  bar.setAttribute("aria-valuetext", `${percent}: ${whole.format(run.done)} of ${run.total === null ? "an unknown number" : whole.format(run.total)} events`);

  put("in-flight", run.phase === "running" ? number(run.in_flight) : "–");
  put("retries", `${whole.format(run.retries)} retries`);
  put("budget", run.remaining === null ? "–" : run.limit === null ? number(run.remaining) : `${number(run.remaining)} of ${number(run.limit)}`);
  put("reset", run.reset_in_s === null ? (run.remaining === null && run.phase === "running" ? "not told" : "") : `resets in ${duration(run.reset_in_s)}`);
  put("paused", run.paused_for_s ? duration(run.paused_for_s) : run.phase === "running" ? "no" : "–");
  put("pauses", run.pauses ? `${whole.format(run.pauses)} so far, ${duration(run.paused_s)}` : "never so far");
  put("inserted", whole.format(run.inserted));
  put("stored", ledger ? `${whole.format(ledger.stored)} by all runs` : "");
  put("holes", whole.format(run.holes));
  put("holes-sub", run.holes ? (run.phase === "running" ? "asked for again" : "run it again") : "");
  put("rejected", whole.format(run.rejected));
  put("duplicates", `${whole.format(run.duplicates)} duplicates`);
  mark("holes", "alert", run.holes > 0);
  mark("rejected", "alert", run.rejected > 0);
  mark("paused", "wait", run.paused_for_s > 0);
  drawResponses(run);
  document.title = `${percent === "–" ? "" : percent + " · "}${PHASES[run.paused ? "paused" : run.phase]} · datasync-crawler`;
}

function mark(id, name, on) {
  $(id).parentElement.classList.toggle(name, on);
}

function rect(name, x, width, y = 0, height = 40) {
  const made = document.createElementNS(SVG, "rect");
  made.setAttribute("class", name);
  made.setAttribute("x", String(x));
  made.setAttribute("y", String(y));
  made.setAttribute("width", String(width));
  made.setAttribute("height", String(height));
  return made;
}

// A cell is one of these by what is in it; neighbours of one kind become one rectangle.
function cellKinds(ledger, run) {
  const last = ledger.cells.length - 1;
  const live = run && run.phase === "running";
  return ledger.cells.map((count, i) => {
    const first = i * ledger.width;
    const size = i === last ? ledger.whole - first : ledger.width;
    if (count >= size) return "done";
    // What is missing here: asked for at this moment, or left out below the farthest commit?
    const missingBelow = first < ledger.reach && (first + size <= ledger.reach || count < ledger.reach - first);
    const asked = live && run.under_way.some(([from, n]) => from < first + size && from + n > first);
    if (asked) return "flight";
    if (missingBelow) return "hole";
    return count > 0 ? "part" : "ahead";
  });
}

function drawStrip() {
  const { ledger, run } = known;
  if (!ledger || !run) return;
  put("source", `${ledger.source} · run ${run.id} on ${run.host}`);
  const kinds = cellKinds(ledger, run);
  const scale = (1000 * ledger.width) / ledger.whole;
  const rects = [];
  for (let i = 0; i < kinds.length; i++) {
    let end = i;
    while (end + 1 < kinds.length && kinds[end + 1] === kinds[i]) end++;
    const x = i * scale;
    if (kinds[i] !== "ahead") rects.push(rect(kinds[i], x, Math.max(Math.min((end + 1) * scale, 1000) - x, 1.5)));
    i = end;
  }
  // The small over the large.
  const order = { done: 0, part: 1, flight: 2, hole: 3 };
  rects.sort((a, b) => order[a.getAttribute("class")] - order[b.getAttribute("class")]);
  $("strip-cells").replaceChildren(...rects);
  const marks = [];
  if (ledger.rejected.length) {
    marks.push(rect("under", 0, 1000, 31, 9));
    for (const [cell] of ledger.rejected) marks.push(rect("rejected", cell * scale, Math.max(scale, 3), 33, 7));
  }
  $("strip-marks").replaceChildren(...marks);
  put("axis-middle", whole.format(Math.round(ledger.whole / 2)));
  put("axis-end", whole.format(ledger.whole));
  const holes = kinds.filter((kind) => kind === "hole").length;
  put("strip-text", `${whole.format(ledger.covered)} of ${whole.format(ledger.whole)} offsets are committed, all up to ${whole.format(ledger.frontier)}; `
    + `${run.under_way.length} ranges under way; ${holes ? `holes in ${holes} of ${kinds.length} parts` : "no holes"}; `
    + `rejected events in ${ledger.rejected.length} parts.`);
  const live = run.phase === "running";
  const flights = (live ? run.under_way : []).map(([first, count]) => [whole.format(first), whole.format(first + count - 1), whole.format(count), "under way"]);
  const gaps = ledger.first_gaps
    .filter(([first, stop]) => !run.under_way.some(([from, n]) => live && from < stop && from + n > first))
    .map(([first, stop]) => [whole.format(first), whole.format(stop - 1), whole.format(stop - first), "hole"]);
  const rows = [...gaps, ...flights];
  $("ranges-table").replaceChildren(rows.length
    ? table("", ["First offset", "Last offset", "Events", "State"], rows, [0, 1, 2])
    : element("p", "nothing", `No holes, nothing under way. All offsets below ${whole.format(ledger.frontier)} are committed, in ${whole.format(ledger.ranges)} ranges.`));
}

function bar(share, kind) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", `share ${kind}`);
  made.setAttribute("viewBox", "0 0 100 1");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("aria-hidden", "true");
  made.append(rect("", 0, Math.max(share * 100, 1), 0, 1));
  return made;
}

let responsesShown = "";
function drawResponses(run) {
  const text = JSON.stringify([run.statuses, run.failures, run.latency, run.commits, run.transactions]);
  if (text === responsesShown) return;
  responsesShown = text;
  const all = Object.values(run.statuses).reduce((sum, n) => sum + n, 0) + run.failures;
  const rows = Object.entries(run.statuses).map(([status, n]) => [status, bar(n / all, status < "300" ? "" : status === "429" || status < "500" ? "warn" : "bad"), whole.format(n)]);
  if (run.failures) rows.push(["no answer", bar(run.failures / all, "bad"), whole.format(run.failures)]);
  const parts = rows.length ? [table("By status", ["Status", "Share", "Responses"], rows, [2])] : [element("p", "nothing", "None yet.")];
  const ms = (value) => (value === null ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${number(value)} s`);
  const times = [["Answer", run.latency], ["Commit", run.commits]].map(([name, t]) => [name, ms(t.p50), ms(t.p95), ms(t.p99)]);
  if (rows.length) parts.push(table("Time, estimated from a histogram", ["Step", "Half below", "95 % below", "99 % below"], times, [1, 2, 3]));
  $("responses").replaceChildren(...parts);
}

function drawRejections() {
  const open = new Set([...document.querySelectorAll("#rejections details[open]")].map((d) => d.dataset.reason));
  const made = known.rejections.map(({ reason, events, examples }) => {
    const details = element("details", "reason", element("summary", "", element("span", "why", reason), element("strong", "", whole.format(events))));
    details.dataset.reason = reason;
    details.open = open.has(reason);
    for (const { offset, raw } of examples) {
      details.append(element("div", "example", element("p", "muted", `Offset ${whole.format(offset)}`), element("pre", "", raw)));
    }
    return details;
  });
  $("rejections").replaceChildren(...(made.length ? made : [element("p", "nothing", "None: every event that came could be stored.")]));
}

function drawRuns() {
  const chosen = chosenRun();
  put("following", chosen ? "" : "The newest run is shown.");
  if (chosen) {
    const link = element("a", "", "Show the newest run");
    link.href = "./";
    $("following").replaceChildren(`Run ${chosen} is shown; progress, offsets and rejections are those of all runs. `, link);
  }
  runShown = known.run?.id;
  const focused = document.activeElement && document.activeElement.dataset.run;
  const rows = known.runs.map((run) => {
    const link = element("a", "", String(run.id));
    link.href = `?run=${run.id}`;
    link.dataset.run = String(run.id);
    link.setAttribute("aria-label", `Show run ${run.id}`);
    const state = element("span", "state", { running: "running", silent: "crashed: no heartbeat", complete: "complete" }[run.phase] || `stopped: ${run.reason}`);
    state.dataset.phase = run.phase;
    return [link, state, time(run.started_at), run.finished_at === null ? "–" : time(run.finished_at), duration(run.lasted_s), whole.format(run.inserted), whole.format(run.rejected), run.host];
  });
  const made = table("", ["Run", "Outcome", "Start", "End", "Lasted", "New events", "Rejected", "Host"], rows, [4, 5, 6]);
  known.runs.forEach((run, i) => {
    if (run.id === runShown) made.tBodies[0].rows[i].setAttribute("aria-current", "true");
  });
  $("runs").replaceChildren(made);
  if (focused) made.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
}

function drawPlots() {
  if (!known.series || !known.run) return;
  plots = plots || Object.keys(PLOTS).map((name) => new Plot(name, number));
  for (const plot of plots) plot.show(known.series);
}

// --- what is heard ------------------------------------------------------------------------------

function listen() {
  source?.close();
  const run = chosenRun();
  source = new EventSource(run ? `events?run=${encodeURIComponent(run)}` : "events");
  const hear = (name, draw) => source.addEventListener(name, (event) => {
    lastHeard = Date.now();
    ended = false;
    known[name] = JSON.parse(event.data);
    draw();
  });
  hear("ledger", drawStrip);
  hear("rejections", drawRejections);
  hear("series", drawPlots);
  hear("runs", drawRuns);
  hear("run", () => {
    drawState();
    drawRun();
    drawStrip();
    if (!plots) drawPlots();
    if (runShown !== known.run?.id) drawRuns();
  });
  hear("health", () => {
    put("read-at", known.health.away_s === null ? `Read at ${time(known.health.read_at)}` : "");
    drawState();
  });
  source.addEventListener("end", () => {
    ended = true;
    drawState();
  });
  source.addEventListener("error", () => drawState());
}

setInterval(() => {
  drawState();
  // The browser tries again by itself, but gives up for good after an error status.
  if (source.readyState === EventSource.CLOSED) listen();
}, 2000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots?.forEach((plot) => plot.redraw()));
listen();
