// Small helpers that put values into the page. Text is only ever set as text, so no value can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element with attributes and children; a child that is null is left out. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Makes an element of a drawing. */
export function draw(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** Finds an element by its id. */
export const find = (id) => document.getElementById(id);

/** Sets the text of a node, unless it is there already: what does not change is not touched. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute, unless it is there already. */
export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Shows a node, or not. */
export function show(node, is_shown) {
  if (node.hidden === is_shown) node.hidden = !is_shown;
}

/**
 * Keeps one child for each item, in the order of the items. A child stays the same as long as its item has the same key,
 * so that nobody loses the focus or a selection.
 */
export function keep(parent, items, key_of, create, update) {
  const before = (parent.kept ??= new Map());
  const wanted = new Map(items.map((item) => [key_of(item), item]));
  // Those that go are gone first, so that those which stay need not be moved.
  for (const [key, child] of before) {
    if (!wanted.has(key)) child.remove();
  }
  parent.kept = new Map();
  let next = parent.firstElementChild;
  for (const [key, item] of wanted) {
    const child = before.get(key) ?? create(item);
    parent.kept.set(key, child);
    update(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const NOTHING = "–";

export const count = (number) => (number === null || number === undefined ? NOTHING : whole.format(number));

/** Says a rate, such as 12.5/s. */
export function rate(requests, seconds) {
  if (requests === 0) return "0/s";
  const each = requests / Math.max(seconds, 1);
  return each < 0.1 ? "< 0.1/s" : `${each < 100 ? tenth.format(each) : whole.format(each)}/s`;
}

/** Says a part from 0 to 1 in percent. */
export function percent(part) {
  if (part === null || part === undefined) return NOTHING;
  if (part > 0 && part < 0.001) return "< 0.1 %";
  return `${part < 0.1 && part > 0 ? tenth.format(part * 100) : whole.format(part * 100)} %`;
}

/** Says a time in milliseconds. */
export function milliseconds(time) {
  if (time === null || time === undefined) return NOTHING;
  if (time >= 1000) return seconds(time / 1000);
  return `${time < 10 ? tenth.format(time) : whole.format(time)} ms`;
}

/** Says a time in seconds, in two units at most. */
export function seconds(time) {
  if (time < 10) return `${tenth.format(time)} s`;
  if (time < 60) return `${whole.format(time)} s`;
  if (time < 3600) return `${Math.floor(time / 60)} min ${Math.floor(time % 60)} s`;
  if (time < 86400) return `${Math.floor(time / 3600)} h ${Math.floor((time % 3600) / 60)} min`;
  return `${Math.floor(time / 86400)} d ${Math.floor((time % 86400) / 3600)} h`;
}

/** Says a time in seconds, in one unit. */
export const about = (time) => seconds(time).split(" ").slice(0, 2).join(" ");

/** Says how long ago something was. */
export const ago = (time) => (time < 2 ? "just now" : `${seconds(Math.floor(time))} ago`);

/** Says bytes. */
export function bytes(number) {
  if (number === null || number === undefined) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) [number, unit] = [number / 1024, unit + 1];
  return `${number < 10 && unit > 0 ? tenth.format(number) : whole.format(number)} ${units[unit]}`;
}

/** Joins words with commas, without those that are empty. */
export const join = (...words) => words.filter(Boolean).join(", ");
