// Plots of the last quarter of an hour, drawn as SVG.

import { draw, make, mark, milliseconds, rate, say } from "./render.js";

/** Samples in a plot. */
export const SAMPLES = 180;

const HEIGHT = 100;

/** Makes a plot with its caption; `small` is one without, for a row of a table. */
export function make_plot(small) {
  const drawing = draw("svg", {
    viewBox: `0 0 ${SAMPLES - 1} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "plot", focusable: "false",
  });
  for (const name of ["area", "line", "faults"]) drawing.append(draw("path", { class: name, d: "" }));
  if (small) return drawing;
  const figure = make("figure", {}, make("figcaption", {}, make("span", { class: "of" }), make("span", { class: "most quiet" })), drawing);
  figure.append(make("p", { class: "axis quiet", "aria-hidden": "true" }, make("span", {}, "15 min ago"), make("span", {}, "now")));
  return figure;
}

/** Draws requests per second, and those of them that ended with a fault. */
export function draw_requests(plot, history, interval) {
  const most = Math.max(1, ...history.requests);
  paths(plot, history.requests, history.faults, most);
  const [total, faults] = [history.requests, history.faults].map((values) => values.reduce((sum, value) => sum + value, 0));
  const peak = total === 0 ? "none" : `at most ${rate(Math.max(...history.requests), interval)}`;
  caption(plot, "Requests", peak, `Requests of the last 15 minutes: ${peak}${faults > 0 ? `, ${faults} with a fault` : ""}`);
}

/** Draws the 95th percentile of the requests' times. */
export function draw_times(plot, history) {
  const known = history.p95_ms.filter((time) => time !== null).sort((one, other) => one - other);
  const longest = known.at(-1) ?? 0;
  // One cold start must not make all other times look alike: a peak far above nearly all of them is cut.
  const usual = (known[Math.floor(known.length * 0.97) - 1] ?? longest) * 1.5;
  const most = Math.max(0.1, Math.min(longest, usual));
  paths(plot, history.p95_ms, [], most);
  const peak = known.length === 0 ? "none" : `at most ${milliseconds(longest)}${longest > most ? `, drawn up to ${milliseconds(most)}` : ""}`;
  caption(plot, "p95", peak, `95th percentile of the last 15 minutes: ${peak}`);
}

function caption(plot, of, most, words) {
  const drawing = plot.tagName === "FIGURE" ? plot.querySelector("svg") : plot;
  mark(drawing, "aria-label", words);
  if (drawing === plot) return;
  say(plot.querySelector(".of"), of);
  say(plot.querySelector(".most"), most);
}

function paths(plot, values, faults, most) {
  const drawing = plot.tagName === "FIGURE" ? plot.querySelector("svg") : plot;
  const [area, line, bad] = drawing.children;
  mark(area, "d", shape(values, most, true));
  mark(line, "d", shape(values, most, false));
  mark(bad, "d", faults.some((value) => value > 0) ? shape(faults, most, true) : "");
}

/** Writes the path of values, of which the last is now; a value that is null leaves a gap. */
function shape(values, most, is_closed) {
  const first = SAMPLES - values.length;
  const y = (value) => (HEIGHT - (value / most) * (HEIGHT - 4) - 1).toFixed(1);
  let path = "";
  let begun = null;
  const end = (index) => {
    if (is_closed && begun !== null) path += `V${HEIGHT}H${begun}Z`;
    begun = null;
    return index;
  };
  values.forEach((value, index) => {
    if (value === null) return end(index);
    const x = first + index;
    if (begun === null) [path, begun] = [`${path}M${x} ${y(value)}`, x];
    else path += `L${x} ${y(value)}`;
    // A value between two gaps is a dot, as wide as a sample.
    if (values[index + 1] === null && values[index - 1] === null) path += "h0.6";
  });
  end(values.length);
  return path;
}
