// Zooming into a timeline: a time is chosen by dragging over it, and the page is asked for that.

const SHORTEST_PX = 8;
let from = null;

function place(event) {
  const lane = document.querySelector("[data-timeline] .lane svg");
  const box = lane.getBoundingClientRect();
  return { x: Math.min(Math.max(event.clientX - box.left, 0), box.width), box };
}

document.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.target.closest("[data-timeline] svg")) return;
  from = place(event).x;
});

document.addEventListener("pointermove", (event) => {
  if (from === null) return;
  const timeline = document.querySelector("[data-timeline]");
  const brush = timeline.querySelector("[data-brush]");
  const { x, box } = place(event);
  if (Math.abs(x - from) < SHORTEST_PX) return;
  event.preventDefault();
  brush.hidden = false;
  brush.style.left = `${box.left - timeline.getBoundingClientRect().left + Math.min(x, from)}px`;
  brush.style.width = `${Math.abs(x - from)}px`;
});

document.addEventListener("pointerup", (event) => {
  if (from === null) return;
  const { x, box } = place(event);
  const [low, high] = [Math.min(x, from) / box.width, Math.max(x, from) / box.width];
  const began = from;
  from = null;
  document.querySelector("[data-brush]").hidden = true;
  if (Math.abs(x - began) < SHORTEST_PX) return;
  // The click that ends the drag is to open nothing.
  window.addEventListener("click", (click) => click.preventDefault(), { capture: true, once: true });
  const { start, end, job } = document.querySelector("[data-timeline]").dataset;
  const [first, length] = [Date.parse(start), Date.parse(end) - Date.parse(start)];
  const asked = new URLSearchParams({
    from: new Date(first + low * length).toISOString(),
    to: new Date(first + high * length).toISOString(),
  });
  if (job) asked.set("job", job);
  location.assign(`/timeline?${asked}`);
});

document.addEventListener("pointercancel", () => {
  from = null;
  const brush = document.querySelector("[data-brush]");
  if (brush) brush.hidden = true;
});

document.addEventListener("dragstart", (event) => {
  if (event.target.closest?.("[data-timeline]")) event.preventDefault();
});
