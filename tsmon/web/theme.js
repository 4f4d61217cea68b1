// Light, dark, or as the system has it; the choice is kept.

import { $, make } from "./dom.js";

const THEMES = ["auto", "light", "dark"];
const KEY = "tsmon-theme";

function show(word) {
  document.documentElement.dataset.theme = word;
  $("theme").replaceChildren(make("span", { class: "wide-only" }, "Theme: "), word);
}

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a browser that keeps nothing forgets the choice
  }
}

export function startTheme() {
  show(THEMES.includes(stored()) ? stored() : "auto");
  $("theme").addEventListener("click", () => {
    show(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
    try {
      localStorage.setItem(KEY, document.documentElement.dataset.theme);
    } catch {
      /* see above */
    }
  });
}
