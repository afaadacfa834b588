// Keeps the page as it is in the engine: at each sign of change the page is fetched again, and what differs in its
// living parts is put in place. What one types, opens or reads stays.

import { setClock, tick } from "./clocks.js";

const POLL_MS = 5000;
const TOLD_POLL_MS = 20000; // while the engine tells of changes by itself
const SOONEST_MS = 1500; // two refreshes are so far apart at least
const SLOWEST_MS = 20000;
const GONE = {
  403: "You may not see this any more.",
  404: "This is not there any more.",
  410: "This is not there any more.",
};
const KINDS = ["run", "event", "trigger", "alert", "reset"];

let last = 0;
let waiting = null;
let failures = 0;
let stream = null;
let busy = false;
let over = false; // the page can't be had any more: nothing is asked again

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
  stream.onopen = () => {
    if (failures) soon(0); // the engine is back
  };
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
  if (document.hidden || over) return;
  if (waiting !== null) {
    if (after >= POLL_MS) return;
    clearTimeout(waiting);
  }
  waiting = setTimeout(refresh, Math.max(after, SOONEST_MS - (performance.now() - last), 0));
}

async function refresh() {
  waiting = null;
  if (over) return;
  if (busy || document.querySelector("dialog[open]")) {
    soon(POLL_MS);
    return;
  }
  busy = true;
  last = performance.now();
  try {
    // Asked for as a person asks, so that who has to sign in again is led to where that is done.
    const headers = { Accept: "text/html", "X-Live": "1" };
    const answer = await fetch(location.href, { headers, credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname === "/sign-in") {
      location.assign(answer.url);
      return;
    }
    if (answer.ok) {
      take(new DOMParser().parseFromString(await answer.text(), "text/html"));
      failures = 0;
      seen(null);
    } else if (answer.status in GONE) {
      over = true;
      leave();
      seen(GONE[answer.status]);
    } else {
      failures += 1;
      seen(`The engine can't show this now (${answer.status}).`);
    }
  } catch {
    failures += 1;
    if (failures > 1) seen("The engine does not answer.");
  } finally {
    busy = false;
    soon(Math.min(pause() * 2 ** failures, SLOWEST_MS));
  }
}

let seenAt = new Date();

// Says what is wrong, and of when it is what one sees; null: all is well.
function seen(wrong) {
  const note = document.querySelector(".offline");
  if (wrong === null) seenAt = new Date();
  else {
    note.querySelector("[data-told]").textContent = wrong;
    note.querySelector("[data-seen]").textContent = seenAt.toLocaleTimeString("en-GB", { timeZone: document.body.dataset.zone });
  }
  note.hidden = wrong === null;
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
  if (old.open && old.localName === "dialog") return; // somebody fills it in
  if ("keep" in old.dataset) return;
  const chosen = old.classList.contains("chosen"); // by who goes through the rows
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.localName === "details")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !(name === "open" && old.localName === "details")) old.setAttribute(name, value);
  }
  if (chosen) old.classList.add("chosen");
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
