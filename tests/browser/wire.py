"""What the tests of the page ask of the API themselves."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class Api:
    """Asks an engine's API with one token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def post(self, place: str, body: Any = None, *, method: str = "POST") -> Any:
        """Send a body, and return the answer's; what is refused is raised with what the engine said."""
        request = urllib.request.Request(
            f"{self.url}/api/v1{place}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": self._kind(place), "If-Match": "*"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {place}: {error.code} {error.read().decode()}") from None
        return json.loads(content) if content else None

    def get(self, place: str) -> Any:
        """Return what is there."""
        return self.post(place, method="GET")

    def _kind(self, place: str) -> str:
        return "application/cloudevents+json" if place == "/events" else "application/json"
