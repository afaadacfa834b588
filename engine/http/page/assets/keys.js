// The keyboard: `/` searches, `?` helps, `g` and a letter opens a page, `j` and `k` go through the rows.

import { refreshNow } from "./live.js";

const GO_MS = 1500;
let going = 0;

export function listen(switchTheme) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    if (going && performance.now() - going < GO_MS) {
      going = 0;
      const link = document.querySelector(`.side a[data-key="${CSS.escape(event.key)}"]`);
      if (link) {
        event.preventDefault();
        link.click();
      }
      return;
    }
    const act = {
      "/": () => document.getElementById("search").focus(),
      "?": () => document.getElementById("help").showModal(),
      g: () => (going = performance.now()),
      r: refreshNow,
      t: switchTheme,
      j: () => step(1),
      k: () => step(-1),
      Enter: open,
    }[event.key];
    if (!act) return;
    if (event.key === "Enter" && !(event.target === document.body || event.target.id === "main")) return;
    event.preventDefault();
    act();
  });
}

function isTyping(element) {
  return element.closest("input, textarea, select, [contenteditable]") !== null;
}

function rows() {
  return [...document.querySelectorAll("main .row, main tbody tr, main [role=row]:not(.head)")].filter((row) =>
    row.querySelector("a"),
  );
}

function step(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("chosen"));
  all[at]?.classList.remove("chosen");
  const chosen = all[Math.min(Math.max(at + by, 0), all.length - 1)];
  chosen.classList.add("chosen");
  chosen.scrollIntoView({ block: "nearest" });
}

function open() {
  const chosen = document.querySelector("main .chosen");
  (chosen?.querySelector("a[data-row]") ?? chosen?.querySelector("a"))?.click();
}
