// Asks the daemon and keeps the page up to date.

/** How often the status is fetched: often enough for live numbers, at a negligible cost. */
const ASK_EVERY = 2_000;

/** How long to wait for an answer. */
const PATIENCE = 5_000;

/** Up to this many pipelines, all start expanded. */
const FEW = 2;

/** From this many pipelines on, the filter is shown. */
const MANY = 6;

const place = (id) => document.getElementById(id);
const key = ({ pipeline, shard }) => JSON.stringify([pipeline, shard]);

const pipelines = new Map();
const histories = new Map();
const overview = {
  running: new Tile("Pipelines running"),
  rate: new Tile("Rate"),
  behind: new Tile("Furthest behind"),
  headroom: new Tile("Unread data dropped in"),
  letters: new Tile("Dead letters"),
};
place("summary").append(...Object.values(overview).map(({ element }) => element));

let daemon = { started: null, version: null };
let next = 0;
let sampledAt = 0;
let heardAt = null;

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function showDaemon({ version, started, now }) {
  if (daemon.version !== null && daemon.version !== version) location.reload();
  if (daemon.started !== started) {
    // Another process: what the last one remembered is gone.
    next = 0;
    histories.clear();
  }
  daemon = { version, started };
  say(place("daemon"), `version ${version}, up ${span((new Date(now) - new Date(started)) / 1_000)}`);
}

function showOverview(all) {
  const runs = ({ state }) => state === "running";
  // What another daemon has is in good hands.
  const waiting = all.filter(({ state }) => state === "waiting").length;
  const running = all.filter(runs).length;
  const sum = (value, of = all) => of.reduce((sum, pipeline) => sum + value(pipeline), 0);
  const troubled = all.length - running - waiting;
  const person = all.some(({ state }) => STATES[state]?.rank === 0);
  overview.running.show(
    `${running} of ${all.length}`,
    troubled > 0 ? `${troubled} not running` : waiting > 0 ? `${waiting} at other daemons` : "all of them",
    troubled === 0 ? "" : person ? "bad" : "warn",
  );
  overview.rate.show(
    `${rate(sum(({ recent }) => recent.messages_per_second, all.filter(runs)))} msg/s`,
    `${rate(sum(({ recent }) => recent.rows_per_second, all.filter(runs)))} rows/s`,
  );
  const told = all.filter(({ behind_seconds: seconds }) => seconds !== null);
  const last = told.reduce((last, one) => (one.behind_seconds > (last?.behind_seconds ?? -1) ? one : last), null);
  const late = last !== null && last.behind_seconds >= 1;
  const untold = all.length - told.length;
  const others = untold > 0 ? `unknown for ${count(untold)}` : "all keep up";
  overview.behind.show(last ? milliseconds(last.behind_seconds) : "—", late ? last.shard : others, late ? "warn" : "");
  const dropping = all.filter(({ headroom_seconds: seconds }) => seconds !== null);
  const first = dropping.sort((one, other) => one.headroom_seconds - other.headroom_seconds)[0];
  if (first) {
    const seconds = first.headroom_seconds;
    overview.headroom.show(seconds > 0 ? span(seconds) : "now", first.shard, seconds < 3_600 ? "bad" : "warn");
  } else overview.headroom.show("not expected", "in any stream");
  const letters = sum(({ dead_letters_in_table: there }) => there ?? 0);
  const since = sum(({ dead_letters_since_start: since }) => since);
  overview.letters.show(count(letters), `in the table; ${count(since)} since start`, letters > 0 ? "warn" : "");
  const title = troubled === 0 ? "jetcopy" : `(${troubled}) jetcopy`;
  if (document.title !== title) document.title = title;
}

/** Streams with messages of shards that are no longer configured. */
function showLeftBehind(all) {
  const callouts = all.map(({ stream, messages, checkpoint, shard, remedy }) => {
    const what = `Stream ${stream} still holds up to ${count(messages)} messages`;
    const why = `after sequence ${count(checkpoint)} that nobody reads: shard ${shard} is no longer configured.`;
    const fix = el("p", { className: "remedy" });
    tell(fix, `To fix it: ${remedy}`);
    return el("div", { className: "callout" }, el("p", {}, `${what} ${why}`), fix);
  });
  const list = place("left-behind");
  // What is read aloud when it changes is not touched when it does not.
  const text = callouts.map(({ textContent }) => textContent).join("");
  if (list.textContent !== text) list.replaceChildren(...callouts);
}

/** Where several daemons share the database: who has what. */
function showDaemons(all) {
  place("daemons").hidden = all.length < 2;
  const rows = all.map((daemon) => {
    const notes = [];
    if (daemon.overdue) notes.push(`not heard for ${span(daemon.silent_seconds)}`);
    if (daemon.drained_by !== null) notes.push(`drained by ${daemon.drained_by}`);
    if (daemon.unable.length > 0) notes.push(`cannot run ${daemon.unable.join(", ")}`);
    const shards = daemon.shards.map(({ shard, seconds }) => `${shard} for ${span(seconds)}`);
    return [
      `${daemon.host} (${daemon.daemon})`,
      span(daemon.up_seconds),
      rate(daemon.messages_per_second),
      `${daemon.shards.length} of ${daemon.configured}: ${shards.join(", ") || "none"}`,
      notes.join("; "),
    ];
  });
  const cells = rows.map((row) => el("tr", {}, ...row.map((text) => el("td", {}, text))));
  place("daemon-rows").replaceChildren(...cells);
}

function showPipelines(all, now) {
  const few = all.length <= FEW;
  for (const status of all) {
    let shown = pipelines.get(key(status));
    if (!shown) {
      shown = new Pipeline();
      shown.details.open = few;
      pipelines.set(key(status), shown);
    }
    shown.update(status, now);
  }
  const present = new Set(all.map(key));
  for (const [known, shown] of pipelines) {
    if (present.has(known)) continue;
    shown.element.remove();
    pipelines.delete(known);
    histories.delete(known);
  }
  arrange(all.map((status) => pipelines.get(key(status))));
}

/** Those that need an operator come first; otherwise, in the order of the configuration. */
function arrange(inOrder) {
  const sorted = inOrder.toSorted((one, other) => one.rank - other.rank);
  const list = place("pipelines");
  sorted.forEach(({ element }, index) => {
    // Moving an element drops the focus within it: only what is out of place is moved.
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
  place("filter").hidden = inOrder.length < MANY;
  const text = place("filter-name").value.trim().toLowerCase();
  const onlyTrouble = place("filter-trouble").checked;
  let found = 0;
  for (const shown of sorted) {
    const matches = shown.matches(text, onlyTrouble);
    shown.element.hidden = !matches;
    found += matches;
  }
  say(place("filter-count"), text || onlyTrouble ? `${found} of ${sorted.length}` : "");
}

/** Adds the new samples to those that are known. */
function remember(since) {
  const { every_seconds: every, kept } = since;
  if (since.next !== next) sampledAt = Date.now();
  next = since.next;
  for (const series of since.pipelines) {
    const known = histories.get(key(series));
    for (const [name, values] of Object.entries(series)) {
      if (Array.isArray(values)) series[name] = [...(known?.[name] ?? []), ...values].slice(-kept);
    }
    histories.set(key(series), series);
    pipelines.get(key(series))?.remember(series, { kept, every, at: sampledAt });
  }
}

let asking = null;

/** One request at a time: a second caller gets the answer to the first. */
function refresh() {
  asking ??= update().finally(() => (asking = null));
  return asking;
}

async function update() {
  const link = place("link");
  try {
    const status = await ask("/status");
    showDaemon(status);
    showOverview(status.pipelines);
    showDaemons(status.daemons);
    showLeftBehind(status.left_behind);
    showPipelines(status.pipelines, new Date(status.now));
    remember(await ask(`/status/history?after=${next}`));
    heardAt = new Date();
    say(link, "● live");
    link.dataset.tone = "ok";
    document.body.classList.remove("stale");
  } catch {
    const since = heardAt === null ? "" : `; showing data from ${moment(heardAt)}`;
    say(link, `▲ the daemon does not answer${since}`);
    link.dataset.tone = "bad";
    document.body.classList.toggle("stale", heardAt !== null);
  }
}

place("filter").addEventListener("submit", (event) => event.preventDefault());
place("filter").addEventListener("input", () => arrange([...pipelines.values()]));
// A hidden page asks for nothing; it is refreshed as soon as it is visible again.
document.addEventListener("visibilitychange", () => document.hidden || refresh());

while (true) {
  if (!document.hidden) await refresh();
  await new Promise((resolve) => setTimeout(resolve, ASK_EVERY));
}
