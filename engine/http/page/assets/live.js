// Keeps the page as it is in the engine: at each sign of change the page is fetched again, and what differs in its
// living parts is put in place. What one types, opens or reads stays.

import { setClock, tick } from "./clocks.js";

const POLL_MS = 5000;
const TOLD_POLL_MS = 20000; // while the engine tells of changes by itself
const SOONEST_MS = 1500; // two refreshes are so far apart at least
const SLOWEST_MS = 60000;
const KINDS = ["run", "event", "trigger", "alert", "reset"];

let last = 0;
let waiting = null;
let failures = 0;
let stream = null;
let busy = false;

// What takes long to find out is fetched once the page stands.
export async function later() {
  for (const part of document.querySelectorAll("[data-later]")) {
    try {
      const answer = await fetch(part.dataset.later, { credentials: "same-origin", headers: { Accept: "text/html" } });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
      if (!fresh) throw new Error(String(answer.status));
      morph(part, fresh);
    } catch {
      part.querySelector("[role=status]").textContent = "It could not be found out now.";
    }
  }
}

export function follow() {
  if (!document.querySelector("[data-live]")) return;
  // A browser has six connections for one machine: a tab that nobody sees holds none.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) leave();
    else {
      listen();
      soon(0);
    }
  });
  if (!document.hidden) listen();
  soon(POLL_MS);
}

export function refreshNow() {
  return refresh();
}

// The engine tells of changes; where it does not (too many listen, or it was started anew), the page asks now and then.
function listen() {
  if (stream) return;
  stream = new EventSource("/api/v1/stream");
  for (const kind of KINDS) stream.addEventListener(kind, () => soon(SOONEST_MS));
  stream.onerror = () => {
    if (stream?.readyState === EventSource.CLOSED) stream = null;
  };
}

function leave() {
  stream?.close();
  stream = null;
}

function pause() {
  return stream?.readyState === EventSource.OPEN ? TOLD_POLL_MS : POLL_MS;
}

function soon(after) {
  if (document.hidden) return;
  if (waiting !== null) {
    if (after >= POLL_MS) return;
    clearTimeout(waiting);
  }
  waiting = setTimeout(refresh, Math.max(after, SOONEST_MS - (performance.now() - last), 0));
}

async function refresh() {
  waiting = null;
  if (busy || document.querySelector("dialog[open]")) {
    soon(POLL_MS);
    return;
  }
  busy = true;
  last = performance.now();
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname === "/sign-in") {
      location.assign(answer.url);
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    failures = 0;
    seen(true);
  } catch {
    failures += 1;
    if (failures > 1) seen(false);
  } finally {
    busy = false;
    soon(Math.min(pause() * 2 ** failures, SLOWEST_MS));
  }
}

let seenAt = new Date();

function seen(well) {
  const note = document.querySelector(".offline");
  if (well) seenAt = new Date();
  else note.querySelector("[data-seen]").textContent = seenAt.toLocaleTimeString();
  note.hidden = well;
}

function take(fresh) {
  setClock(fresh.body.dataset.now);
  document.title = fresh.title;
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other && !part.isEqualNode(other)) morph(part, other);
  }
  tick();
  document.dispatchEvent(new CustomEvent("page:fresh"));
}

// Makes one element like another, and leaves what is alike as it stands: so focus, selection and open parts stay.
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.localName === "dialog" || "keep" in old.dataset) return;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.localName === "details")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !(name === "open" && old.localName === "details")) old.setAttribute(name, value);
  }
  const byId = new Map([...old.children].filter((one) => one.id).map((one) => [one.id, one]));
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const kept = wanted.id ? byId.get(wanted.id) : null;
    if (kept) {
      if (kept !== place) old.insertBefore(kept, place);
      else place = place.nextSibling;
      morph(kept, wanted);
    } else if (place && !place.id && !wanted.id) {
      const following = place.nextSibling;
      morph(place, wanted);
      place = following;
    } else {
      old.insertBefore(wanted, place);
    }
  }
  while (place) {
    const following = place.nextSibling;
    place.remove();
    place = following;
  }
}
