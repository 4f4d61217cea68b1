// Numbers and times for people: local time, UTC on hover, ages that tick.

import { make } from "./dom.js";

const two = (number) => String(number).padStart(2, "0");

export function local(text) {
  if (!text) return "–";
  const at = new Date(text);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function clock(text) {
  const at = new Date(text);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (at.toDateString() === new Date().toDateString()) return time;
  const year = at.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
  return `${at.toLocaleDateString([], { day: "numeric", month: "short", ...year })} ${time}`;
}

export function length(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400)
    return `${Math.floor(s / 3600)} h${s % 3600 >= 60 ? ` ${Math.floor((s % 3600) / 60)} min` : ""}`;
  return `${Math.floor(s / 86400)} d${s % 86400 >= 3600 ? ` ${Math.floor((s % 86400) / 3600)} h` : ""}`;
}

export const now = () => Date.now();

// One unit is enough in a narrow column.
const short = (words) => words.split(" ").slice(0, 2).join(" ");
const ageOf = (text) => length((now() - Date.parse(text)) / 1000);

export function age(text, before = "", after = "", narrow = false) {
  if (!text) return "–";
  const element = make("time", {
    datetime: text,
    title: `${local(text)} (${text.replace("T", " ").replace("Z", " UTC")})`,
  });
  element.dataset.before = before;
  element.dataset.after = after;
  if (narrow) element.dataset.narrow = "yes";
  tick(element);
  return element;
}

function tick(element) {
  const words = ageOf(element.dateTime);
  const text = `${element.dataset.before}${element.dataset.narrow ? short(words) : words}${element.dataset.after}`;
  if (element.textContent !== text) element.textContent = text; // who marks it keeps the mark
}

// While tsmon does not answer nothing lasts on: "online for" stands still, only what lies back grows older.
export function tickAll(lost = false) {
  for (const element of document.querySelectorAll(lost ? "time[data-after=' ago']" : "time[data-after]"))
    tick(element);
}

export const at = (text, shown = local(text)) =>
  text ? make("time", { datetime: text, title: text.replace("T", " ").replace("Z", " UTC") }, shown) : "–";

// A text of tsmon's with its times as the reader's.
const ISO = /(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)/;
export const prose = (text) => text.split(ISO).map((part) => (ISO.test(part) ? at(part, clock(part)) : part));

export const percent = (value) =>
  value === null || value === undefined ? "–" : `${value === 100 ? "100" : value.toFixed(2)} %`;
export const milliseconds = (value) =>
  value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

export function bytes(value) {
  let number = value;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (number < 1000)
      return `${number < 10 && unit !== "B" ? number.toFixed(1) : Math.round(number)} ${unit}`;
    number /= 1000;
  }
  return `${Math.round(number)} PB`;
}

// The same as plain text: for the title of the page.
export const plain = (text) =>
  text
    .split(ISO)
    .map((part) => (ISO.test(part) ? clock(part) : part))
    .join("");

export const counted = (number, word) => `${number.toLocaleString()} ${word}${number === 1 ? "" : "s"}`;
