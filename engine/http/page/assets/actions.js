// Buttons that change something ask the API, as every other program does: one implementation, one check, one record.

import { refreshNow } from "./live.js";

export function toast(text, bad = false) {
  const note = document.createElement("p");
  note.className = bad ? "toast bad" : "toast";
  note.textContent = text;
  document.querySelector(".toasts").append(note);
  setTimeout(() => note.remove(), bad ? 9000 : 4000);
}

export async function call(method, place, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method === "PATCH") headers["If-Match"] = "*"; // one setting is changed, whatever the others have become
  const sent = { method, credentials: "same-origin", headers, body: body === undefined ? undefined : JSON.stringify(body) };
  const answer = await fetch(place, sent).catch(() => {
    throw new Error("The engine does not answer. Nothing is known to have been done: try again.");
  });
  const text = await answer.text();
  let said = null;
  try {
    said = text ? JSON.parse(text) : null;
  } catch {
    // What is no JSON says no more than the status.
  }
  if (answer.status === 401) throw new SignedOut("You are not signed in any more.");
  if (!answer.ok) {
    const details = (said?.errors ?? []).map((one) => one.detail).filter(Boolean);
    throw new Error(details.length ? details.join("; ") : (said?.detail ?? `The engine answered ${answer.status}.`));
  }
  return said;
}

class SignedOut extends Error {}

// Reads a wall time of a zone as an instant; in the hour that comes twice it is the first.
export function instantOf(text, zone) {
  const wall = Date.parse(`${text}Z`);
  const early = wall - ahead(wall - 86_400_000, zone);
  return new Date(ahead(early, zone) === wall - early ? early : wall - ahead(early, zone)).toISOString();
}

// Returns by how many milliseconds a zone's clocks are ahead of UTC at an instant.
function ahead(at, zone) {
  const named = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const format = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...named });
  const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
  return Date.UTC(parts.year, parts.month - 1, parts.day, parts.hour, parts.minute, parts.second) - at;
}

// Reads a form into the body that the API takes: empty fields are left out, and `data-as` says what a text stands for.
export function read(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    const text = field.value.trim();
    if (field.type === "checkbox") {
      if (field.dataset.as === "list") {
        if (field.checked) (body[field.name] ??= []).push(field.value);
      } else if (field.dataset.as === "no" ? !field.checked : field.checked) {
        body[field.name] = field.dataset.as !== "no";
      }
    } else if (text === "") {
      continue;
    } else if (field.dataset.as === "json") {
      try {
        body[field.name] = JSON.parse(text);
      } catch (error) {
        throw new Error(`${field.name} is not valid JSON: ${error.message}`);
      }
    } else if (field.dataset.as === "words") {
      body[field.name] = text.split(",").map((word) => word.trim()).filter(Boolean);
    } else if (field.dataset.as === "number") {
      body[field.name] = Number(text);
    } else if (field.type === "datetime-local") {
      body[field.name] = instantOf(text, document.body.dataset.zone); // as the page shows all times
    } else {
      body[field.name] = text;
    }
  }
  return body;
}

async function send(form) {
  const fault = form.querySelector(".fault");
  const button = form.querySelector("[type=submit]");
  fault.hidden = true;
  button.disabled = true;
  try {
    const method = form.dataset.method;
    const body = read(form);
    const bare = method === "DELETE" && Object.keys(body).length === 0;
    const said = await call(method, form.dataset.place, bare ? undefined : body);
    form.closest("dialog").close();
    const then = form.dataset.then;
    if (then === "run" && said?.runs?.length) location.assign(`/runs/${said.runs[0]}`);
    else if ((then === "event" || then === "run") && said?.event) location.assign(`/events/${said.event}`);
    else if (then.startsWith("/")) location.assign(then);
    else if (then === "show") show(said);
    else {
      toast("Done.");
      await refreshNow();
      if (!document.querySelector("[data-live]")) location.reload();
    }
  } catch (error) {
    fault.textContent = error.message;
    if (error instanceof SignedOut) fault.append(" ", signInLink());
    fault.hidden = false;
  } finally {
    button.disabled = false;
  }
}

function signInLink() {
  const link = document.createElement("a");
  link.href = `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "Sign in";
  return link;
}

// What is told once only, such as a new token, stays until it is closed.
function show(said) {
  const place = document.querySelector("dialog:has([data-said])");
  place.querySelector("[data-said]").textContent = said?.token ?? said?.secret ?? JSON.stringify(said, null, 2);
  place.addEventListener("close", () => location.reload(), { once: true });
  place.showModal();
}

export function listen() {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.opens);
      const fault = dialog.querySelector(".fault");
      if (fault) fault.hidden = true;
      dialog.showModal();
      dialog.querySelector("input:not([type=checkbox]), textarea, select")?.focus();
    } else if (event.target.closest("[data-closes]")) {
      event.target.closest("dialog").close();
    } else if (event.target.closest("[data-leave]")) {
      call("DELETE", "/session").finally(() => location.assign("/sign-in"));
    }
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.dataset.place) return;
    event.preventDefault();
    send(event.target);
  });
}
