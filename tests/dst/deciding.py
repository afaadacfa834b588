"""What lies between an event and its run, drawn by a seed: shaping, priorities, conditions, windows; and who steers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from tests.dst.turns import BEGINNING

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

NUMBERED = "has(data.n) ? string(int(data.n) % 4) : 'none'"
"""A key by what events hold; it fails where their data is no object."""

URGENT = "{{ has(data.n) ? int(data.n) % 12 : 'high' }}"
"""A priority by what events hold; above 9 it is none."""

STEERING = ("cancel", "hold", "release", "priority", "retry")


class Sky(Struct, frozen=True, kw_only=True):
    """How a thing in the world is that conditions look at: a number from 0 to 9, another one each `period_s`.

    `fails`, `hangs`, `lies`: the parts of the looks that raise, that never end, and that return rubbish; one that is
    `stubborn` does not end when it is told to. `slow_s`: the longest that a look takes.
    """

    seed: str
    period_s: float
    slow_s: float = 0.0
    fails: float = 0.0
    hangs: float = 0.0
    lies: float = 0.0
    stubborn: bool = False

    def at(self, now_s: float) -> int:
        """Return the number at a moment."""
        return random.Random(f"{self.seed} {int(now_s // self.period_s)}").randrange(10)

    def steady(self, since_s: float, until_s: float) -> int | None:
        """Return the number where it is the same one all the while, and no look fails or takes long; else None."""
        if self.fails or self.hangs or self.lies or self.slow_s:
            return None
        first, last = int(since_s // self.period_s), int(until_s // self.period_s)
        found = {self.at((period + 0.5) * self.period_s) for period in range(first, last + 1)}
        return found.pop() if len(found) == 1 else None


class Deciding:
    """Draws for one seed; `moment` gives a time, in seconds, at which something is to happen."""

    def __init__(self, chances: random.Random, days: float, moment: Any) -> None:
        self.random = chances
        self.days = days
        self.moment = moment
        self.skies: dict[str, Sky] = {}
        self.pools = {f"p{number}": chances.randint(1, 3) for number in range(chances.choice([0, 0, 1, 2]))}
        self.calm = False

    def chance(self, likely: float) -> bool:
        return self.random.random() < likely

    def one(self, *values: Any) -> Any:
        return self.random.choice(values)

    def engine(self, concurrency: int) -> dict[str, Any]:
        """Return what stands under [engine] beside the rest."""
        fields: dict[str, Any] = {}
        if self.chance(0.15):
            high = self.one(3, 10, 30)
            fields["queue"] = {"high": high, "low": self.random.randint(1, high - 1)}
        if concurrency > 2 and self.chance(0.25):
            lanes = self.random.sample(["live", "manual", "backfill"], self.random.randint(1, 2))
            fields["reserve"] = dict.fromkeys(lanes, 1)
        return fields

    def limits(self) -> dict[str, Any]:
        """Return the limits of a job that are not its alone: by a key, and of pools."""
        fields: dict[str, Any] = {}
        if self.chance(0.25):
            fields["concurrency_key"] = self.one("event.subject", NUMBERED)
        if self.pools and self.chance(0.5):
            pools = self.random.sample([*self.pools], self.random.randint(1, len(self.pools)))
            fields["pools"] = {pool: self.random.randint(1, self.pools[pool]) for pool in pools}
        return fields

    # Shaping

    def shaping(self, kind: str) -> dict[str, Any]:
        """Return the gates of a trigger that shape its events; `kind` is that of what it meets."""
        fields: dict[str, Any] = {}
        often = 0.15 if kind == "timer" else 0.5
        if self.chance(often):
            fields |= self.one(self.debounce, self.debounce, self.batch)()
        if self.chance(often * 0.5):
            fields["throttle"] = self.rate() | ({"burst": self.random.randint(2, 4)} if self.chance(0.4) else {})
        if self.chance(often * 0.4):
            fields["rate_limit"] = self.rate() | ({"burst": self.random.randint(1, 4)} if self.chance(0.5) else {})
        if self.chance(often * 0.4):
            key = self.one("event.subject", NUMBERED)
            fields["dedupe"] = {"key": key, "window": f"{self.one(5, 600, 40000)}s"}
        if self.chance(0.25):
            fields["expires"] = f"{self.one(30, 600, 20000)}s"
        if self.chance(0.2):
            fields["max_waiting"] = self.one(1, 2, 5, 20)
        return fields

    def keyed(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.chance(0.5):
            fields["key"] = self.one("event.subject", "event.subject", NUMBERED)
        return fields

    def debounce(self) -> dict[str, Any]:
        wait_s = self.one(0, 5, 300, 7200)
        fields: dict[str, Any] = {"wait": f"{wait_s}s"}
        if self.chance(0.5):
            fields["max_wait"] = f"{wait_s + self.one(0, 20, 7200, 40000)}s"
        if self.chance(0.4):
            fields["edge"] = self.one("leading", "both")
        if fields.get("edge") != "leading":
            if self.chance(0.3):
                fields["max_events"] = self.one(2, 3, 10)
            if self.chance(0.4):
                fields["take"] = self.one("first", "all", "merge")
        return {"debounce": self.keyed(fields)}

    def batch(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"size": self.one(1, 2, 3, 10), "wait": f"{self.one(0, 5, 600, 20000)}s"}
        if self.chance(0.3):
            fields["bytes"] = f"{self.one(1, 20, 50)}B"
        if self.chance(0.4):
            fields["take"] = self.one("last", "merge")
        return {"batch": self.keyed(fields)}

    def rate(self) -> dict[str, Any]:
        limit, per_s = self.one((1, 60), (3, 60), (2, 600), (10, 3600), (1, 7200), (5, 40000))
        return self.keyed({"limit": limit, "per": f"{per_s}s"})

    def priority(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"priority": self.random.randint(0, 9), "priority_max": self.one(9, 9, 5, 2)}
        if self.chance(0.25):
            fields["priority"] = URGENT
        return fields

    # Gates

    def conditions(self, jobs: Sequence[str]) -> dict[str, Any]:
        """Return conditions: checks of every kind, and what puts them together."""
        found: dict[str, Any] = {}
        if not self.chance(0.6):
            return found
        for number in range(self.random.randint(1, 4)):
            name = f"c{number}"
            fields: dict[str, Any] = {"check": self.check(name, jobs), "every": f"{self.one(120, 600, 1800)}s"}
            if self.chance(0.4):
                fields["timeout"] = f"{self.one(1, 10, 60)}s"
            if self.chance(0.3):
                fields["on_error"] = "open"
            if self.chance(0.15):
                fields["shadow"] = True
            found[name] = fields
        if self.chance(0.4):
            joins = self.one("all", "any", "not")
            of = (
                self.one(*found) if joins == "not" else self.random.sample([*found], self.random.randint(1, len(found)))
            )
            found["together"] = {joins: of}
        return found

    def check(self, name: str, jobs: Sequence[str]) -> dict[str, Any]:
        kind = self.one("sky", "sky", "sky", "last_run", "window")
        if kind == "last_run":
            return {"last_run": {
                "job": self.one(*jobs), "outcome": self.one("succeeded", "any"), "missing": self.one("hold", "pass"),
            }}  # fmt: skip
        if kind == "window":
            hour = self.random.randint(0, 23)
            fields = {"start": f"{hour:02}:00", "end": f"{(hour + self.one(2, 9, 16)) % 24:02}:30"}
            return {"window": fields | ({"days": [*DAYS[:5]]} if self.chance(0.3) else {})}
        troubled = not self.calm and self.chance(0.5)
        self.skies[name] = Sky(
            seed=f"{self.random.random()}", period_s=self.one(60.0, 900.0, 7200.0, 40000.0),
            slow_s=self.one(0.0, 0.0, 2.0, 15.0) if troubled else 0.0,
            fails=self.one(0.0, 0.1, 0.5) if troubled else 0.0, hangs=self.one(0.0, 0.05) if troubled else 0.0,
            lies=self.one(0.0, 0.05) if troubled else 0.0, stubborn=troubled and self.chance(0.3),
        )  # fmt: skip
        seen: dict[str, Any] = {"label": name, "least": self.random.randint(1, 6)}
        return {"sky": seen | ({"below": "skip"} if self.chance(0.25) else {})}

    def gates(self, conditions: Mapping[str, Any], *, always: bool) -> dict[str, Any]:
        """Return the conditions of a trigger, and how long its runs wait for them."""
        fields: dict[str, Any] = {}
        if conditions and self.chance(0.4):
            fields["conditions"] = self.random.sample([*conditions], self.random.randint(1, min(2, len(conditions))))
        if (fields or always) and self.chance(0.7):
            fields["otherwise"] = {"hold": f"{self.one(60, 3600, 40000, 90000)}s"}
        return fields

    def maintenance(self, triggers: Sequence[str], jobs: Sequence[str]) -> dict[str, Any]:
        """Return maintenance windows of the configuration."""
        return {
            f"m{number}": self.window(triggers, jobs) for number in range(self.random.choice([0, 0, 1, 1, 2, 3]))
        }  # fmt: skip

    def window(self, triggers: Sequence[str], jobs: Sequence[str]) -> dict[str, Any]:
        fields: dict[str, Any] = {"after": self.one("run", "run", "latest", "drop")}
        kind = self.one("once", "weekly", "timer")
        if kind == "once":
            fields |= self.once()
        elif kind == "weekly":
            days = self.random.sample(DAYS, self.random.randint(1, 4))
            start = f"{self.random.randint(0, 23):02}:{self.one('00', '30', '59')}"
            fields |= {"days": days, "start": start, "end": f"{self.random.randint(0, 23):02}:15"}
            fields["timezone"] = self.one("UTC", "Europe/Berlin")
        else:
            expression = f"{self.random.randint(0, 59)} {self.random.randint(0, 23)} * * *"
            fields |= {"cron": expression, "duration": f"{self.one(60, 3600, 20000)}s"}
        fields["scope"] = self.one(
            {}, {"tags": [f"g{self.random.randint(0, 1)}"]}, {"triggers": [self.one(*triggers)]},
            {"jobs": [self.one(*jobs)]},
        )  # fmt: skip
        if not fields["scope"]:
            del fields["scope"]
        if self.chance(0.3):
            fields["running"] = "cancel"
        return fields

    def once(self) -> dict[str, Any]:
        start = BEGINNING + timedelta(seconds=round(self.moment()))
        end = start + timedelta(seconds=self.one(30, 3600, 30000, 90000))
        return {"from": rfc3339(start), "to": rfc3339(end)}

    # What is asked for

    def call(self, kind: str, number: int, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is asked for, of one of the kinds in `CALLS`."""
        triggers, jobs = [*tables["triggers"]], [*tables["jobs"]]
        which, asked = self.random.randrange(10_000), {"request": f"c{number}"}
        if kind == "steer":
            return {"to": self.one(*STEERING), "which": which, "priority": self.random.randint(0, 9), **asked}
        if kind == "flush":
            return {"which": self.one(
                {"trigger": self.one(*triggers)}, {"job": self.one(*jobs)}, {"tag": "g0"}, {"priority_below": 5},
                {"states": ["held"]}, {"lane": "manual"}, {"whole": True},
            )}  # fmt: skip
        if kind == "replay":
            return {"which": which, **asked}
        if kind == "test":
            return {"trigger": self.one(*triggers), "data": {"n": number}, "subject": f"s{number % 3}"}
        if kind == "pool":
            return {"pool": self.one(*self.pools, "p0"), "limit": self.one(1, 2, 3, None)}
        if kind == "condition":
            to: dict[str, Any] = self.one(
                {"enabled": False}, {"enabled": True}, {"shadow": True}, {"shadow": False}, {"least": 0}, {"least": 10},
                {"reset": True}, {"reset": True},
            )  # fmt: skip
            return {"name": self.one(*tables["conditions"], "c0"), "to": to}
        if kind == "window":
            turn = self.one("define", "define", "remove", "override", "override", "end")
            names = ["w0", "w1", *tables["maintenance"]] if turn in ("override", "end") else ["w0", "w1"]
            window = self.window(triggers, jobs) if self.chance(0.5) else {**self.once(), "after": "run"}
            return {"to": turn, "name": self.one(*names), "settings": window, "for_s": self.one(None, 600.0, 30000.0)}
        return {}


CALLS = ("steer", "steer", "steer", "steer", "flush", "replay", "replay", "test", "condition", "window", "look", "pool")
"""What is asked for beside the rest: `look` asks why each trigger ran or did not, for the proof, and for the queue."""
