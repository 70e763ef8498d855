// The page: asks for the report every two seconds, and draws it.

import { after_action } from "./actions.js";
import { SAMPLES } from "./plot.js";
import { find, say, seconds } from "./render.js";
import { offer, prepare } from "./request.js";
import { draw_endpoints, draw_faults, draw_models, draw_partitions, draw_summary } from "./sections.js";

const EVERY = 2000;
const PATIENCE = 8000;

/** The samples that have come, by endpoint and route. */
class Histories {
  #series = new Map();
  last = 0;

  /** Returns the samples of an endpoint, or of a route of it. */
  of(endpoint, route) {
    const key = `${endpoint}\n${route ?? "\n"}`;
    if (!this.#series.has(key)) this.#series.set(key, { requests: [], faults: [], p95_ms: [] });
    return this.#series.get(key);
  }

  /** Adds the samples of a report, which come after those that are there. */
  add(status) {
    for (const { name, history, routes } of status.endpoints) {
      this.#append(this.of(name), history);
      routes.forEach((route) => this.#append(this.of(name, route.alias), route.history));
    }
    this.last = status.history.last;
  }

  #append(series, samples) {
    for (const [name, values] of Object.entries(samples ?? {})) series[name] = [...series[name], ...values].slice(-SAMPLES);
  }
}

let histories = new Histories();
let started = null;
let answered = null;
let timer;
let asking = false;

async function ask() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  let wait = EVERY;
  try {
    const answer = await fetch(`status?after=${histories.last}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const status = await answer.json();
    if (started !== null && started !== status.started) {
      // Another run of the server counts its samples from the start.
      [histories, started, wait] = [new Histories(), null, 0];
    } else {
      started = status.started;
      histories.add(status);
      answered = new Date();
      draw(status);
    }
  } catch {
    lost();
  }
  asking = false;
  // A page that nobody sees asks for nothing.
  if (!document.hidden) timer = setTimeout(ask, wait);
}

function draw(status) {
  const run = seconds(Math.max(0, status.now - status.started) / 1000);
  say(find("about"), `${status.version}, role ${status.role}, up ${run}`);
  const waits = Object.entries(status.waits_for).map(([part, why]) => `${part}: ${why}`);
  state(status.ready ? "ready" : "wait", status.ready ? "Ready" : `Not ready. ${waits.join("; ")}`);
  draw_summary(status);
  draw_endpoints(status, histories);
  draw_models(status);
  draw_partitions(status);
  draw_faults(status);
  offer(status);
}

function lost() {
  const since = answered ? ` since ${answered.toLocaleTimeString("en-GB")}` : "";
  state("lost", `No answer${since}; asking again`);
}

function state(kind, text) {
  say(find("state-text"), text);
  if (document.body.dataset.state === kind) return;
  document.body.dataset.state = kind;
  document.title = kind === "ready" ? "Signalbox" : `${kind === "lost" ? "No answer" : "Not ready"} – Signalbox`;
  // It is read out when it changes, not each time that its seconds do.
  say(find("announcement"), text);
}

document.addEventListener("visibilitychange", () => !document.hidden && ask());
after_action(ask);
prepare(ask);
ask();
