"""One alert for tests of the faces, which remembers what it was asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from engine.alerts.kept import Acknowledgement, Mute
from engine.alerts.view import alert_view
from engine.decide.alerts import Alert, Course, Finding, What
from engine.errors import NotFound

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
DELIVERY = "0198b0c0-0000-7000-8000-0000000000aa"


class FakeAlerts:
    """Alerts, of which there is one; it is open for a trigger."""

    def __init__(self) -> None:
        self.alert = Alert(name="failing", what=What.FAILURES, limit=3, notify=("ops",), builtin=True)
        self.course = Course()
        found = Finding(subject="trigger nightly", value=3, text="3 runs failed in a row")
        self.course.look(self.alert, {found.subject: found}, AT, 0.0)
        self.mute_now: Mute | None = None
        self.acknowledged: Acknowledgement | None = None
        self.asked: list[dict[str, Any]] = []

    def views(self) -> list[dict[str, Any]]:
        return [self.view("failing")]

    def view(self, name: str) -> dict[str, Any]:
        if name != self.alert.name:
            raise NotFound(f"there is no alert {name}; did you mean failing?")
        return alert_view(
            self.alert, self.course, mute=self.mute_now, acknowledged=self.acknowledged, problem=None, looked_at=AT
        )

    async def mute(self, name: str, *, duration_s: float, reason: str, who: str = "") -> dict[str, Any]:
        self.view(name)
        self.asked.append({"mute": duration_s, "reason": reason, "who": who})
        self.mute_now = Mute(since=AT, until=AT.replace(hour=11), who=who, reason=reason)
        return self.view(name)

    async def unmute(self, name: str, *, who: str = "") -> dict[str, Any]:
        self.asked.append({"unmute": name, "who": who})
        self.mute_now = None
        return self.view(name)

    async def acknowledge(self, name: str, *, reason: str, who: str = "") -> dict[str, Any]:
        self.view(name)
        self.asked.append({"acknowledge": reason, "who": who})
        self.acknowledged = Acknowledgement(at=AT, who=who, reason=reason)
        return self.view(name)

    async def test(self, name: str, *, who: str = "") -> tuple[str, ...]:
        self.view(name)
        self.asked.append({"test": name, "who": who})
        return (DELIVERY,)
