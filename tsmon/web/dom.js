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

// Replaces the children only when they differ: the focus and a selection survive a refresh.
export function replace(element, ...children) {
  const fresh = make("div", {}, ...children);
  if (fresh.isEqualNode(element.cloneNode(false)) && !element.hasChildNodes()) return;
  const same =
    element.childNodes.length === fresh.childNodes.length &&
    [...fresh.childNodes].every((node, at) => node.isEqualNode(element.childNodes[at]));
  if (!same) element.replaceChildren(...fresh.childNodes);
}
