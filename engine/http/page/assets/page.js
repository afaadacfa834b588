// What every page does.

import * as actions from "./actions.js";
import { setClock, tick } from "./clocks.js";
import * as keys from "./keys.js";
import { follow, later } from "./live.js";

document.documentElement.classList.add("scripted");
setClock(document.body.dataset.now);
tick();
setInterval(tick, 1000);

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `engine_theme=${root.dataset.theme}; path=/; max-age=31536000; SameSite=Lax`;
}

document.querySelector("[data-theme-switch]")?.addEventListener("click", switchTheme);
document.querySelector("[data-menu]")?.addEventListener("click", (event) => {
  const open = document.getElementById("navigation").classList.toggle("open");
  event.currentTarget.setAttribute("aria-expanded", String(open));
});
actions.listen();
keys.listen(switchTheme);
follow();
later();
