// Times that go on: countdowns, ages, and how long something has run; in step with the engine's clock.

let skew = 0; // the engine's clock minus this machine's, in milliseconds

export function setClock(now) {
  const at = Date.parse(now);
  if (!Number.isNaN(at)) skew = at - Date.now();
}

// As the templates write it.
export function span(seconds) {
  if (seconds < 9.95) return `${Math.max(0, Math.floor(seconds))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return two(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return two(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

function two(many, unit, few, finer) {
  return few ? `${many} ${unit} ${few} ${finer}` : `${many} ${unit}`;
}

function rough(seconds) {
  if (seconds >= 2 * 86400) return `${Math.floor(seconds / 86400)} d`;
  if (seconds >= 2 * 3600) return `${Math.floor(seconds / 3600)} h`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds)} s`;
}

// An instant in the engine's zone, as the templates write it: today's without its date.
function local(at) {
  const zone = document.body.dataset.zone;
  const write = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }).format(at).replaceAll(",", "");
  const day = (when) => new Intl.DateTimeFormat("en-CA", { timeZone: zone, dateStyle: "short" }).format(when);
  const [there, today] = [day(at), day(Date.now() + skew)];
  if (there === today) return write({ timeStyle: "medium" });
  const date = { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" };
  return write(there.slice(0, 4) === today.slice(0, 4) ? { weekday: "short", ...date } : { year: "numeric", ...date });
}

const forms = {
  ago: (passed) => (Math.abs(passed) < 1 ? "now" : passed > 0 ? `${rough(passed)} ago` : `in ${rough(-passed)}`),
  until: (passed) => (passed >= 0 ? "now" : `in ${span(-passed)}`),
  elapsed: (passed) => span(Math.max(0, passed)),
};

export function tick() {
  const now = Date.now() + skew;
  for (const element of document.querySelectorAll("time[data-tick]")) {
    const at = Date.parse(element.dateTime);
    const form = forms[element.dataset.tick];
    if (Number.isNaN(at) || (!form && element.dataset.tick !== "local")) continue;
    const text = element.dataset.tick === "local" ? local(at) : form((now - at) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}
