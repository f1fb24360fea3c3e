"use strict";
// The four plots, drawn with uPlot; each with a table of the same values. Text by textContent.

const PLOTS = {
  rate: { title: "Throughput", unit: "events/s", column: "rate", fill: true, height: 190 },
  budget: { title: "API budget left, and pauses", unit: "requests", column: "remaining", steps: true, bands: true },
  latency: { title: "Latency of answers", unit: "s", column: "latency", sparse: true },
  commit: { title: "Time of a commit", unit: "s", column: "commit", sparse: true },
};

// Distances between the marks of the time axis, in seconds: 1 s to 2 days.
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function seconds(at) {
  const t = Math.round(at);
  if (t < 60) return `${t} s`;
  if (t < 3600) return `${Math.floor(t / 60)}:${String(t % 60).padStart(2, "0")} min`;
  return `${Math.floor(t / 3600)}:${String(Math.floor((t % 3600) / 60)).padStart(2, "0")} h`;
}

class Plot {
  constructor(name, number) {
    this.what = PLOTS[name];
    this.number = number;
    this.data = { at: [] };
    this.holder = document.getElementById(`plot-${name}`);
    this.caption = element("figcaption", "", element("span", "", this.what.title));
    this.now = element("span", "now");
    this.caption.append(this.now);
    this.chart = element("div", "chart");
    this.chart.setAttribute("role", "img");
    this.chart.setAttribute("aria-label", `Plot: ${this.what.title}. A table follows.`);
    this.table = element("div", "scroll");
    this.table.tabIndex = 0;
    this.table.setAttribute("role", "region");
    this.table.setAttribute("aria-label", `${this.what.title}, as a table`);
    this.details = element("details", "", element("summary", "", "As a table"), this.table);
    this.details.addEventListener("toggle", () => this.fillTable());
    this.holder.append(this.caption, this.chart, this.details);
    new ResizeObserver(() => this.resize()).observe(this.chart);
  }

  options() {
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--muted"), grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const series = { stroke: colour("--plot"), width: 1.75, points: { show: false }, spanGaps: false };
    // Between two answers there is no latency to be seen: the line may bridge that.
    if (this.what.sparse) Object.assign(series, { spanGaps: true, points: { show: (u) => u.data[1].filter((v) => v !== null).length < 60, size: 4, fill: colour("--plot") } });
    if (this.what.fill) series.fill = colour("--plot-fill");
    if (this.what.steps) series.paths = uPlot.paths.stepped({ align: 1 });
    return {
      width: this.chart.clientWidth || 300,
      height: this.what.height || 160,
      padding: [8, 24, 0, 0],
      scales: { x: { time: false }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      series: [{}, series],
      axes: [
        { ...axis, values: (u, values) => values.map(seconds), incrs: STEPS, space: 55, size: 26 },
        { ...axis, values: (u, values) => values.map((v) => this.number(v)), size: 58, space: 34 },
      ],
      cursor: { sync: { key: "all" }, y: false, drag: { x: false, y: false }, points: { size: 7 } },
      legend: { show: false },
      hooks: {
        setCursor: [(u) => this.say(u.cursor.idx)],
        drawClear: this.what.bands ? [(u) => this.drawPauses(u)] : [],
      },
    };
  }

  drawPauses(u) {
    const { at, paused } = this.data;
    u.ctx.save();
    u.ctx.fillStyle = colour("--band");
    for (let i = 0; i < at.length; i++) {
      if (!paused[i]) continue;
      let end = i;
      while (end + 1 < at.length && paused[end + 1]) end++;
      const left = u.valToPos(at[Math.max(i - 1, 0)], "x", true);
      const right = u.valToPos(at[end], "x", true);
      u.ctx.fillRect(left, u.bbox.top, Math.max(right - left, 1), u.bbox.height);
      i = end;
    }
    u.ctx.restore();
  }

  say(index) {
    const values = this.data[this.what.column] || [];
    let i = index;
    if (i === null || i === undefined) {
      i = values.length - 1;
      while (i >= 0 && values[i] === null) i--;
    }
    const known = i >= 0 && values[i] !== null && values[i] !== undefined;
    const text = known ? `${this.number(values[i])} ${this.what.unit}` : "";
    this.now.textContent = known && index !== null && index !== undefined ? `${text} at ${seconds(this.data.at[i])}` : text;
  }

  show(data) {
    this.data = data;
    const values = data[this.what.column];
    const any = values.some((value) => value !== null);
    this.details.hidden = !any;
    if (!any) {
      this.drop();
      if (!this.chart.querySelector(".nothing")) this.chart.replaceChildren(element("p", "nothing", this.what.bands ? "The API hasn’t told its budget." : "No figures yet."));
      return;
    }
    if (this.plot) this.plot.setData([data.at, values]);
    else {
      this.chart.replaceChildren();
      this.plot = new uPlot(this.options(), [data.at, values], this.chart);
    }
    if (this.plot.cursor.idx === null || this.plot.cursor.left < 0) this.say(null);
    const numbers = values.filter((value) => value !== null);
    this.chart.setAttribute("aria-label", `Plot: ${this.what.title}. From ${this.number(Math.min(...numbers))} to ${this.number(Math.max(...numbers))} ${this.what.unit} over ${seconds(data.at[data.at.length - 1])}. A table follows.`);
    if (this.details.open) this.fillTable();
  }

  fillTable() {
    if (!this.details.open) return;
    const { at } = this.data;
    const values = this.data[this.what.column];
    const step = Math.max(1, Math.ceil(at.length / 60));
    const rows = [];
    for (let i = at.length - 1; i >= 0; i -= step) {
      if (values[i] === null) continue;
      const paused = this.what.bands && this.data.paused[i] ? " (paused)" : "";
      rows.push([seconds(at[i]), this.number(values[i]) + paused]);
    }
    this.table.replaceChildren(table(`${this.what.title}, newest first`, ["Since the start", this.what.unit], rows, [1]));
  }

  resize() {
    const width = this.chart.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.what.height || 160 });
  }

  drop() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
  }

  redraw() {
    if (!this.plot) return;
    this.drop();
    this.show(this.data);
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
