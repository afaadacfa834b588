"""Signing in: the form that trades a token for a cookie. What it sends goes to `POST /session`."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from engine.http.calls import Call
from engine.http.page.views import View

PLACE: Final = "/sign-in"
LONGEST_NEXT = 2000

_WRONG = {
    "token_expired": "The token has expired: an admin can make another one.",
    "guesses": "Too many wrong tokens came from here. Wait a minute, and try again.",
}


async def make(call: Call) -> View:
    """Make the page."""
    asked = call.request.query
    return View(
        template="sign_in.html",
        values={
            "following": own_path(asked.get("next", "/")),
            "wrong": _WRONG.get(asked["wrong"], "The token is not valid.") if "wrong" in asked else None,
        },
    )


def sign_in_for(target: str) -> str:
    """Return where to sign in, to come to a path afterwards."""
    following = own_path(target)
    return PLACE if following == "/" else f"{PLACE}?next={quote(following, safe='/')}"


def sign_in_again(wrong: str) -> str:
    """Return where to sign in, after that went wrong."""
    return f"{PLACE}?wrong={quote(wrong)}"


def own_path(target: str) -> str:
    """Return a path of ours, or the first page's: nobody is led elsewhere by a link to here."""
    # Browsers take a backslash for a slash, and two slashes for another machine.
    fine = target.startswith("/") and not target.startswith("//") and "\\" not in target
    return target if fine and len(target) <= LONGEST_NEXT and target.isprintable() else "/"
