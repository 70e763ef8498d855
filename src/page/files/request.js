// The form that sends a request, and shows which route it took and why.

import { find, keep, make, milliseconds, percent, say, show } from "./render.js";

/** Characters of an answer that are shown. */
const LONGEST = 20000;

let role = "all";

/** Offers the endpoints that there are. */
export function offer(status) {
  role = status.role;
  const select = find("request-endpoint");
  keep(select, status.endpoints, ({ name }) => name, ({ name }) => make("option", {}, name), () => {});
  show(find("request-send"), role !== "router");
  show(find("request-explain"), role !== "shim");
}

/** Makes the form work; `sent` is called after each request. */
export function prepare(sent) {
  find("request").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(true).then(sent);
  });
  find("request-explain").addEventListener("click", () => ask(false));
}

async function ask(is_sent) {
  const buttons = [find("request-send"), find("request-explain")];
  const focused = document.activeElement;
  buttons.forEach((button) => (button.disabled = true));
  try {
    const call = { method: "POST", headers: headers(), body: find("request-body").value };
    const explanation = role === "shim" ? null : await explained(call);
    const answer = is_sent ? await send(call) : null;
    answered(explanation, answer);
  } catch (error) {
    find("answer").replaceChildren(make("p", { "data-tone": "bad" }, `The request could not be sent: ${error.message}`));
  }
  buttons.forEach((button) => (button.disabled = false));
  if (buttons.includes(focused)) focused.focus();
}

/** Reads the headers of the form, one a line. */
function headers() {
  const lines = find("request-headers").value.split("\n").filter((line) => line.trim() !== "");
  const pairs = lines.map((line) => {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Error(`a header is “name: value”, and “${line.trim()}” is none.`);
    return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  });
  const own = [["content-type", find("request-type").value], ["x-endpoint", find("request-endpoint").value]];
  return new Headers([...pairs, ...own]);
}

async function explained(call) {
  const answer = await fetch("status/route", call);
  return answer.ok ? await answer.json() : null;
}

async function send(call) {
  const begun = performance.now();
  const answer = await fetch("invocations", call);
  const text = await answer.text();
  return { answer, text, took: performance.now() - begun };
}

/** Shows the route, the reason, and the answer. */
function answered(explanation, sent) {
  const said = (name) => sent?.answer.headers.get(name) ?? null;
  const [route, fell_back] = [said("x-route"), said("x-fallback-from")];
  const chosen = fell_back ?? route ?? explanation?.route ?? null;
  const head = title(explanation, sent, route ?? explanation?.route);
  const reason = explanation ? why(explanation, chosen, sent !== null) : "";
  const parts = [make("h3", {}, head)];
  if (reason) parts.push(make("p", { class: "why" }, reason));
  // The rest is long, and read by whoever wants to.
  say(find("announcement"), `${head}. ${reason}`);
  if (fell_back) parts.push(make("p", {}, `${fell_back} could not answer, so its fallback ${route} did.`));
  const facts = sent
    ? [["Model", said("x-model-uri")], ["Version", said("x-model-version")], ["Calls", said("x-attempts")], ["Correlation id", said("x-correlation-id")]]
    : [["Model", explanation?.model_uri], ["Fallbacks", explanation?.fallbacks?.join(", ")]];
  parts.push(list_of(facts.filter(([, value]) => value)));
  if (explanation) parts.push(...conditions_of(explanation), ...shares_of(explanation));
  if (sent) {
    parts.push(make("h4", {}, "Answer"), make("pre", { tabindex: "0", role: "region", "aria-label": "Answer" }, pretty(sent.text)));
  }
  find("answer").replaceChildren(...parts);
}

function title(explanation, sent, route) {
  if (sent) {
    const where = route ? `Route ${route}` : "No route";
    return `${where}: ${sent.answer.status}, ${milliseconds(sent.took)}`;
  }
  return route ? `Route ${route}` : explanation?.error_code ?? "No route";
}

/** Says why the request took the route: chance may have drawn another one in the explanation than in earnest. */
function why(explanation, chosen, is_sent) {
  if (!is_sent || chosen === null || chosen === explanation.route) return sentence(explanation.reason);
  if (chosen === explanation.canary) return "Chance: it is a canary, and its share fell on it.";
  const share = explanation.shares?.routes.find(({ route }) => route === chosen)?.share;
  const drawn = { round_robin: "Its turn", least_loaded: "It had the least to do" }[explanation.shares?.strategy] ?? "Chance";
  return `${drawn}${share === undefined ? "" : `: its share is ${percent(share)}`}. Another request like this one may go to ${explanation.route}.`;
}

function conditions_of({ conditions }) {
  if (conditions.length === 0) return [];
  const items = conditions.map((condition) => {
    const verdict = condition.error ? `cannot be evaluated: ${condition.error}` : condition.value ? "holds" : "does not hold";
    const tone = condition.error ? "warn" : condition.value ? "good" : "";
    const parts = (condition.parts ?? []).map(({ part, value, error }) => [part, error ?? JSON.stringify(value)]);
    return make("li", {},
      make("code", {}, condition.condition), " ", make("span", { class: "badge", "data-tone": tone }, verdict),
      make("span", { class: "quiet" }, ` → ${condition.routes.join(", ")}`), parts.length > 0 ? list_of(parts, "parts") : null);
  });
  return [make("h4", {}, "Conditions"), make("ol", { class: "plain" }, ...items)];
}

function shares_of({ shares, canary }) {
  if (!shares) return [];
  const { draw: drawn, routes } = shares;
  const words = {
    sticky_by: `By the caller: ${drawn.expression} is ${JSON.stringify(drawn.value)}, who always gets the same route.`,
    chance: drawn.because ? `By chance, since ${drawn.because}.` : "By chance.",
    turn: "In turn.",
    load: "By load: the route with the least to do.",
  }[drawn.by];
  const parts = routes.map(({ route, share }) => (share === undefined ? route : `${route} ${percent(share)}`)).join(", ");
  return [make("h4", {}, "Shares"), make("p", {}, `${parts}. ${words}${canary ? ` The canary ${canary} takes its own share first.` : ""}`)];
}

function list_of(pairs, kind) {
  return make("dl", { class: kind ?? "facts" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

function pretty(text) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // What is no JSON is shown as it is.
  }
  return shown.length > LONGEST ? `${shown.slice(0, LONGEST)}…` : shown;
}
