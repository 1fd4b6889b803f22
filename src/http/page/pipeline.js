// One pipeline: a summary row, and the details below it.

/** How a state looks, and how urgent it is: 0 needs an operator. */
const STATES = {
  paused: { glyph: "❚❚", tone: "bad", rank: 0 },
  halted: { glyph: "■", tone: "bad", rank: 0 },
  backing_off: { glyph: "▲", tone: "warn", rank: 1 },
  waiting: { glyph: "◆", tone: "warn", rank: 2 },
  starting: { glyph: "◌", tone: "info", rank: 3 },
  stopping: { glyph: "◌", tone: "info", rank: 3 },
  stopped: { glyph: "○", tone: "info", rank: 3 },
  running: { glyph: "●", tone: "ok", rank: 4 },
};

const STAGES = { nats: "NATS", decode: "decode", database: "database" };

/** What happens next in a state. */
const PROMISES = {
  backing_off: "It retries automatically.",
  held_up: "It continues as soon as what it waits for is there.",
  waiting: "It takes over when the other daemon is gone.",
  paused: "Nothing is lost: it will continue from its checkpoint.",
  halted: "It needs an operator's decision to continue.",
};

/** A bar of parts with a legend, so that colour is not the only way to tell them apart. */
class Parts {
  constructor(title, names) {
    this.parts = names.map(([key, name]) => {
      const part = el("span", { className: `part ${key}` });
      const value = el("dd");
      return { key, part, value, entry: el("div", { className: key }, el("dt", {}, name), value) };
    });
    this.note = el("p", { className: "note" });
    const bar = el("div", { className: "bar", ariaHidden: "true" }, ...this.parts.map(({ part }) => part));
    const legend = el("dl", { className: "legend" }, ...this.parts.map(({ entry }) => entry));
    this.element = el("section", { className: "parts" }, el("h3", {}, title), bar, legend, this.note);
  }

  update(values, format, note, marked = null) {
    const sum = Object.values(values).reduce((sum, value) => sum + value, 0);
    for (const { key, part, value, entry } of this.parts) {
      part.style.flexGrow = sum > 0 ? values[key] / sum : 0;
      say(value, format(values[key]));
      entry.classList.toggle("marked", key === marked);
    }
    say(this.note, note);
  }
}

class Pipeline {
  constructor() {
    this.name = el("h2");
    this.stream = el("span", { className: "stream muted" });
    this.glyph = el("span", { className: "glyph", ariaHidden: "true" });
    this.word = el("span");
    this.rowRate = el("span", { className: "row-figure" });
    this.rowBehind = el("span", { className: "row-figure" });
    this.spark = new Spark();
    this.why = el("span", { className: "why" });
    const summary = el(
      "summary",
      {},
      el("span", { className: "title" }, this.name, this.stream),
      el("span", { className: "state" }, this.glyph, this.word),
      this.rowRate,
      this.rowBehind,
      this.spark.element,
      this.why,
    );

    this.reason = el("p", { className: "reason" });
    this.remedy = el("p", { className: "remedy" });
    this.promise = el("p", { className: "muted" });
    this.callout = el("div", { className: "callout" }, this.reason, this.remedy, this.promise);

    this.tiles = Object.fromEntries(
      Object.entries({
        rate: "Rate",
        behind: "Behind",
        catchUp: "Catches up in",
        headroom: "Unread data dropped in",
        limit: "Limited by",
        commit: "Commit time",
        batch: "Batch",
        letters: "Dead letters",
        resyncs: "Resyncs",
        checkpoint: "Checkpoint",
      }).map(([key, name]) => [key, new Tile(name)]),
    );
    this.lag = new Parts("Not committed yet", [
      ["undelivered", "undelivered"],
      ["flight", "in flight"],
      ["uncommitted", "uncommitted"],
    ]);
    this.stages = new Parts("Where the time goes", [
      ["nats", "waiting for NATS"],
      ["decode", "decoding"],
      ["database", "waiting for the database"],
    ]);
    this.charts = [
      new Chart("Messages per second", rate, 10),
      new Chart("Behind", milliseconds, 1),
      new Chart("Not committed", brief, 10),
      new Chart("Commit time", milliseconds),
    ];
    this.ends = new Ends();
    this.causes = new Letters("Newest dead letters", (pipeline) => [
      "List all of them: ",
      `jetcopy dead-letters list --pipeline ${pipeline}`,
    ]);
    this.flood = new Letters("Stopped by a flood of dead letters, including", (pipeline) => [
      "To let the next N messages become dead letters: ",
      `jetcopy dead-letters accept N --pipeline ${pipeline}`,
    ]);
    this.untaken = new Untaken();
    this.trouble = el("p", { className: "muted trouble" });
    this.details = el(
      "details",
      {},
      summary,
      el(
        "div",
        { className: "body" },
        this.callout,
        el("dl", { className: "tiles" }, ...Object.values(this.tiles).map(({ element }) => element)),
        el("div", { className: "charts" }, ...this.charts.map(({ element }) => element)),
        el("div", { className: "columns" }, this.lag.element, this.stages.element),
        this.ends.element,
        this.flood.element,
        this.causes.element,
        this.untaken.element,
        this.trouble,
      ),
    );
    this.element = el("article", { className: "pipeline" }, this.details);
    this.details.addEventListener("toggle", () => this.draw());
    this.history = null;
  }

  get rank() {
    const { retries, held_up: held, state } = this.status;
    return retries || held ? STATES.backing_off.rank : (STATES[state]?.rank ?? 0);
  }

  /** Whether it is what somebody looks for. */
  matches(text, onlyTrouble) {
    const { pipeline, shard, stream, state, held_up: held } = this.status;
    const found = [pipeline, shard, stream].some((name) => name.toLowerCase().includes(text));
    return found && !(onlyTrouble && state === "running" && !held);
  }

  /** Shows what `/status` says; `now` is the daemon's clock. */
  update(status, now) {
    // A pipeline that alternates between failing and starting is always shown in the same way.
    const { state, down_since: down, last_error: error } = status;
    const retries = state === "starting" && down !== null && error !== null && new Date(error.at) >= new Date(down);
    this.status = { ...status, retries };
    const runs = state === "running";
    const { held_up: held } = status;
    const { glyph, tone } = STATES[retries || held ? "backing_off" : state] ?? { glyph: "?", tone: "warn" };
    const reason = retries ? error.message : status.reason;
    const { pipeline, shard } = status;
    const title = shard === pipeline || shard.startsWith(`${pipeline}-`) ? shard : `${pipeline} / ${shard}`;
    say(this.name, title);
    say(this.stream, `stream ${status.stream}`);
    say(this.glyph, glyph);
    say(this.word, held ? "held up" : words(status.state));
    this.element.dataset.tone = tone;
    this.element.dataset.state = status.state;
    say(this.rowRate, runs ? `${rate(status.recent.messages_per_second)} msg/s` : "—");
    const { behind_seconds: behind } = status;
    say(this.rowBehind, behind === null ? "lag unknown" : `${milliseconds(behind)} behind`);

    this.callout.hidden = !reason && !held;
    const since = span((now - new Date(down ?? status.since)) / 1_000);
    const still = held ? `Nothing has committed for ${span(held.seconds)}: ${held.what}` : "";
    tell(this.reason, reason ? `Not running for ${since}: ${reason}` : still);
    tell(this.why, this.inShort(reason || held?.what, status.dead_letters_in_table));
    this.remedy.hidden = !status.remedy;
    tell(this.remedy, status.remedy ? `To fix it: ${status.remedy}` : "");
    say(this.promise, PROMISES[retries ? "backing_off" : held ? "held_up" : state] ?? "");

    this.figures(status, runs, since);
    this.ends.update(status);
    this.causes.update(status.pipeline, status.newest_dead_letters);
    this.flood.update(status.pipeline, status.flood);
    this.untaken.update(status.untaken);
    this.trouble.hidden = !runs || error === null;
    say(this.trouble, error ? `Last error, at ${moment(new Date(error.at))}: ${error.message}` : "");
  }

  /** What a closed row says below its figures. */
  inShort(reason, letters) {
    const many = letters > 0 ? `${count(letters)} dead letter${letters === 1 ? "" : "s"}` : null;
    const parts = [reason, many].filter(Boolean);
    this.why.hidden = parts.length === 0;
    return parts.join("; ");
  }

  figures(status, runs, since) {
    const { recent, behind_seconds: behind } = status;
    const { tiles } = this;
    const known = behind !== null;
    const late = known && behind >= 1;
    if (!runs) tiles.rate.show("—", "not running");
    else {
      tiles.rate.show(
        `${rate(recent.messages_per_second)} msg/s`,
        `${rate(recent.rows_per_second)} rows/s, ${throughput(recent.bytes_per_second)}`,
      );
    }
    if (!known) tiles.behind.show("—", "unknown");
    else tiles.behind.show(milliseconds(behind), late ? "age of the oldest uncommitted message" : runs ? "keeps up" : "nothing waits");
    const catchUp = status.catch_up_seconds;
    if (!known) tiles.catchUp.show("—", "unknown");
    else if (!late) tiles.catchUp.show("—", "nothing to catch up with");
    else if (!runs) tiles.catchUp.show("—", `not running for ${since}`, "warn");
    else if (catchUp === null) tiles.catchUp.show("not at this rate", "the lag does not shrink", "warn");
    else tiles.catchUp.show(span(catchUp), "at the rate of the last half minute");
    const headroom = status.headroom_seconds;
    if (headroom === null) tiles.headroom.show("not expected", "at the current rate");
    else {
      const soon = headroom < 3_600 ? "bad" : "warn";
      tiles.headroom.show(headroom > 0 ? span(headroom) : "now", "at the rate of the last half minute", soon);
    }
    const stage = recent.limited_by;
    const share = stage && `${percent(recent.stages[stage])} of the time`;
    const hint = recent.more_writers_help ? "; more writers would help" : "";
    if (stage) tiles.limit.show(STAGES[stage], share + hint, "warn");
    else tiles.limit.show(runs && known ? "nothing" : "—", runs ? (known ? "keeps up" : "unknown") : "not running");
    const commits = `${rate(recent.commits_per_second)} commits/s`;
    tiles.commit.show(recent.commit_seconds === null ? "—" : milliseconds(recent.commit_seconds), `mean, ${commits}`);
    tiles.batch.show(recent.batch_rows === null ? "—" : `${count(recent.batch_rows)} rows`, "mean, over all tables");
    const { dead_letters_in_table: letters, dead_letters_since_start: fresh } = status;
    const kinds = listed(status.dead_letters_by_kind);
    const newer = `in the table; ${count(fresh)} since start${kinds ? `; ever ${kinds}` : ""}`;
    tiles.letters.show(letters === null ? "—" : count(letters), newer, letters > 0 || fresh > 0 ? "warn" : "");
    tiles.resyncs.show(count(status.resyncs), listed(status.resyncs_by_cause));
    const { stream_first_sequence: first, stream_last_sequence: end, checkpoint_sequence: at } = status;
    tiles.checkpoint.show(at === null ? "—" : count(at), end > 0 ? `stream holds ${count(first)} to ${count(end)}` : "", at > end && end !== null ? "warn" : "");

    const lag = {
      undelivered: status.undelivered_messages,
      flight: status.in_flight_messages,
      uncommitted: status.uncommitted_messages,
    };
    const sum = lag.undelivered + lag.flight + lag.uncommitted;
    const untold = end === null ? "Unknown until the stream is read." : "Unknown: NATS does not answer.";
    const all = sum === 0 ? "Everything is committed." : `${count(sum)} messages in all.`;
    const told = lag.undelivered !== null;
    this.lag.update(lag, (value) => (told ? count(value ?? 0) : "—"), told ? all : untold);
    const limited = stage ? `It is behind and spends most of its time on: ${STAGES[stage]}.` : "Nothing limits it.";
    this.stages.update(recent.stages, percent, runs ? limited : "Not running.", stage);
  }

  /** Takes the samples of the last quarter of an hour. */
  remember(history, scale) {
    this.history = { history, scale };
    this.draw();
  }

  draw() {
    if (!this.history) return;
    const { history, scale } = this.history;
    this.spark.update(history.messages_per_second, scale);
    if (!this.details.open) return;
    const sums = history.undelivered_messages.map((undelivered, index) =>
      undelivered === null ? null : undelivered + history.in_flight_messages[index] + history.uncommitted_messages[index],
    );
    const series = [history.messages_per_second, history.behind_seconds, sums, history.commit_seconds];
    this.charts.forEach((chart, index) => chart.update(series[index], history.running, scale));
  }
}

/** Counts by name, the largest first: database 4, start 1. */
function listed(counts) {
  const entries = Object.entries(counts).filter(([, value]) => value > 0);
  return entries
    .sort(([, one], [, other]) => other - one)
    .map(([name, value]) => `${words(name)} ${count(value)}`)
    .join(", ");
}

/** Where the checkpoint is between the stream's ends. */
class Ends {
  constructor() {
    this.done = el("span", { className: "done" });
    this.text = el("p", { className: "note" });
    const track = el("div", { className: "track", ariaHidden: "true" }, this.done);
    this.element = el("section", { className: "ends" }, el("h3", {}, "Checkpoint in the stream"), track, this.text);
  }

  update(status) {
    const { stream_first_sequence: first, stream_last_sequence: last, checkpoint_sequence: at } = status;
    // Of the numbers that are shown: those of the daemon are up to two seconds apart.
    const room = Math.max(0, at - first + 1);
    this.element.hidden = at === null || !(last > 0);
    if (this.element.hidden) return;
    const held = last - first + 1;
    const share = held > 0 ? Math.min(1, Math.max(0, (at - first + 1) / held)) : 1;
    this.done.style.width = `${share * 100}%`;
    const position = `The stream holds sequences ${count(first)} to ${count(last)}; the checkpoint is ${count(at)}.`;
    const gone = at > last;
    this.element.classList.toggle("gone", gone);
    const meaning = gone
      ? "It is beyond the stream's end: the stream was recreated or rolled back."
      : `It can drop ${count(room)} of them before it drops uncommitted ones.`;
    say(this.text, `${position} ${meaning}`);
  }
}

/** Dead letters, or messages that would be: why, never what. */
class Letters {
  constructor(title, command) {
    this.said = command;
    this.rows = el("tbody");
    const heads = ["when", "sequence", "reason", "column"].map((name) => el("th", { scope: "col" }, name));
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), this.rows);
    this.command = el("code");
    this.where = el("span");
    const where = el("p", { className: "note" }, this.where, this.command);
    this.element = el("section", { className: "letters" }, el("h3", {}, title), table, where);
    this.shown = "";
  }

  update(pipeline, newest) {
    this.element.hidden = newest.length === 0;
    const [where, command] = this.said(pipeline);
    say(this.where, where);
    say(this.command, command);
    const key = newest.map(({ at, sequence }) => `${at} ${sequence}`).join();
    if (key === this.shown) return;
    this.shown = key;
    this.rows.replaceChildren(
      ...newest.map(({ at, sequence, reason, table, column }) => {
        const place = [table, column].filter(Boolean).join(".");
        return el(
          "tr",
          {},
          el("td", {}, moment(new Date(at))),
          el("td", { className: "number" }, count(sequence)),
          el("td", {}, reason),
          el("td", { className: place ? "" : "none" }, place || "—"),
        );
      }),
    );
  }
}

/** Fields that no column takes, and tables and columns that nothing fills: names, never values. */
class Untaken {
  constructor() {
    this.list = el("ul");
    this.element = el("section", { className: "untaken" }, el("h3", {}, "Unused fields, columns and tables"), this.list);
    this.shown = "";
  }

  update({ tables, columns, fields }) {
    const lines = [
      ...tables.map(({ table, reason }) => `Table ${table} gets no rows: ${reason}.`),
      ...columns.map(({ table, column, source }) => {
        const from = source === column ? "" : ` (from ${source})`;
        return `No message had a value for column ${column} of table ${table}${from}.`;
      }),
      ...fields.slice(0, 8).map(({ field, times, meant }) => {
        return `No column takes field ${field}: ${count(times)} times${meant ? `; is it ${meant}?` : "."}`;
      }),
    ];
    if (fields.length > 8) lines.push(`And ${count(fields.length - 8)} more fields.`);
    this.element.hidden = lines.length === 0;
    const key = lines.join("\n");
    if (key === this.shown) return;
    this.shown = key;
    this.list.replaceChildren(...lines.map((line) => el("li", {}, line)));
  }
}
