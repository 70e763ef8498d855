// Sections of the page, each drawn from the report of the server.

import { abort, load, restart, unload } from "./actions.js";
import { draw_requests, draw_times, make_plot } from "./plot.js";
import { NOTHING, about, ago, bytes, count, find, join, keep, make, mark, milliseconds, percent, rate, say, seconds, show } from "./render.js";

const STEPS = {
  read: "it has not begun",
  deciding: "its route is being decided",
  waiting: "it waits for its model",
  calling: "its model is being called",
  publishing: "its answer is being published",
};

const BREAKERS = { closed: "breaker closed", half_open: "breaker half-open", open: "breaker open" };

export function draw_summary(status) {
  const all = { requests: 0, faults: 0, seconds: 0 };
  for (const { recent } of status.endpoints) {
    all.requests += recent.requests;
    all.faults += recent.faults;
    all.seconds = Math.max(all.seconds, recent.seconds);
  }
  const slowest = Math.max(...status.endpoints.map(({ recent }) => recent.p95_ms ?? -1));
  const { load: now, models } = status;
  const lag = status.partitions.reduce((sum, partition) => sum + (partition.lag ?? 0), 0);
  const figures = [
    ["Requests", rate(all.requests, all.seconds), "", ""],
    ["Faults", percent(all.requests === 0 ? 0 : all.faults / all.requests), "", all.faults > 0 ? "bad" : ""],
    ["p95", slowest < 0 ? NOTHING : milliseconds(slowest), status.endpoints.length > 1 ? "slowest endpoint" : "", ""],
  ];
  if (status.role !== "shim") {
    const is_old = now.oldest_seconds > 60;
    figures.push(
      ["In flight", count(now.in_flight), now.paused ? "limit reached, paused" : `of ${count(now.in_flight_limit)}`, now.paused ? "warn" : ""],
      ["Oldest", about(now.in_flight > 0 ? now.oldest_seconds : 0), "", is_old ? "warn" : ""],
      ["Lag", count(lag), "", ""],
    );
  }
  if (status.role !== "router") figures.push(["Callers", count(now.callers), "waiting", ""]);
  if (models) {
    const loaded = models.models.filter((model) => model.state === "loaded").length;
    figures.push(["Models", count(loaded), "loaded", ""]);
  }
  keep(find("summary"), figures, ([name]) => name,
    ([name]) => make("div", {}, make("dt", {}, name), make("dd", {}, make("span", { class: "figure" }), make("span", { class: "quiet" }))),
    (cell, [, figure, note, tone]) => {
      const [value, small] = cell.lastElementChild.children;
      say(value, figure);
      say(small, note);
      mark(value, "data-tone", tone);
    });
}

export function draw_endpoints(status, histories) {
  const canaries = new Map(status.canaries.map((canary) => [`${canary.endpoint}\n${canary.route}`, canary]));
  keep(find("endpoint-list"), status.endpoints, ({ name }) => name, make_endpoint, (article, endpoint) => {
    const { requests, seconds: time, faults, p50_ms, p95_ms } = endpoint.recent;
    const bad = faults > 0 ? `${percent(faults / requests)} faults` : "";
    say(article.parts.now, requests === 0 ? "no requests of late" : join(rate(requests, time), `p50 ${milliseconds(p50_ms)}`, `p95 ${milliseconds(p95_ms)}`));
    say(article.parts.bad, bad);
    const history = histories.of(endpoint.name);
    draw_requests(article.parts.requests, history, status.history.interval_seconds);
    draw_times(article.parts.times, history);
    keep(article.parts.rows, endpoint.routes, ({ alias }) => alias, make_route, (row, route) => {
      draw_route(row, route, canaries.get(`${endpoint.name}\n${route.alias}`), status);
      draw_requests(row.parts.plot, histories.of(endpoint.name, route.alias), status.history.interval_seconds);
    });
  });
}

function make_endpoint({ name }) {
  const parts = {
    now: make("span", { class: "now" }), bad: make("span", { class: "now", "data-tone": "bad" }),
    requests: make_plot(false), times: make_plot(false), rows: make("tbody"),
  };
  const columns = [["Route"], ["Share"], ["Rate", "number"], ["Faults", "number"], ["p50", "number"], ["p95", "number"], ["State"], ["Last 15 min"]];
  const head = columns.map(([title, kind]) => make("th", { scope: "col", class: kind }, title));
  const table = make("table", {}, make("caption", { class: "unseen" }, `Routes of ${name}`), make("thead", {}, make("tr", {}, ...head)), parts.rows);
  const article = make("article", { class: "endpoint", "aria-label": `Endpoint ${name}` },
    make("header", {}, make("h3", {}, name), parts.now, parts.bad),
    make("div", { class: "plots" }, parts.requests, parts.times),
    make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Routes of ${name}, a table that scrolls` }, table));
  article.parts = parts;
  return article;
}

function make_route({ alias }) {
  const cell = (kind) => make("td", { class: kind });
  const parts = {
    uri: make("span", { class: "uri" }), rule: make("span", { class: "quiet" }),
    bar: make("span", { class: "fill" }), share: make("span"),
    rate: cell("number"), faults: cell("number"), p50: cell("number"), p95: cell("number"),
    breaker: make("span", { class: "badge" }), canary: make("span", { class: "canary" }), plot: make_plot(true),
    buttons: make("span", { class: "buttons" }),
  };
  const name = make("th", { scope: "row" }, make("span", { class: alias ? "alias" : "alias quiet" }, alias || "no route"), parts.uri, parts.rule);
  const row = make("tr", {}, name,
    make("td", { class: "share" }, parts.share, make("span", { class: "bar", "aria-hidden": "true" }, parts.bar)),
    parts.rate, parts.faults, parts.p50, parts.p95,
    make("td", { class: "conditions" }, parts.breaker, parts.canary, parts.buttons), make("td", { class: "spark" }, parts.plot));
  row.parts = parts;
  return row;
}

function draw_route(row, route, canary, status) {
  const { parts } = row;
  const { requests, faults, seconds: time, p50_ms, p95_ms } = route.recent;
  const weight = route.weight !== null && route.weight < 1 ? `weight ${percent(route.weight)}` : "";
  const rule = join(route.conditional ? "by condition" : "", weight,
    route.fallback ? `falls back to ${route.fallback}` : "", route.shadow ? `shadow ${route.shadow}` : "");
  const is_known = status.role !== "shim" || route.alias === "";
  say(parts.uri, route.alias ? route.model_uri : "");
  say(parts.rule, route.alias ? rule : (status.role === "shim" ? "other processes choose the routes" : "requests that came to none"));
  say(parts.share, is_known ? percent(route.share) : NOTHING);
  parts.bar.style.width = `${((is_known && route.share) || 0) * 100}%`;
  say(parts.rate, is_known ? rate(requests, time) : NOTHING);
  say(parts.faults, is_known ? (requests === 0 ? "0 %" : percent(faults / requests)) : NOTHING);
  mark(parts.faults, "data-tone", faults > 0 ? "bad" : "");
  mark(parts.faults, "title", Object.entries(route.requests).map(([code, times]) => `${code}: ${count(times)}`).join(", ") || "no request since the start");
  say(parts.p50, milliseconds(p50_ms));
  say(parts.p95, milliseconds(p95_ms));
  show(parts.breaker, route.breaker !== null);
  say(parts.breaker, BREAKERS[route.breaker] ?? "");
  mark(parts.breaker, "data-tone", { closed: "good", half_open: "warn", open: "bad" }[route.breaker] ?? "");
  show(parts.canary, Boolean(canary));
  show(parts.buttons, Boolean(canary?.standing));
  if (canary) draw_canary(parts, canary);
}

function draw_canary(parts, canary) {
  const standing = canary.standing;
  const steps = `step ${(standing?.step ?? 0) + 1} of ${canary.steps.length}`;
  const words = !standing ? "canary: its state is being read"
    : standing.phase === "aborted" ? `canary taken back at ${steps}${standing.reason ? `: ${standing.reason}` : ""}`
    : standing.phase === "done" ? `canary done, ${canary.share} %`
    : `canary at ${canary.share} %, ${steps}`;
  say(parts.canary, words);
  mark(parts.canary, "data-tone", standing?.phase === "aborted" ? "warn" : "");
  parts.now = canary;
  if (parts.buttons.childElementCount === 0) {
    for (const [verb, act] of [["Restart", restart], ["Abort", abort]]) {
      const button = make("button", { type: "button", class: "small", "aria-label": `${verb} the canary ${canary.route}` }, verb);
      button.addEventListener("click", () => act(parts.now, button));
      parts.buttons.append(button);
    }
  }
  // A canary that is taken back can only be restarted.
  show(parts.buttons.lastElementChild, standing?.phase !== "aborted");
}

export function draw_models(status) {
  const models = status.models?.models ?? [];
  const following = status.models?.following ?? [];
  const memory = status.models?.memory;
  say(find("models-memory"), memory && models.length > 0 ? `${bytes(memory.used)}${memory.limit ? ` of ${bytes(memory.limit)}` : ""}` : "");
  show(find("models-empty"), models.length === 0);
  const empty = !status.models ? "This process loads no models: those that do are of --role router or all."
    : following.length > 0 ? "No version is known yet. A model is loaded when it is first called."
    : "No route has a model of the registry or of a directory: built-in models and addresses need no loading.";
  say(find("models-empty"), empty);
  show(find("models-scroll"), models.length > 0);
  keep(find("model-rows"), models, ({ id, python, runtime, created }) => [id, python, runtime, created].join("\n"), make_model,
    (row, model) => draw_model(row, model, status.now));
  show(find("following"), following.length > 0);
  keep(find("following-rows"), following, ({ model_uri, python, runtime }) => [model_uri, python, runtime].join("\n"), make_following, draw_following);
}

function make_model() {
  const cell = (kind) => make("td", { class: kind });
  const parts = {
    id: make("th", { scope: "row", class: "alias" }), state: make("span", { class: "badge" }), reason: make("span", { class: "quiet reason" }),
    serves: cell("uri"), memory: cell("number"), uses: cell("number"), calls: cell("number"), last: cell("ago"), took: cell("number"),
    button: make("button", { type: "button", class: "small" }),
  };
  const row = make("tr", {}, parts.id, make("td", {}, parts.state, parts.reason), parts.serves, parts.memory, parts.uses, parts.calls, parts.last, parts.took, make("td", {}, parts.button));
  parts.button.addEventListener("click", () => (parts.now.state === "loaded" ? unload : load)(parts.now.id, parts.button));
  row.parts = parts;
  return row;
}

const TONES = { loaded: "good", loading: "warn", failed: "bad" };

function draw_model({ parts }, model, now) {
  parts.now = model;
  say(parts.id, model.id);
  say(parts.state, model.state);
  mark(parts.state, "data-tone", TONES[model.state] ?? "");
  say(parts.reason, join(model.reason, model.example && `its own example fails: ${model.example}`));
  say(parts.serves, model.serves.join(", ") || NOTHING);
  say(parts.memory, bytes(model.memory));
  say(parts.uses, count(model.in_use));
  say(parts.calls, count(model.calls));
  say(parts.last, model.last_use === null ? "never" : ago(Math.max(0, (now - model.last_use) / 1000)));
  say(parts.took, model.load_seconds === null ? NOTHING : milliseconds(model.load_seconds * 1000));
  const verb = model.state === "loaded" ? "Unload" : "Load";
  say(parts.button, verb);
  mark(parts.button, "aria-label", `${verb} ${model.id}`);
  if (model.state === "loading") parts.button.disabled = true;
  else if (parts.state_before === "loading") parts.button.disabled = false;
  parts.state_before = model.state;
}

function make_following() {
  const parts = { uri: make("th", { scope: "row", class: "uri" }), version: make("td", { class: "version" }), note: make("td", { class: "reason" }) };
  const row = make("tr", {}, parts.uri, parts.version, parts.note);
  row.parts = parts;
  return row;
}

function draw_following({ parts }, following) {
  const { pending } = following;
  say(parts.uri, following.model_uri);
  say(parts.version, following.version ? `version ${following.version}` : "not asked yet");
  const note = following.reason ?? (!pending ? ""
    : pending.version === null ? pending.reason ?? "it names no version any more"
    : pending.reason ? `version ${pending.version} does not take its place: ${pending.reason}`
    : `version ${pending.version} is being loaded`);
  say(parts.note, note);
  mark(parts.note, "data-tone", following.reason || pending?.reason ? "warn" : "");
}

export function draw_partitions(status) {
  const { partitions } = status;
  const topics = new Set(partitions.map(({ topic }) => topic));
  show(find("partitions-empty"), partitions.length === 0);
  say(find("partitions-empty"), status.role === "shim"
    ? "This process reads no requests: those that do are of --role router or all."
    : "No partition is assigned to this instance. It may be starting, or the group has more members than the topic has partitions.");
  show(find("partitions-scroll"), partitions.length > 0);
  keep(find("partition-rows"), partitions, ({ topic, partition }) => `${topic}\n${partition}`, make_partition, draw_partition);
  const parked = Object.entries(status.load.parked).filter(([, requests]) => requests > 0);
  say(find("parked"), parked.map(([topic, requests]) => `${count(requests)} wait in ${topic}.`).join(" "));
  mark(find("partitions-scroll"), "data-topics", topics.size > 1 ? "many" : "one");
}

function make_partition() {
  const cell = (kind) => make("td", { class: kind });
  const parts = { topic: cell(), number: make("th", { scope: "row", class: "number" }), lag: cell("number"), flight: cell("number"), oldest: cell("number"), holds: cell("reason") };
  const row = make("tr", {}, ...Object.values(parts));
  row.parts = parts;
  return row;
}

function draw_partition({ parts }, partition) {
  const { oldest } = partition;
  say(parts.topic, partition.topic);
  say(parts.number, String(partition.partition));
  say(parts.lag, count(partition.lag));
  say(parts.flight, count(partition.in_flight));
  say(parts.oldest, oldest ? seconds(oldest.seconds) : NOTHING);
  const where = oldest?.route ? ` (${oldest.route} of ${oldest.endpoint})` : "";
  const held = partition.held > 0 ? `${count(partition.held)} more may not begin yet` : "";
  say(parts.holds, oldest ? join(`offset ${oldest.offset}: ${STEPS[oldest.step] ?? oldest.step}${where}`, held) : held);
  mark(parts.oldest, "data-tone", oldest?.seconds > 60 ? "warn" : "");
}

export function draw_faults(status) {
  show(find("faults-empty"), status.faults.length === 0);
  show(find("faults-scroll"), status.faults.length > 0);
  keep(find("fault-rows"), status.faults, (fault) => [fault.endpoint, fault.route, fault.error_code, fault.stage].join("\n"), make_fault, draw_fault);
}

function make_fault() {
  const parts = {
    last: make("td", { class: "ago" }), code: make("th", { scope: "row" }), where: make("td"), times: make("td", { class: "number" }), reason: make("td", { class: "reason" }),
  };
  const row = make("tr", {}, ...Object.values(parts));
  row.parts = parts;
  return row;
}

const STAGES = { route: "while its route was chosen", load: "while its model was loaded", invoke: "while its model was called", publish: "while its answer was published or waited for" };

function draw_fault({ parts }, fault) {
  say(parts.last, ago(fault.seconds_ago));
  say(parts.code, `${fault.status} ${fault.error_code}`);
  say(parts.where, [fault.endpoint, fault.route].filter(Boolean).join(" / ") || "no endpoint");
  mark(parts.where, "title", STAGES[fault.stage] ?? "");
  say(parts.times, count(fault.times));
  say(parts.reason, fault.reason);
}
