// Small charts, each of one series.

const WIDTH = 300;
const HEIGHT = 72;

/** The least of 1, 2, 5, 10, 20, … that is not below `value`: the top of a scale. */
function top(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

/** How many minutes a chart spans: few while the daemon is young, so that its samples are not a smear at the right edge. */
const minutes = (length, { kept, every }) => [1, 3, 5, 10].find((span) => span * 60 >= length * every) ?? Math.round((kept * every) / 60);

/** How many samples that are. */
const spanned = (length, scale) => Math.min(scale.kept, (minutes(length, scale) * 60) / scale.every);

/** Where each sample lies: the newest at the right edge, also when there are few. */
const across = (index, length, kept) => (kept - length + index) * (WIDTH / (kept - 1));

/** Stretches of samples that `holds` is true of, as [first, last] pairs. */
function stretches(samples, holds) {
  const found = [];
  samples.forEach((sample, index) => {
    if (!holds(sample)) return;
    const last = found.at(-1);
    if (last && last[1] === index - 1) last[1] = index;
    else found.push([index, index]);
  });
  return found;
}

/** The line and the area under it; a sample without a value interrupts both. */
function outline(values, kept, highest) {
  const x = (index) => across(index, values.length, kept).toFixed(1);
  const y = (value) => (HEIGHT - (value / highest) * HEIGHT).toFixed(1);
  let line = "";
  let area = "";
  for (const [first, last] of stretches(values, (value) => value !== null)) {
    // A lone point is drawn as a short stroke.
    const points = values.slice(first, last + 1).map((value, index) => `${x(first + index)} ${y(value)}`);
    line += `M${points.join("L")}${points.length === 1 ? "h0.1" : ""}`;
    area += `M${x(first)} ${HEIGHT}L${points.join("L")}L${x(last)} ${HEIGHT}Z`;
  }
  return { line, area };
}

/** A series over the last minutes, a quarter of an hour at most. */
class Chart {
  /** `least` is the top of the scale at least: noise about nothing should look like nothing. */
  constructor(name, format, least = 0) {
    this.name = name;
    this.format = format;
    this.least = least;
    this.now = el("span", { className: "now" });
    this.scale = el("span", { className: "scale" });
    this.from = el("span", {}, "15 min ago");
    this.pauses = svg("g", { class: "pauses" });
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.drawing = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": name },
      svg("path", { class: "grid", d: `M0 0.5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}` }),
      this.pauses,
      this.area,
      this.line,
      this.cursor,
    );
    const plot = el("div", { className: "plot" }, this.drawing, this.scale);
    const axis = el("div", { className: "axis", ariaHidden: "true" }, this.from, el("span", {}, "now"));
    this.element = el("figure", { className: "chart" }, el("figcaption", {}, el("span", {}, name), this.now), plot, axis);
    plot.addEventListener("pointermove", (event) => this.point(event));
    plot.addEventListener("pointerdown", (event) => this.point(event));
    plot.addEventListener("pointerleave", () => this.point(null));
    this.pointed = null;
    this.data = { values: [], running: [], kept: 180, every: 5, at: Date.now() };
  }

  update(values, running, scale) {
    const { every, at } = scale;
    const kept = spanned(values.length, scale);
    const since = minutes(values.length, scale);
    say(this.from, `${since} min ago`);
    this.data = { values, running, kept, every, at };
    const known = values.filter((value) => value !== null);
    const highest = top(Math.max(this.least, ...known));
    const { line, area } = outline(values, kept, highest);
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
    const step = WIDTH / (kept - 1);
    this.pauses.replaceChildren(
      ...stretches(running, (runs) => !runs).map(([first, last]) => {
        const left = Math.max(0, across(first, running.length, kept) - step / 2);
        const right = Math.min(WIDTH, across(last, running.length, kept) + step / 2);
        return svg("rect", { x: left, width: right - left, y: 0, height: HEIGHT });
      }),
    );
    say(this.scale, this.format(highest));
    const newest = values.at(-1) ?? null;
    const summary = known.length === 0 ? "no values yet" : `highest ${this.format(Math.max(...known))}`;
    this.drawing.setAttribute("aria-label", `${this.name}, last ${since} ${since === 1 ? "minute" : "minutes"}: ${this.read(newest)} now, ${summary}`);
    this.show();
  }

  read(value) {
    return value === null ? "none" : this.format(value);
  }

  point(event) {
    if (event === null) this.pointed = null;
    else {
      const box = this.drawing.getBoundingClientRect();
      this.pointed = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    }
    this.show();
  }

  /** The value under the pointer, else the newest. */
  show() {
    const { values, running, kept, every, at } = this.data;
    const index = this.pointed === null ? -1 : Math.round(this.pointed * (kept - 1)) - (kept - values.length);
    if (index < 0 || index >= values.length) {
      this.cursor.setAttribute("visibility", "hidden");
      say(this.now, values.length === 0 ? "" : this.read(values.at(-1)));
      return;
    }
    const x = across(index, values.length, kept);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.cursor.setAttribute("visibility", "visible");
    const when = moment(new Date(at - (values.length - 1 - index) * every * 1_000));
    say(this.now, `${when}: ${this.read(values[index])}${running[index] ? "" : ", not running"}`);
  }
}

/** The line alone, for a row of a long list. */
class Spark {
  constructor() {
    this.line = svg("path", { class: "line" });
    this.element = svg(
      "svg",
      { class: "spark", viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.line,
    );
  }

  update(values, scale) {
    const highest = Math.max(1, ...values.filter((value) => value !== null));
    this.line.setAttribute("d", outline(values, spanned(values.length, scale), highest).line);
  }
}
