// One screen after the other.

import { h } from "./dom.js";

/** Paragraphs of a plain text: empty lines part them. */
export function paragraphs(text) {
  return text.split(/\n\s*\n/).filter((part) => part.trim()).map((part) => h("p", {}, part.trim()));
}

/** Show a screen: replaces the page's main part and moves the focus to its heading. */
export function show(...children) {
  const main = document.querySelector("main");
  main.replaceChildren(...children);
  const heading = main.querySelector("h1");
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
  window.scrollTo(0, 0);
  return main;
}

/** Tell screen readers something. */
export function announce(text) {
  const region = document.querySelector("#announcer");
  if (region.textContent !== text) region.textContent = text;
}
