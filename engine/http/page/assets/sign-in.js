// A link from elsewhere comes without the cookie (SameSite=Strict): who is signed in goes on from here, once.

const following = document.querySelector("[name=next]").value;
const TRIED = "engine_went_on";
const again = Date.now() - Number(sessionStorage.getItem(TRIED) ?? 0) < 10000;
if (!again && !document.querySelector("[role=alert]")) {
  sessionStorage.setItem(TRIED, String(Date.now()));
  fetch("/api/v1/status", { credentials: "same-origin", headers: { Accept: "application/json" } })
    .then((answer) => answer.ok && location.replace(following))
    .catch(() => {});
}
