// A run's log as it grows: it follows, searches and wraps, and keeps no more than a browser bears.

import { plain, write } from "./ansi.js";

const MOST_LINES = 5000;
const AGAIN_MS = 3000;

const card = document.querySelector("[data-log]");
const lines = card.querySelector("[data-lines]");
const count = card.querySelector("[data-count]");
const find = card.querySelector("[data-find]");
const followButton = card.querySelector("[data-follow]");

let following = true;
let style = plain();
let rest = "";
let total = 0;
let sought = "";
let reading = null;
let over = false;

function append(text) {
  const whole = rest + text;
  const pieces = whole.split("\n");
  rest = pieces.pop();
  if (!pieces.length) return;
  const fragment = document.createDocumentFragment();
  for (const piece of pieces) fragment.append(made(piece));
  lines.append(fragment);
  while (lines.childElementCount > MOST_LINES) lines.firstElementChild.remove();
  told();
  if (following) lines.scrollTop = lines.scrollHeight;
}

function made(text) {
  const line = document.createElement("div");
  // What a progress bar writes over itself is shown as it was last.
  const kept = text.replace(/\r$/, "");
  style = write(line, kept.slice(kept.lastIndexOf("\r") + 1), style);
  if (!line.hasChildNodes()) line.append("\u200b");
  total += 1;
  if (sought) line.hidden = !line.textContent.toLowerCase().includes(sought);
  return line;
}

function told() {
  const shown = sought ? [...lines.children].filter((line) => !line.hidden).length : null;
  const gone = total > MOST_LINES ? `, the last ${MOST_LINES} of them here` : "";
  count.textContent = shown === null ? `${total} ${total === 1 ? "line" : "lines"}${gone}` : `${shown} of ${total} lines`;
}

async function read() {
  for (;;) {
    reading = new AbortController();
    const { signal } = reading;
    try {
      const place = `${card.dataset.log}?follow=1&tail=${MOST_LINES}`;
      const answer = await fetch(place, { credentials: "same-origin", signal });
      if (!answer.ok) throw new Error(String(answer.status));
      lines.replaceChildren();
      [style, rest, total] = [plain(), "", 0];
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) append(part.value);
      if (rest) append("\n");
      if (!total) count.textContent = "nothing was written";
      over = true;
      return;
    } catch {
      if (signal.aborted) return;
      count.textContent = "the engine does not answer; trying again";
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

find.addEventListener("input", () => {
  sought = find.value.toLowerCase();
  for (const line of lines.children) line.hidden = sought !== "" && !line.textContent.toLowerCase().includes(sought);
  told();
});

function follow(wanted) {
  following = wanted;
  followButton.setAttribute("aria-pressed", String(wanted));
  if (wanted) lines.scrollTop = lines.scrollHeight;
}

followButton.addEventListener("click", () => follow(!following));
lines.addEventListener("scroll", () => {
  const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 24;
  if (atEnd !== following) follow(atEnd);
});
card.querySelector("[data-wrap]").addEventListener("click", (event) => {
  const wrapped = lines.classList.toggle("wrapped");
  event.currentTarget.setAttribute("aria-pressed", String(wrapped));
});

// A browser has six connections for one machine: a tab that nobody sees holds none.
document.addEventListener("visibilitychange", () => {
  if (over) return;
  if (document.hidden) reading?.abort();
  else if (reading?.signal.aborted) read();
});

read();
