// Elements without markup: every text from outside becomes a text node.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

export const make = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
export const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const MARKS = {
  online: "●",
  offline: "✕",
  unknown: "?",
  degraded: "▲",
  missing: "✕",
  mixed: "▲",
  ok: "●",
  warning: "▲",
  critical: "✕",
  healthy: "●",
  asleep: "○",
};
export const mark = (word) => MARKS[word] ?? "·";

// Shape and word beside the colour: nobody has to tell red from green.
export const pill = (word, shown = word) =>
  make(
    "span",
    { class: "pill", "data-state": word },
    make("span", { "aria-hidden": "true" }, `${mark(word)} `),
    shown,
  );

// The children as they should be, with as little change as possible: what is the same stays the same element,
// so that focus, selection, hover and scroll outlive every refresh. Elements are matched by id or data-key, else
// by their place. Listeners of elements that stay are not replaced: what changes is listened to from above.
export function replace(element, ...children) {
  const fresh = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  const keyed = new Map();
  for (const old of element.children) if (keyOf(old)) keyed.set(keyOf(old), old);
  let at = element.firstChild;
  for (const child of fresh) {
    const node = typeof child === "object" ? child : document.createTextNode(child);
    const key = keyOf(node);
    const old = key ? keyed.get(key) : at && !keyOf(at) ? at : null;
    if (!old || old.nodeName !== node.nodeName || old.namespaceURI !== node.namespaceURI) {
      element.insertBefore(node, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else element.insertBefore(old, at);
    morph(old, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const keyOf = (node) => node.id || node.dataset?.key || "";

function morph(old, fresh) {
  if (old === fresh || old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes)
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  replace(old, ...fresh.childNodes);
}

// A name of 200 characters keeps its begin and its end: they tell it from the others.
export const shortName = (name, most = 60) => {
  const end = Math.floor(most / 2);
  return name.length <= most ? name : `${name.slice(0, most - end - 1)}…${name.slice(-end)}`;
};

export const SMALL = matchMedia("(max-width: 720px)");
export const PRINT = matchMedia("print");

export function say(words) {
  $("toast").textContent = words;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    $("toast").textContent = "";
  }, 3000);
}

// A text that is copied by a click: an address, a command.
export const copyable = (text, shown = text) =>
  make("button", { type: "button", class: "copy", "data-copy": text, title: "Copy" }, shown);
