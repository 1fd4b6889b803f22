// Numbers, times and elements. The page's scripts are one module, joined in the order of src/http/page.rs.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count in full: 12,034. */
const count = (value) => whole.format(value);

/** A count that need not be exact: 12.3K. */
const brief = (value) => (value < 10_000 ? count(value) : short.format(value));

/** A rate: below ten, a digit after the point is worth its place. */
const rate = (value) => (value > 0 && value < 10 ? tenths.format(value) : brief(value));

const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

/** A number and its unit stay on one line. */
const united = (text, unit) => `${text}\u00a0${unit}`;

/** A time span in its two largest units: 2 h 5 min. */
function span(seconds) {
  if (seconds < 10) return united(tenths.format(seconds), "s");
  const rounded = Math.round(seconds);
  const largest = UNITS.findIndex(([, size]) => rounded >= size);
  const [unit, size] = UNITS[largest];
  const [nextUnit, nextSize] = UNITS[largest + 1] ?? [];
  const next = nextSize ? Math.floor((rounded % size) / nextSize) : 0;
  const first = united(count(Math.floor(rounded / size)), unit);
  return next > 0 ? `${first} ${united(next, nextUnit)}` : first;
}

/** A time that is usually short: 0.8 ms, 12 ms, 1.4 s. */
function milliseconds(seconds) {
  if (seconds === 0 || seconds >= 1) return span(seconds);
  return united((seconds < 0.01 ? tenths : whole).format(seconds * 1_000), "ms");
}

/** Bytes per second: 1.2 MB/s. */
function throughput(bytes) {
  const [unit, size] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, size]) => bytes >= size) ?? ["B", 1];
  return `${tenths.format(bytes / size)} ${unit}/s`;
}

const percent = (part) => `${whole.format(part * 100)} %`;

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** A time of day; of another day with its date. */
function moment(date) {
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${date.toISOString().slice(0, 10)} ${clock.format(date)}`;
}

const words = (label) => label.replaceAll("_", " ");

/** An element with properties and children; whatever is text stays text. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The same of a drawing. */
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Sets the text only if it has changed, so that nothing is redrawn or read out again for nothing. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same of a text for people, in which `commands` stand between backticks. */
function tell(element, text) {
  if (element.dataset.told === text) return;
  element.dataset.told = text;
  const parts = text.split("`");
  // An odd one out is no pair, but a backtick.
  const paired = parts.length % 2 === 1;
  element.replaceChildren(...(paired ? parts.map((part, index) => (index % 2 ? el("code", {}, part) : part)) : [text]));
}

/** One tile of a list of figures: a name, a value and what goes with it. */
class Tile {
  constructor(name) {
    this.value = el("dd", { className: "value" });
    this.note = el("dd", { className: "note" });
    this.element = el("div", { className: "tile" }, el("dt", {}, name), this.value, this.note);
  }

  show(value, note = "", mark = "") {
    say(this.value, value);
    say(this.note, note);
    this.element.dataset.mark = mark;
  }
}
