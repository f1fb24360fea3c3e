"use strict";
// The plots, drawn with uPlot; each with a table of the same values. Text by textContent.

// Lines: [column, colour, dashed, label].
const PLOTS = {
  done: { title: "Events committed", unit: "events", fill: true, lines: [["done", "--plot", false, ""], ["projection", "--plot", true, "projected"]] },
  quota: { title: "Requests used in each window", unit: "requests", windows: true, lines: [["limit", "--muted", true, "limit"]] },
  times: { title: "Latency and commit", unit: "ms", logarithmic: true, lines: [
    ["latency_p50", "--plot", false, "latency p50"], ["latency_p95", "--plot", true, "p95"],
    ["commit_p50", "--second", false, "commit p50"], ["commit_p95", "--second", true, "p95"]] },
  age: { title: "Age of the table: time since it was last proved complete", unit: "h", fill: true, lines: [["age", "--plot", false, ""]] },
};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A time of day; beside days where the axis spans them.
function clock(at, span) {
  const date = new Date(at * 1000);
  if (span > 2 * 86400) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return date.toLocaleTimeString("en-GB", span < 600 ? {} : { hour: "2-digit", minute: "2-digit" });
}

class Plot {
  constructor(name, number) {
    this.name = name;
    this.what = PLOTS[name];
    this.number = number;
    this.data = { at: [] };
    this.note = "";
    this.holder = document.getElementById(`plot-${name}`);
    this.now = element("span", "now");
    this.chart = element("div", "chart");
    this.chart.setAttribute("role", "img");
    this.chart.setAttribute("aria-label", `Plot: ${this.what.title}. A table follows.`);
    this.table = element("div", "scroll");
    this.table.tabIndex = 0;
    this.table.setAttribute("role", "region");
    this.table.setAttribute("aria-label", `${this.what.title}, as a table`);
    this.details = element("details", "", element("summary", "", "As a table"), this.table);
    this.details.addEventListener("toggle", () => this.fillTable());
    this.holder.append(element("figcaption", "", element("span", "", this.what.title), this.now), this.chart, this.details);
    new ResizeObserver(() => this.resize()).observe(this.chart);
  }

  get height() {
    return this.chart.clientHeight || 150;
  }

  options() {
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--muted"), grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const lines = this.what.lines.map(([, name, dashed], i) => ({
      stroke: colour(name), width: 1.75, dash: dashed ? [5, 4] : [], points: { show: false }, spanGaps: true,
      fill: this.what.fill && i === 0 ? colour("--fill") : undefined,
    }));
    const scale = this.what.logarithmic
      ? { distr: 3, range: (u, low, high) => [10 ** Math.floor(Math.log10(Math.max(low || 1, .1))), 10 ** Math.ceil(Math.log10(Math.max(high || 10, 1) * 1.01))] }
      : { range: (u, low, high) => [0, high > 0 ? high * 1.1 : 1] };
    return {
      width: this.chart.clientWidth || 300,
      height: this.height,
      padding: [8, 24, 0, 0],
      scales: { x: {}, y: scale },
      series: [{}, ...lines],
      axes: [
        { ...axis, values: (u, values) => values.map((at) => clock(at, u.scales.x.max - u.scales.x.min)), space: 80, size: 24 },
        { ...axis, values: (u, values) => values.map((v) => (v === null ? "" : this.number(v))), size: 62, space: 30 },
      ],
      cursor: { sync: { key: "all" }, y: false, drag: { x: false, y: false }, points: { size: 7 } },
      legend: { show: false },
      hooks: {
        setCursor: [(u) => this.say(u.cursor.idx)],
        drawClear: this.what.windows ? [(u) => this.drawWindows(u)] : [],
      },
    };
  }

  // Pauses as bands, over them a bar for each window.
  drawWindows(u) {
    const { at, paused, windows } = this.data;
    const box = (from, to, top, bottom) => {
      const left = u.valToPos(from, "x", true);
      u.ctx.fillRect(left, top, Math.max(u.valToPos(to, "x", true) - left - 1, 2), bottom - top);
    };
    u.ctx.save();
    u.ctx.fillStyle = colour("--band");
    for (let i = 0; i < at.length; i++) {
      if (!paused[i]) continue;
      let end = i;
      while (end + 1 < at.length && paused[end + 1]) end++;
      box(at[Math.max(i - 1, 0)], at[end], u.bbox.top, u.bbox.top + u.bbox.height);
      i = end;
    }
    u.ctx.fillStyle = colour("--plot");
    for (const [from, to, used] of windows) box(from, to, u.valToPos(used, "y", true), u.bbox.top + u.bbox.height);
    u.ctx.restore();
  }

  // The values at an index, or the last ones.
  say(index) {
    const said = [];
    const at = index ?? this.data.at.length - 1;
    if (this.what.windows) {
      const found = (this.data.windows || []).findLast(([from]) => from <= this.data.at[at]);
      if (found) said.push(`${this.number(found[2])} used`);
    } else {
      for (const [column, , , label] of this.what.lines) {
        const values = this.data[column] || [];
        const value = index === null || index === undefined ? values.findLast((v) => v !== null) : values[index];
        if (value === null || value === undefined || (label === "projected" && index === null)) continue;
        said.push(`${label} ${this.number(value)}`.trim());
      }
      if (said.length) said[said.length - 1] += ` ${this.what.unit}`;
    }
    if (index !== null && index !== undefined && said.length) said.push(`at ${clock(this.data.at[at], 0)}`);
    else if (this.note) said.push(this.note);
    this.now.textContent = said.join(", ");
  }

  show(data, note = "") {
    this.data = data;
    this.note = note;
    const columns = this.what.lines.map(([column]) => data[column]);
    const any = columns.some((values) => values.some((value) => value !== null)) && data.at.length > 1;
    this.details.hidden = !any;
    if (!any) {
      this.drop();
      if (!this.chart.querySelector(".nothing")) this.chart.replaceChildren(element("p", "nothing", this.what.windows ? "The API has named no rate limit." : "No figures yet."));
      return;
    }
    if (this.plot) this.plot.setData([data.at, ...columns]);
    else if (this.chart.clientWidth) {
      this.chart.replaceChildren();
      this.plot = new uPlot(this.options(), [data.at, ...columns], this.chart);
    }
    if (!this.plot || this.plot.cursor.idx === null || this.plot.cursor.left < 0) this.say(null);
    this.chart.setAttribute("aria-label", `Plot: ${this.what.title}. ${this.now.textContent}. A table follows.`);
    if (this.details.open) this.fillTable();
  }

  fillTable() {
    if (!this.details.open) return;
    const { at, windows } = this.data;
    const rows = [];
    if (this.what.windows) {
      for (const [from, , used] of [...windows].reverse().slice(0, 60)) rows.push([clock(from, 0), this.number(used)]);
      this.table.replaceChildren(table("", ["Window from", "Requests used"], rows, [1]));
      return;
    }
    const lines = this.what.lines.filter(([, , , label]) => label !== "projected");
    const step = Math.max(1, Math.ceil(at.length / 60));
    for (let i = at.length - 1; i >= 0; i -= step) {
      const values = lines.map(([column]) => this.data[column][i]);
      if (values.some((value) => value !== null)) rows.push([clock(at[i], 0), ...values.map((value) => this.number(value))]);
    }
    const heads = lines.map(([column]) => column.replace("_", " "));
    this.table.replaceChildren(table(`In ${this.what.unit}, newest first`, ["Time", ...heads], rows, lines.map((_, i) => i + 1)));
  }

  resize() {
    const width = this.chart.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
    else if (!this.plot && width && this.data.at.length) this.show(this.data, this.note);  // unfolded
  }

  drop() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
  }

  redraw() {
    if (!this.plot) return;
    this.drop();
    this.show(this.data, this.note);
  }
}

function element(name, classes = "", ...children) {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  made.append(...children);
  return made;
}

function table(caption, heads, rows, numbers = []) {
  const made = element("table");
  if (caption) made.append(element("caption", "", caption));
  const row = element("tr");
  heads.forEach((head, i) => {
    const th = element("th", numbers.includes(i) ? "n" : "", head);
    th.scope = "col";
    row.append(th);
  });
  made.append(element("thead", "", row));
  const body = element("tbody");
  for (const cells of rows) {
    const tr = element("tr");
    cells.forEach((cell, i) => tr.append(element("td", numbers.includes(i) ? "n" : "", cell)));
    body.append(tr);
  }
  made.append(body);
  return made;
}
