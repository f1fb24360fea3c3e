"use strict";
// Draws what the server's events say. Everything from the API is put in as text, never as HTML.

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const SVG = "http://www.w3.org/2000/svg";
// Nothing from the server for so long: it is gone, in milliseconds.
const PATIENCE = 5000;
const NEEDS = {
  unauthorized: "the key was refused", rate_limited: "the API asks for a long pause",
  incomplete: "events are missing", database_refused: "the database refused",
  unreachable: "the API can’t be reached",
};
const SAFE = ["What is committed is safe: the crawl can be stopped and started again at any time."];
const STATES = {
  done: "committed", part: "committed in part", flight: "in flight", fetched: "fetched, not committed yet",
  queued: "queued", leased: "leased by a process", gap: "gap", ahead: "still to come", rejected: "rejected events", doubt: "seam in doubt",
};

const known = { run: undefined, ledger: null, series: null, runs: [], processes: [], rejections: [], health: null, table: null };
let lastMessage = Date.now();
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

function ago(at) {
  const s = Date.now() / 1000 - at;
  const [value, unit] = s < 3600 ? [s / 60, "minute"] : s < 86400 ? [s / 3600, "hour"] : [s / 86400, "day"];
  const n = Math.floor(value);
  return n < 1 ? "just now" : `${n} ${unit}${n === 1 ? "" : "s"} ago`;
}

function time(value, seconds = true) {
  if (value === null) return "–";
  const at = new Date(value * 1000);
  const day = at.toDateString() === new Date().toDateString() ? "" : at.toLocaleDateString("en-CA") + " ";
  return day + at.toLocaleTimeString("en-GB", seconds ? {} : { hour: "2-digit", minute: "2-digit" });
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < 4) { value /= 1000; unit += 1; }
  return `${number(value)} ${units[unit]}`;
}

function plural(n, noun) {
  return `${whole.format(n)} ${noun}${n === 1 ? "" : "s"}`;
}

function put(id, text) {
  const at = $(id);
  if (at.textContent !== text) at.textContent = text;
}

// Replaces what an element holds when what it is made of has changed.
function renew(id, of, make) {
  const text = JSON.stringify(of);
  if ($(id).made === text) return;
  $(id).made = text;
  $(id).replaceChildren(...make());
}

function command(text) {
  const done = element("span", "", "Copy");
  const button = element("button", "copy", text, done);
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      done.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button);  // no clipboard without TLS or localhost
    }
    setTimeout(() => { done.textContent = "Copy"; }, 2000);
  });
  return button;
}

// The run that the address names; the newest is shown when it names none.
function chosenRun() {
  const run = new URLSearchParams(location.search).get("run");
  return run && /^[0-9]{1,18}$/.test(run) ? run : null;
}

function rejectedNow() {
  return known.ledger ? known.ledger.rejected.reduce((sum, [, n]) => sum + n, 0) : 0;
}

function rejectedShare() {
  return known.ledger && known.ledger.covered ? rejectedNow() / known.ledger.covered : 0;
}

// --- the verdict --------------------------------------------------------------------------------

// kind, title, sentences.
function ofRun(run) {
  if (run.follows) {  // FOLLOW: the last look is over, the next one to come
    const current = !run.follows.startsWith("not");
    return [current ? "good" : "wait", current ? "Up to date" : "Not up to date", ["The crawl stays, and looks again and again (FOLLOW)."]];
  }
  if (run.phase === "running") {
    const end = run.ends_at || (run.left_s === null ? null : Date.now() / 1000 + run.left_s);
    if (run.malformed) return ["bad", "Needs you: the figures are malformed", run.words];
    if (run.words.length) return ["wait", "Waiting for the API", run.words];
    if (run.total !== null && run.done >= run.total) return ["run", "Checking what is new", SAFE];
    return ["run", end === null ? "Filling" : `Filling: done about ${time(end, false)}`, SAFE];
  }
  if (run.phase === "silent") return ["bad", "Needs you: the crawl has crashed", run.words];
  if (run.reason === "too_many_rejected") {  // MAX_REJECTED
    const share = (100 * rejectedShare()).toFixed(1);
    return ["bad", `Needs you: ${share} % of the events were rejected`, run.words];
  }
  if (run.phase === "complete") return ["good", `Up to date, ${ago(run.finished_at)}`, run.words];
  if (run.reason === "shutdown") return ["wait", "Stopped by you", run.words];
  return ["bad", `Needs you: ${NEEDS[run.reason] || "the crawl has stopped"}`, run.words];
}

function verdict() {
  const { run, health } = known;
  const chosen = chosenRun();
  const settled = run && (run.phase === "complete" || run.phase === "stopped");
  if (Date.now() - lastMessage > PATIENCE || ended) {
    if (settled) {
      const [kind, title, lines] = ofRun(run);
      return [kind, title, [...lines, "The crawl’s process has ended, and this page’s server with it. “scrapy dashboard” shows it again."]];
    }
    return ["bad", "Not connected", ["This page’s server doesn’t answer: it has ended, or the network is away. The figures are from before; the page goes on by itself as soon as it answers."], true];
  }
  if (health && health.refused) return ["bad", "Needs you: the database refused", ["The database refuses what this page reads: the log of this page’s server says why. It needs the right to read all tables of the schema."], true];
  if (health && health.away_s !== null) {
    return ["wait", "Database away", ["The database is away. The figures are from before; the page goes on by itself when it is back."], true];
  }
  if (run === undefined) return ["none", "Connecting", []];
  if (run === null && chosen) return ["none", `There is no run ${chosen}`, [`There is no run ${chosen} in this database. Leave “?run=${chosen}” out of the address to see the newest.`]];
  if (run === null) return ["none", "Nothing here yet", ["No crawl has written into this database yet."]];
  const [kind, title, lines] = ofRun(run);
  return [kind, chosen && known.runs.length && run.id !== known.runs[0].id ? `Run ${run.id}. ${title}` : title, lines];
}

function drawState() {
  const { run } = known;
  const [kind, title, lines, stale] = verdict();
  $("verdict").dataset.kind = kind;
  put("phase", title);
  renew("notice", lines, () => lines.map((line) => element("p", "", line.replace(/^NOT complete: /, ""))));
  document.body.classList.toggle("stale", Boolean(run && stale));
  const running = Boolean(run && run.phase === "running");
  $("content").hidden = !run;
  $("foot").hidden = run === undefined;  // so that it isn't pushed away by the first figures
  $("invitation").hidden = !(run === null && !chosenRun());
  const percent = running && $("percent").textContent !== "–" ? `${$("percent").textContent} · ` : "";
  document.title = `${percent}${title} · datasync-crawler`;
  const icon = { good: "icon.svg", none: "icon.svg" }[kind] || `icon-${kind}.svg`;
  if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
  fold(running);
}

// What is open at first: all that fits on a wide screen, of the run or of the table.
let folded = null;
function fold(running) {
  if (!known.run) return;
  const wide = innerWidth > 704;
  if (folded === wide) return;  // not when a run begins or ends: nothing moves under a reader
  folded = wide;
  document.body.classList.toggle("idle", !running);
  const open = { running: wide && running, idle: wide && !running, wide, never: false };
  for (const details of document.querySelectorAll("details[data-fold]")) {
    if (!details.touched) details.open = open[details.dataset.fold];
  }
}

// --- the run ------------------------------------------------------------------------------------

function drawRun() {
  const { run, ledger } = known;
  if (!run) return;
  const live = run.phase === "running";
  const share = run.total ? Math.min(run.done / run.total, 1) : null;
  // Never 100 % before it is all there.
  put("percent", share === null ? "–" : share === 1 ? "100 %" : `${Math.min(Math.floor(share * 1000) / 10, 99.9).toFixed(1)} %`);
  put("done", whole.format(run.done));
  put("total", run.total === null ? "an unknown number of" : whole.format(run.total));
  put("pace", run.follows || live
    ? run.follows || `${whole.format(run.rate_mean)} events/s on average · running for ${duration(run.lasted_s)} · ${plural(run.retries, "retry").replace("retrys", "retries")}`
    : `last run: ${plural(run.inserted, "new event")} in ${duration(run.lasted_s)}`);

  const limit = run.limit === null || run.limit === undefined ? null : run.limit;
  if (live) {
    put("quota", run.remaining === null ? (limit === null ? "–" : `${number(limit)}`) : `${number(run.remaining)}${limit === null ? "" : ` of ${number(limit)}`} left`);
    put("window", run.paused_for_s
      ? `next window in ${duration(Math.max(run.paused_for_s, 1))}`
      : run.reset_in_s ? `window ends in ${duration(run.reset_in_s)}` : limit === null ? "no limit known" : "a new window");
  } else {
    put("quota", "–");
    put("window", run.pauses ? `${plural(run.pauses, "wait")} for a window, ${duration(run.paused_s)} in all` : "no request is sent now");
  }
  put("gaps", whole.format(ledger && !live ? ledger.gaps : run.gaps));
  const doubts = ledger ? ledger.doubts.length : 0;
  put("gaps-sub", doubts && !live ? `${plural(doubts, "seam")} in doubt` : run.gaps ? (live ? "asked for again" : "run the same command again")
    : ledger ? `all up to ${whole.format(ledger.frontier)} is committed` : "");
  const rejected = rejectedNow();
  put("rejected", whole.format(rejected));
  renew("rejected-sub", rejected && [rejected, ledger.covered], () => (rejected
    ? [`${number(100 * rejectedShare())} % of the events `, command("scrapy redrive")] : ["every event could be stored"]));
  mark("gaps", "alert", run.gaps > 0 && !live);
  mark("rejected", "alert", run.reason === "too_many_rejected");
  drawResponses(run);
}

function drawProcesses(all) {
  const live = all.filter((each) => each.alive);
  const dead = all.length - live.length;
  put("processes", String(live.length));
  mark("processes", "alert", live.length > 0 && dead > 0);
  $("who").hidden = all.length < 2;
  if (all.length < 2) {
    const [one] = all;
    const over = known.run && known.run.phase !== "running" && known.run.phase !== "silent";
    const said = !one || (over && !one.alive) ? "no crawl is running" : one.alive ? one.host : `${one.host}: no heartbeat for ${duration(one.silent_s)}`;
    renew("hosts", said, () => [said]);
    return;
  }
  const hosts = new Set(live.map((each) => each.host));
  const said = [`on ${hosts.size === 1 ? [...hosts][0] : plural(hosts.size, "host")}`, dead ? `${whole.format(dead)} without a heartbeat: others take over` : ""].filter(Boolean);
  renew("hosts", said, () => said.map((line) => element("span", "process", line)));
  const rows = all.map((each) => [String(each.pid), each.host, each.alive ? (each.plans ? "alive, plans" : "alive") : `dead for ${duration(each.silent_s)}`, `${number(100 * each.share)} %`,
    each.holds.map(([first, stop]) => `${whole.format(first)}–${whole.format(stop - 1)}`).join(", ") || "–"]);
  renew("processes-table", rows, () => [table("", ["Process", "Host", "State", "Share", "Leased offsets"], rows, [3])]);
}

function mark(id, name, on) {
  $(id).parentElement.classList.toggle(name, on);
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

function rect(name, x, width, y = 0, height = 40) {
  return svg("rect", { class: name, x, y, width, height });
}

function drawResponses(run) {
  renew("responses", [run.statuses, run.failures], () => {
    const all = Object.values(run.statuses).reduce((sum, n) => sum + n, 0) + run.failures;
    const rows = Object.entries(run.statuses).map(([status, n]) => [status, bar(n / all, status < "300" ? "" : status < "500" ? "warn" : "bad"), whole.format(n)]);
    if (run.failures) rows.push(["no answer", bar(run.failures / all, "bad"), whole.format(run.failures)]);
    return rows.length ? [table("", ["Status", "Share", "Responses"], rows, [2])] : [element("p", "nothing", "None yet.")];
  });
}

function bar(share, kind) {
  return svg("svg", { class: `share ${kind}`, viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    rect("", 0, Math.max(share * 100, 1), 0, 1));
}

// --- the strip ----------------------------------------------------------------------------------

let segments = [];  // [first, stop, state] over all offsets, in order
let cursor = null;  // the offset that is looked at

function rangesAtWork(run) {
  const found = [];
  for (const state of ["queued", "fetched", "flight"]) {
    for (const [first, count] of run.ranges[state] || []) found.push([first, first + count, state]);
  }
  return found;
}

// A cell is one of these by what is in it; neighbours of one kind become one segment.
function committed(ledger, atWork) {
  const found = [];
  const last = ledger.cells.length - 1;
  const leases = known.processes.filter((each) => each.alive).flatMap((each) => each.holds);
  ledger.cells.forEach((count, i) => {
    const first = i * ledger.width;
    const stop = i === last ? ledger.whole : first + ledger.width;
    const asked = atWork.some(([from, to]) => from < stop && to > first);
    const behind = first < ledger.reach && count < Math.min(stop, ledger.reach) - first;
    const leased = !asked && leases.some(([from, to]) => from < stop && to > first);
    const open = leased ? "leased" : behind && !asked ? "gap" : "ahead";
    const state = count >= stop - first ? "done" : count > 0 && open !== "gap" ? "part" : open;
    const before = found[found.length - 1];
    if (before && before[2] === state) before[1] = stop;
    else found.push([first, stop, state]);
  });
  return found;
}

function drawStrip() {
  const { ledger, run } = known;
  if (!ledger || !run) return;
  put("source", `· ${ledger.source} · run ${run.id} on ${run.host}`);
  const atWork = rangesAtWork(run);
  const ground = committed(ledger, atWork);
  const scale = 1000 / ledger.whole;
  const box = ([first, stop, state]) => rect(state, first * scale, Math.max(Math.min(stop, ledger.whole) * scale - first * scale, 1.5));
  const order = ["leased", "done", "part", "gap"];  // the small over the large
  const rects = ground.filter(([, , state]) => state !== "ahead").sort((a, b) => order.indexOf(a[2]) - order.indexOf(b[2]));
  $("strip-cells").replaceChildren(...[...rects, ...atWork.filter(([first]) => first < ledger.whole)].map(box));
  const marks = [];
  const cell = ledger.width * scale;
  if (ledger.rejected.length) {
    marks.push(rect("under", 0, 1000, 31, 9));
    for (const [at] of ledger.rejected) marks.push(rect("rejected", at * cell, Math.max(cell, 2), 33, 7));
  }
  for (const at of run.phase === "running" ? [] : ledger.doubts) marks.push(rect("doubt", at * scale - 1, 2));
  if (cursor !== null) marks.push(rect("cursor", cursor * scale, 1.2));
  $("strip-marks").replaceChildren(...marks);
  const hasEnd = ledger.whole > 1;  // nothing is known of the set before its first page
  put("axis-middle", hasEnd ? whole.format(Math.round(ledger.whole / 2)) : "");
  put("axis-end", hasEnd ? whole.format(ledger.whole) : "?");
  segments = [...atWork, ...ground];
  const states = new Set(segments.map(([, , state]) => (state === "part" ? "done" : state)));
  if (ledger.rejected.length) states.add("rejected");
  if (marks.some((each) => each.getAttribute("class") === "doubt")) states.add("doubt");
  renew("legend", [...states].sort(), () => Object.keys(STATES).filter((state) => states.has(state)).map((state) => {
    const key = element("i", `key ${state}`);
    key.setAttribute("aria-hidden", "true");
    return element("li", "", key, STATES[state]);
  }));
  tell();
  const rows = [...ground.filter(([, , state]) => state === "gap").length ? ledger.first_gaps.map(([first, stop]) => [first, stop, "gap"]) : [], ...atWork]
    .map(([first, stop, state]) => [whole.format(first), whole.format(stop - 1), whole.format(stop - first), STATES[state]]);
  renew("ranges-table", rows.length ? rows : [ledger.frontier, ledger.ranges], () => [rows.length
    ? table("", ["First offset", "Last offset", "Events", "State"], rows, [0, 1, 2])
    : element("p", "nothing", `No gap, nothing at work. All offsets below ${whole.format(ledger.frontier)} are committed, in ${plural(ledger.ranges, "range")}.`)]);
}

// What stands at the cursor, in words.
function tell() {
  const { ledger } = known;
  const holder = $("strip-holder");
  holder.setAttribute("aria-valuemax", String(ledger.whole - 1));
  const found = cursor === null ? null : segments.find(([first, stop]) => first <= cursor && cursor < stop);
  if (!found) {
    put("strip-tip", "Point at the strip, or use its arrow keys, to see a range, its state and its run.");
    return;
  }
  const [first, stop, state] = found;
  const cell = Math.floor(cursor / ledger.width);
  const run = ledger.runs.find(([at]) => at === cell);
  const rejected = ledger.rejected.find(([at]) => at === cell);
  const text = `Offsets ${whole.format(first)}–${whole.format(stop - 1)}: ${STATES[state]}`
    + (run && (state === "done" || state === "part") ? `, here by run ${run[1]}` : "")
    + (rejected ? `, with ${plural(rejected[1], "rejection")} near ${whole.format(cursor)}` : "") + ".";
  put("strip-tip", text);
  holder.setAttribute("aria-valuenow", String(cursor));
  holder.setAttribute("aria-valuetext", text);
}

function point(at) {
  cursor = at === null ? null : Math.max(0, Math.min(known.ledger.whole - 1, Math.floor(at)));
  drawStrip();
}

$("strip-holder").addEventListener("pointermove", (event) => {
  const box = $("strip").getBoundingClientRect();
  if (known.ledger) point(((event.clientX - box.left) / box.width) * known.ledger.whole);
});
$("strip-holder").addEventListener("pointerleave", () => known.ledger && point(null));
$("strip-holder").addEventListener("blur", () => known.ledger && point(null));
$("strip-holder").addEventListener("keydown", (event) => {
  if (!known.ledger) return;
  const edges = [...new Set(segments.map(([first]) => first))].sort((a, b) => a - b);
  const here = cursor === null ? -1 : cursor;
  const to = {
    ArrowRight: edges.find((at) => at > here), ArrowLeft: edges.findLast((at) => at < here),
    ArrowUp: edges.find((at) => at > here), ArrowDown: edges.findLast((at) => at < here),
    Home: 0, End: edges[edges.length - 1],
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  point(to);
});

// --- rejections, runs, the table ------------------------------------------------------------------

// The field that the reason names, marked in the event's JSON.
function marked(raw, reason) {
  const field = /^([A-Za-z_]\w*):/.exec(reason);
  const found = field && new RegExp(`"${field[1]}"\\s*:\\s*("(?:[^"\\\\]|\\\\.)*"?|[^,}\\]]*)`).exec(raw);
  if (!found) return [raw];
  return [raw.slice(0, found.index), element("mark", "", found[0]), raw.slice(found.index + found[0].length)];
}

function drawRejections() {
  const open = new Set([...document.querySelectorAll("#rejections details[open]")].map((d) => d.dataset.reason));
  const made = known.rejections.map(({ reason, events, examples }, i) => {
    const details = element("details", "reason", element("summary", "", element("span", "why", reason), element("strong", "", whole.format(events))));
    details.dataset.reason = reason;
    details.open = open.has(reason) || (i === 0 && open.size === 0 && innerWidth > 1680 && !known.table);
    for (const { offset, raw } of examples) {
      details.append(element("div", "example", element("p", "muted", `Offset ${whole.format(offset)}`), element("pre", "", ...marked(raw, reason))));
    }
    return details;
  });
  $("rejections").replaceChildren(...(made.length ? made : [element("p", "nothing", "None: every event that came could be stored.")]));
}

// Bars of equal width: [height, class, title, address]. At the right the newest.
function bars(items, places, scale = (share) => share) {
  const most = Math.max(...items.map(([height]) => height), 1);
  const wide = 1000 / places;
  const made = svg("svg", { class: "bars", viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  items.forEach(([height, kind, title, href], i) => {
    const tall = Math.max(scale(height / most) * 96, 3);
    const link = svg(href ? "a" : "g", href ? { href, tabindex: -1, class: i === items.length - 1 - items.current ? "current" : "" } : {},
      rect("ground", i * wide, wide, 0, 100), rect(kind, i * wide + wide * .12, wide * .76, 100 - tall, tall), svg("title", {}, title));
    if (!href) link.firstChild.remove();
    made.append(link);
  });
  return made;
}

function outcome(run) {
  return { running: "running", silent: "crashed: no heartbeat", complete: "complete" }[run.phase] || `stopped: ${run.reason}`;
}

function drawRuns() {
  const chosen = chosenRun();
  const counts = ["complete", "stopped", "silent", "running"].map((phase) => [known.runs.filter((run) => run.phase === phase).length, { silent: "crashed" }[phase] || phase]);
  put("following", `The last ${whole.format(known.runs.length)}: ${counts.filter(([n]) => n).map(([n, word]) => `${n} ${word}`).join(", ")}. Height: new events, on a square-root scale.`);
  if (chosen) {
    const link = element("a", "", "Show the newest run");
    link.href = "./";
    $("following").replaceChildren(`Run ${chosen} is shown; offsets, gaps and rejections are those of the table. `, link);
  }
  runShown = known.run?.id;
  const focused = document.activeElement && document.activeElement.dataset.run;
  const items = known.runs.map((run) => [run.inserted, run.phase, `Run ${run.id}, ${time(run.started_at)}: ${outcome(run)}, ${plural(run.inserted, "new event")}`, `?run=${run.id}`]).reverse();
  items.current = known.runs.findIndex((run) => run.id === runShown);
  renew("runs-bars", [items, runShown], () => [bars(items, Math.max(items.length, 25), Math.sqrt),
    axis(known.runs.length ? time(known.runs.at(-1).started_at, false) : "", known.runs.length ? time(known.runs[0].started_at, false) : "", items.length, Math.max(items.length, 25))]);
  const rows = known.runs.map((run) => {
    const link = element("a", "", String(run.id));
    link.href = `?run=${run.id}`;
    link.dataset.run = String(run.id);
    link.setAttribute("aria-label", `Show run ${run.id}`);
    const state = element("span", "state", outcome(run));
    state.dataset.phase = run.phase;
    return [link, state, time(run.started_at), duration(run.lasted_s), whole.format(run.inserted), whole.format(run.rejected), run.host];
  });
  const made = table("", ["Run", "Outcome", "Start", "Lasted", "New events", "Rejected", "Host"], rows, [3, 4, 5]);
  known.runs.forEach((run, i) => {
    if (run.id === runShown) made.tBodies[0].rows[i].setAttribute("aria-current", "true");
  });
  $("runs").replaceChildren(made);
  if (focused) made.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
  drawAge();
}

// Below as much of the width as the bars take.
function axis(left, right, items, places) {
  const made = element("div", "axis muted", element("span", "", left), element("span", "", right));
  made.setAttribute("aria-hidden", "true");
  if (left === right) made.lastChild.remove();
  made.style.width = `max(15rem, ${(100 * items) / places}%)`;
  return made;
}

// How old the table was at each moment: the time since a run last proved it complete, in hours.
function drawAge() {
  const ends = known.runs.filter((run) => run.phase === "complete").map((run) => run.finished_at).sort((a, b) => a - b);
  $("plot-age").hidden = ends.length < 2;
  if (!plots || ends.length < 2) return;
  const at = [ends[0]];
  const age = [0];
  for (const end of [...ends.slice(1), Date.now() / 1000]) {
    at.push(end - .001, end);
    age.push(Math.round((end - at[at.length - 3]) / 36) / 100, 0);
  }
  at.pop();
  age.pop();
  plots.find((plot) => plot.name === "age").show({ at, age });
}

function drawTable() {
  const { table: view } = known;
  if (!view) return;
  const sample = view.percent < 100 ? ` Rows and events below are of a sample of ${number(view.percent)} % of its blocks.` : "";
  const rows = view.types.reduce((sum, [, n]) => sum + n, 0);
  if (view.unread) {
    put("sizes", `${bytes(view.heap)}, and ${bytes(view.indexes)} of indexes. Its rows can’t be read. ${view.unread}`);
    return;
  }
  put("sizes", `events: ${view.percent < 100 ? "" : `${plural(view.days.length, "day")} of events, `}${bytes(view.heap)}, and ${bytes(view.indexes)} of indexes.${sample}`);
  renew("days", view.days, () => [element("figcaption", "", "Rows by day of the event (UTC)"),
    bars(view.days.map(([day, n]) => [n, "", `${day}: ${plural(n, "row")}`]), Math.max(view.days.length, 10)),
    axis(view.days[0]?.[0] || "", view.days.at(-1)?.[0] || "", view.days.length, Math.max(view.days.length, 10)), asTable("Rows by day", ["Day", "Rows"], [...view.days].reverse().map(([day, n]) => [day, whole.format(n)]))]);
  renew("types", view.types, () => [table("Rows by type", ["Type", "Share", "Rows"], view.types.map(([type, n]) => [type, bar(n / rows, ""), whole.format(n)]), [2])]);
  renew("newest", view.newest, () => [table("Newest events", ["Time", "Type", "Name", "Id"], view.newest.map(([at, id, type, name]) => [time(at), type || "–", name || "–", id]))]);
}

function asTable(name, heads, rows) {
  const holder = element("div", "scroll", table("", heads, rows, [1]));
  holder.tabIndex = 0;
  holder.setAttribute("role", "region");
  holder.setAttribute("aria-label", name);
  return element("details", "", element("summary", "", "As a table"), holder);
}

function drawPlots() {
  if (!known.run) return;
  if (!plots) {
    plots = Object.keys(PLOTS).map((name) => new Plot(name, number));
    drawAge();
  }
  if (!known.series) return;
  const { at, windows } = known.series;
  const run = known.run;
  const end = run.ends_at || (run.left_s ? Date.now() / 1000 + run.left_s : null);
  const data = { ...known.series, projection: at.map(() => null) };
  const last = at.length - 1;
  if (run.phase === "running" && end && run.total && last > 0 && end > at[last]) {
    // No farther ahead than twice what has passed, so that what has been is still seen.
    const far = Math.min(end, at[last] + 2 * Math.max(at[last] - at[0], 10));
    data.at = [...at, far];
    data.projection[last] = run.done;
    data.projection.push(run.done + ((run.total - run.done) * (far - at[last])) / (end - at[last]));
    data.done = [...data.done, null];
  }
  for (const plot of plots) {
    if (plot.name === "done") plot.show(data, run.phase === "running" && end ? `done about ${time(end, false)}` : "");
    else if (plot.name !== "age") plot.show(known.series, plot.name === "quota" && windows.length ? `limit ${number(known.series.limit.findLast((v) => v !== null))} per window, waits shaded` : "");
  }
}

// --- messages -------------------------------------------------------------------------------------

function listen() {
  source?.close();
  const run = chosenRun();
  source = new EventSource(run ? `events?run=${encodeURIComponent(run)}` : "events");
  const on = (name, draw) => source.addEventListener(name, (event) => {
    lastMessage = Date.now();
    ended = false;
    known[name] = JSON.parse(event.data);
    draw();
  });
  on("ledger", drawStrip);
  on("rejections", drawRejections);
  on("processes", () => {
    drawProcesses(known.processes);
    drawStrip();
  });
  on("series", drawPlots);
  on("runs", drawRuns);
  on("table", drawTable);
  on("run", () => {
    drawRun();
    drawState();
    drawStrip();
    if (!plots) drawPlots();
    if (runShown !== known.run?.id) drawRuns();
  });
  on("health", () => {
    put("read-at", known.health.away_s === null ? `· Read at ${time(known.health.read_at)}` : "");
    drawState();
  });
  source.addEventListener("end", () => {
    ended = true;
    drawState();
  });
  source.addEventListener("error", () => drawState());
}

$("first-command").append(command("sh run-ingestion.sh"));
for (const details of document.querySelectorAll("details[data-fold]")) {
  details.querySelector("summary").addEventListener("click", () => { details.touched = true; });
}
setInterval(() => {
  drawState();
  // The browser tries again by itself, but gives up for good after an error status.
  if (source.readyState === EventSource.CLOSED) listen();
}, 2000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots?.forEach((plot) => plot.redraw()));
listen();
