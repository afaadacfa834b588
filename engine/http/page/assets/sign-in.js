// Signing in without leaving the form where the token is wrong; and going on at once where one is signed in already.

const form = document.querySelector("[data-sign-in]");
const alert = document.querySelector("[role=alert]");
const following = form.elements.next.value;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const answer = await fetch("/session", {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ token: form.elements.token.value.trim() }),
    });
    if (answer.ok) {
      location.assign(following);
      return;
    }
    const said = await answer.json().catch(() => null);
    tell(said?.detail ?? `The engine answered ${answer.status}.`);
  } catch {
    tell("the engine does not answer");
  }
  button.disabled = false;
  form.elements.token.select();
});

function tell(text) {
  alert.querySelector("span").textContent = `${text[0].toUpperCase()}${text.slice(1)}.`.replace("..", ".");
  alert.hidden = false;
}

// A link from elsewhere comes without the cookie (SameSite=Strict): who is signed in goes on from here, once.
const TRIED = "engine_went_on";
const again = Date.now() - Number(sessionStorage.getItem(TRIED) ?? 0) < 10000;
if (!again && alert.hidden) {
  sessionStorage.setItem(TRIED, String(Date.now()));
  fetch("/session", { credentials: "same-origin", headers: { Accept: "application/json" } })
    .then((answer) => answer.ok && location.replace(following))
    .catch(() => {});
}
