"""What people see in the place of a page that they can't have; programs get the problem as JSON."""

from __future__ import annotations

from datetime import datetime

from engine.http.page.shell import html, render
from engine.http.page.sign_in import sign_in_again, sign_in_for
from engine.http.page.views import redirect
from engine.http.problems import Problem
from engine.plugin import Headers, Response

_NOT_FOR_PEOPLE = ("/api/", "/hooks/", "/assets/", "/metrics", "/openapi")

_SESSION = "/session"  # where the form of the sign-in page is sent

_TITLES = {
    400: "That address is not right",
    403: "You may not see this",
    404: "There is nothing here",
    422: "The address asks for something that can't be",
    429: "Too many requests",
    500: "The engine failed to show this",
    503: "The store can't be read now",
}


def is_for_people(method: str, path: str, headers: Headers) -> bool:
    """Tell whether a browser shows the answer to a person."""
    if "text/html" not in headers.get("Accept", "").lower():
        return False
    return path == _SESSION or (method in ("GET", "HEAD") and not path.startswith(_NOT_FOR_PEOPLE))


def shown_fault(problem: Problem, target: str, headers: Headers, request_id: str, *, now: datetime) -> Response:
    """Return the page that tells of a problem; who has to say who they are is led to where they can."""
    if target == _SESSION and problem.status in (401, 422, 429):
        return redirect(sign_in_again("guesses" if problem.status == 429 else problem.code))
    if problem.status == 401:
        return redirect(sign_in_for(target))
    values = {
        "status": problem.status, "title": _TITLES.get(problem.status, problem.title), "detail": _told(problem),
        "request_id": request_id,
    }  # fmt: skip
    answer = html(render("fault.html", headers, values, now=now, zone="UTC"), headers, status=problem.status)
    kept = {name: value for name, value in problem.headers.items() if name in ("Retry-After", "Allow")}
    return Response(status=answer.status, body=answer.body, headers={**answer.headers, **kept})


def _told(problem: Problem) -> str:
    details = [str(each["detail"]) for each in problem.errors if "detail" in each]
    return "; ".join(details) or f"{problem.detail[:1].upper()}{problem.detail[1:]}"
