"""What a seed stands for: a configuration, what comes from outside, and what goes wrong when."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.triggers import GATES
from tests.dst.deciding import CALLS, Deciding, Sky
from tests.dst.turns import BEGINNING
from tests.dst.wider import guards, inputs, joins, keeping

DAY_S = 86_400.0


class Item(Struct, frozen=True, kw_only=True):
    """Something that happens in the world of a feed: it must become one event, whatever happens to the engine."""

    at_s: float
    key: str
    subject: str
    data: Any


class Call(Struct, frozen=True, kw_only=True):
    """Something that somebody asks of the engine, again and again until he has an answer.

    `kind`: `emit`, `fire`, `pause`, `resume`, `backfill`, `turn` (of a backfill); and `CALLS` of `tests.dst.deciding`.
    """

    at_s: float
    kind: str
    what: Mapping[str, Any]


class Hazard(Struct, frozen=True, kw_only=True):
    """Something that goes wrong: `crash`, `ambush` (a crash at a commit), `stop`, `step` (of the wall clock), `weather`
    (of the disk), or `freeze`: the engine stands still, and goes on when another one has taken its store over."""

    at_s: float
    kind: str
    what: Mapping[str, Any]


class Met(Struct, frozen=True, kw_only=True):
    """What events a trigger meets: `timer` its own, `feed` and `heard` those of `of`, `ends` those of the job `of`.

    `all` and `any` meet those of all of their `ways`, which have names.
    """

    kind: str
    of: str = ""
    ways: Mapping[str, Met] = {}

    @property
    def each(self) -> Sequence[Met]:
        """What it meets, one by one."""
        return [*self.ways.values()] or [self]

    def meets(self, kind: str, of: str) -> bool:
        """Tell whether it meets such events."""
        return any((one.kind, one.of) == (kind, of) for one in self.each)


class Plan(Struct, kw_only=True):
    """All that a seed says. Times are seconds since the beginning."""

    seed: int
    days: float
    tables: dict[str, Any]
    met: dict[str, Met]
    feeds: dict[str, list[Item]]
    calls: list[Call]
    hazards: list[Hazard]
    temper: dict[str, float]
    """How likely what a runner does is, by its name; see `Act`."""
    duration_s: dict[str, float]
    """How long a run of a job takes, on average."""
    skies: dict[str, Sky]
    """What the conditions that are `sky` look at, by their names."""
    source_fails: float
    longest_sleep_s: float
    disk_bytes: int | None
    """What store and logs may take; the configuration does not take so little."""

    @property
    def config(self) -> str:
        """The configuration, as its user would write it."""
        lines = []
        for table, content in self.tables.items():
            if table in ("engine", "pools", "store"):
                lines += [f"[{table}]", *[f"{name} = {_toml(value)}" for name, value in content.items()], ""]
                continue
            for name, fields in content.items():
                lines += [f"[{table}.{name}]", *[f"{key} = {_toml(value)}" for key, value in fields.items()], ""]
        return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def plan_of(seed: int, days: float = 7.0) -> Plan:
    """Return what a seed stands for."""
    return _Drawing(seed, days).plan()


class _Drawing:
    def __init__(self, seed: int, days: float) -> None:
        self.seed = seed
        self.days = days
        self.random = random.Random(f"plan {seed}")
        self.met: dict[str, Met] = {}
        self.durations: dict[str, float] = {}
        self.hot = [self.random.uniform(60, days * DAY_S) for _ in range(self.random.choice([0, 2, 5]))]
        """Moments at which many things happen at once: there the races are."""
        self.deciding = Deciding(self.random, days, self.some_time_s)
        self.more = random.Random(f"more {seed}")
        """Draws what was thought of later, so that what a seed stood for before goes on to be a part of it."""

    def chance(self, likely: float) -> bool:
        return self.random.random() < likely

    def some_time_s(self) -> float:
        if self.hot and self.chance(0.6):
            return round(
                self.random.choice(self.hot) + self.random.expovariate(1 / self.random.choice([0.05, 2, 60])), 3
            )
        return round(self.random.uniform(60, self.days * DAY_S), 3)

    def plan(self) -> Plan:
        calm = self.deciding.calm = self.chance(0.1)
        jobs, triggers = self.jobs(), {}
        conditions = self.deciding.conditions([*jobs])
        always = [self.random.choice([*conditions])] if conditions and self.chance(0.1) else []
        for number in range(self.random.randint(3, 7)):
            name = f"t{number}"
            triggers[name] = self.trigger(name, jobs) | self.deciding.gates(conditions, always=bool(always))
            triggers[name] |= guards(self.more, self.met[name].kind)
        if self.more.random() < 0.4:
            triggers["t9"] = self.joined("t9", jobs)
        concurrency = self.random.randint(1, 5)
        tables = {
            "engine": {
                "concurrency": concurrency,
                "ageing": self.random.choice(["10s", "1m", "10m"]),
                "shutdown_grace": self.random.choice(["0s", "5s", "30s"]),
                "conditions": always,
                **self.deciding.engine(concurrency),
            },
            "pools": self.deciding.pools, "conditions": conditions, "jobs": jobs,
            "maintenance": self.deciding.maintenance([*triggers], [*jobs]), "triggers": triggers,
        }  # fmt: skip
        keep, disk_bytes = keeping(random.Random(f"keep {self.seed}"))
        if keep:
            tables["store"] = {"keep": keep}
        temper = {
            name: 0.0 if calm or not self.chance(0.6) else self.random.uniform(0.0, most)
            for name, most in (
                ("fail", 0.4), ("raise", 0.1), ("exit", 0.05), ("rubbish", 0.1), ("hang", 0.05), ("stubborn", 0.05),
                ("skip", 0.1),
            )
        }  # fmt: skip
        feeds = {one.of: self.items() for met in self.met.values() for one in met.each if one.kind == "feed"}
        return Plan(
            seed=self.seed, days=self.days, met=self.met, feeds=feeds, temper=temper, duration_s=self.durations,
            tables=tables, calls=self.calls(tables), hazards=[] if calm else self.hazards(),
            skies=self.deciding.skies,
            source_fails=0.0 if calm or self.chance(0.5) else 0.02,
            longest_sleep_s=self.random.choice([120.0, *[300.0] * 5, *[900.0] * 7, *[3600.0] * 7]),
            disk_bytes=disk_bytes,
        )  # fmt: skip

    # The configuration

    def jobs(self) -> dict[str, Any]:
        jobs: dict[str, Any] = {}
        for number in range(self.random.randint(2, 4)):
            name = f"j{number}"
            self.durations[name] = self.random.choice([0.0, 0.5, 20.0, 200.0, 900.0])
            fields: dict[str, Any] = {"run": {"act": True}, "timeout": f"{self.random.choice([60, 600, 3600])}s"}
            if self.chance(0.7):
                fields["concurrency"] = self.random.choice([1, 1, 2, 3])
                fields["overlap"] = self.random.choice(["queue", "queue", "skip", "replace"])
            if self.chance(0.6):
                fields["retry"] = {
                    "attempts": self.random.randint(2, 4),
                    "delay": f"{self.random.choice([1, 30, 600])}s",
                    "max_delay": "30m",
                    "jitter": self.random.choice([0.0, 0.3]),
                }
            fields |= self.deciding.limits()
            fields["on_crash"] = self.random.choice(["retry", "retry", "fail"])
            fields["tags"] = [f"g{self.random.randint(0, 1)}"]
            jobs[name] = fields
        return jobs

    def trigger(self, name: str, jobs: Mapping[str, Any]) -> dict[str, Any]:
        kind = self.random.choice(["timer", "timer", "timer", "feed", "feed", "heard", "ends", "manual"])
        job = self.random.choice(list(jobs))
        fields: dict[str, Any] = {"job": job, **self.deciding.priority()}
        if kind == "timer":
            fields["on"] = self.timer()
            if self.chance(0.8):
                fields["misfire"] = self.misfire()
            self.met[name] = Met(kind="timer")
        elif kind == "feed":
            label = f"f{self.random.randint(0, 1)}"
            fields["on"] = {"feed": label}
            self.met[name] = Met(kind="feed", of=label)
        elif kind == "heard":
            type_ = f"heard.{self.random.choice('ab')}"
            fields["on"] = {"event": type_}
            self.met[name] = Met(kind="heard", of=type_)
        elif kind == "ends":
            # Only of jobs that come before its own: so nothing goes in a circle.
            followed = self.random.choice(list(jobs))
            if followed >= job:
                fields["on"] = {"manual": True}
                self.met[name] = Met(kind="manual")
            else:
                fields["on"] = {"run": {"job": followed}}
                self.met[name] = Met(kind="ends", of=followed)
        else:
            fields["on"] = {"manual": True}
            self.met[name] = Met(kind="manual")
        fields |= self.deciding.shaping(kind)
        if kind == "timer" and "interval" in fields["on"] and self.chance(0.3):
            fields |= self.adaptive(fields["on"]["interval"])
        if self.chance(0.2):
            fields["filter"] = "!has(data.n) || int(data.n) % 3 != 0"
        if self.chance(0.2):
            fields["retry"] = {"attempts": self.random.randint(1, 3)}
        if self.chance(0.3):
            fields["tags"] = [f"g{self.random.randint(0, 2)}"]
        return fields

    def joined(self, name: str, jobs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trigger on several sources."""
        job, kind = self.more.choice(list(jobs)), self.more.choice(["all", "all", "any"])
        # Only ends of jobs that come before its own: so nothing goes in a circle.
        drawn = inputs(self.more, [one for one in jobs if one < job])
        self.met[name] = Met(kind=kind, ways={way: Met(kind=what, of=of) for way, (_, what, of) in drawn.items()})
        fields: dict[str, Any] = {
            "job": job, "on": {kind: {way: on for way, (on, _, _) in drawn.items()}},
            "priority": self.more.randint(0, 9), "priority_max": 9,
        }  # fmt: skip
        if kind == "all":
            fields["join"] = joins(self.more)
        if self.more.random() < 0.2:
            fields["throttle"] = {"limit": 1, "per": f"{self.more.choice([5, 600, 7200])}s"}
        return fields | guards(self.more, kind)

    def timer(self) -> dict[str, Any]:
        end = BEGINNING + timedelta(days=self.days)
        common: dict[str, Any] = {"end": rfc3339(end)}
        if self.chance(0.4):
            common["timezone"] = self.random.choice(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
        if self.chance(0.3):
            common["jitter"] = f"{self.random.choice([5, 600])}s"
        if self.chance(0.2):
            common["every_nth"] = self.random.randint(2, 3)
        which = self.random.choice(["cron", "cron", "interval", "interval", "at"])
        if which == "interval":
            return {"interval": {"every": f"{self.random.choice([1800, 3600, 5000, 20000])}s", **common}}
        if which == "at":
            common.pop("every_nth", None)
            moments = sorted({round(self.some_time_s()) for _ in range(self.random.randint(1, 5))})
            return {"at": {"times": [rfc3339(BEGINNING + timedelta(seconds=each)) for each in moments], **common}}
        minute, hour = self.random.randint(0, 59), self.random.randint(0, 23)
        expression = self.random.choice(
            [f"{minute} {hour} * * *", f"{minute} * * * *", "30 2 * * *", "*/30 * * * *", f"{minute} */3 * * 1-5"]
        )
        return {"cron": {"expression": expression, **common}}

    def adaptive(self, interval: dict[str, Any]) -> dict[str, Any]:
        """Return an interval that follows its runs."""
        every_s = int(interval["every"].removesuffix("s"))
        law: dict[str, Any] = {"min": f"{every_s // 3}s", "max": f"{every_s * 4}s", "hold": self.random.randint(1, 3)}
        law["duration_max"] = f"{self.random.choice([1, 100, 1000])}s"
        if self.chance(0.5):
            law["success_rate_min"] = 0.9
        if self.chance(0.2):
            law["mode"] = "shadow"
        return {"on": {"interval": {name: interval[name] for name in ("every", "end")}}, "adaptive": law}

    def misfire(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"catch_up": self.random.choice(["latest", "all", "none"])}
        if self.chance(0.4):
            fields["grace"] = f"{self.random.choice([60, 7200, 40000])}s"
        if fields["catch_up"] == "all":
            fields["max"] = self.random.choice([1, 3, 100])
            fields["rate"] = self.random.choice(["1/m", "10/s"])
        return fields

    # What comes from outside

    def items(self) -> list[Item]:
        """Return what happens at a feed: alone, and in bursts."""
        items, number = [], 0
        for _ in range(self.random.randint(5, 25)):
            at_s = self.some_time_s()
            for _ in range(self.random.choice([1, 1, 1, 2, 5, 20])):
                items.append((at_s, number))
                number += 1
                at_s += self.random.choice([0, 0, 0.01, 1, 60])
        items.sort()
        return [
            Item(at_s=at_s, key=f"k{key}", subject=f"s{key % 3}", data=self.random.choice([None, {"n": key}, [key]]))
            for at_s, key in items
        ]

    def calls(self, tables: Mapping[str, Any]) -> list[Call]:
        calls, triggers = [], [*tables["triggers"]]
        for number in range(self.random.randint(15, 100)):
            if self.chance(0.5):
                kind = self.random.choice(CALLS)
                what = self.deciding.call(kind, number, tables)
            else:
                kind = self.random.choice(["emit", "emit", "fire", "fire", "pause", "resume", "backfill", "turn"])
                what = self.call(kind, number, triggers)
            calls.append(Call(at_s=self.some_time_s(), kind=kind, what=what))
        guarded = [name for name, fields in tables["triggers"].items() if "breaker" in fields]
        for name in guarded:
            if self.more.random() < 0.5:
                at_s = self.more.uniform(0, self.days * DAY_S)
                calls.append(Call(at_s=at_s, kind="release", what={"trigger": name}))
        return sorted(calls, key=lambda call: call.at_s)

    def call(self, kind: str, number: int, triggers: list[str]) -> dict[str, Any]:
        timed = [name for name, met in self.met.items() if met.kind == "timer"] or triggers
        if kind == "emit":
            return {
                "type": f"heard.{self.random.choice('abc')}", "key": f"c{number}", "subject": f"s{number % 2}",
                "priority": self.random.choice([None, 0, 9]), "data": {"n": number}, "twice": self.chance(0.2),
            }  # fmt: skip
        if kind == "fire":
            bypass = [gate for gate in sorted(GATES) if self.chance(0.2)]
            return {
                "trigger": self.random.choice(triggers), "request": f"c{number}", "bypass": bypass,
                "priority": self.random.choice([None, None, 0, 9]), "data": self.random.choice([None, {"n": number}]),
            }  # fmt: skip
        if kind == "pause":
            scope = self.random.choice(["engine", "tag", "trigger", "trigger"])
            name = {"engine": "", "tag": f"g{self.random.randint(0, 1)}"}.get(scope, self.random.choice(triggers))
            for_s = self.random.choice([None, 30.0, 3600.0, 30000.0])
            return {"scope": scope, "name": name, "for_s": for_s}
        if kind == "resume":
            return {"all": self.chance(0.5), "which": self.random.randint(0, 5)}
        if kind == "backfill":
            back_s, length_s = self.random.uniform(0, 3 * DAY_S), self.random.uniform(3600, DAY_S)
            return {
                "trigger": self.random.choice(timed), "request": f"c{number}", "back_s": back_s, "length_s": length_s,
                "max_parallel": self.random.randint(1, 4), "order": self.random.choice(["oldest", "newest"]),
                "only_missing": self.chance(0.5),
            }  # fmt: skip
        return {"to": self.random.choice(["pause", "resume", "resume", "cancel"]), "which": self.random.randint(0, 5)}

    # What goes wrong

    def hazards(self) -> list[Hazard]:
        hazards: list[Hazard] = []
        likely = {kind: self.random.choice([0, 1, 3, 8]) for kind in ("crash", "stop", "step", "weather", "ambush")}
        for kind, most in likely.items():
            hazards += [self.hazard(kind) for _ in range(self.random.randint(0, most))]
        chances = random.Random(f"frozen {self.seed}")
        for _ in range(chances.choice([0, 0, 1, 3])):
            at_s = chances.choice([*self.hot, chances.uniform(60, self.days * DAY_S)])
            what = {"turns": chances.randint(0, 40), "down_s": chances.choice([0.5, 60.0, 20000.0])}
            hazards.append(Hazard(at_s=round(at_s + chances.uniform(0, 3), 3), kind="freeze", what=what))
        return sorted(hazards, key=lambda hazard: hazard.at_s)

    def hazard(self, kind: str) -> Hazard:
        at_s, what = self.some_time_s(), {}
        down_s = self.random.choice([0.0, 0.5, 5.0, 600.0, 20000.0, 90000.0])
        if kind == "crash":
            what = {"turns": self.random.randint(0, 40), "down_s": down_s}
        elif kind == "ambush":
            # A crash around a commit: that is where it hurts.
            what = {"commits": self.random.randint(1, 5), "turns": self.random.randint(0, 6), "down_s": down_s}
        elif kind == "stop":
            what = {"down_s": down_s}
        elif kind == "step":
            what = {"seconds": self.random.choice([-1, 1]) * self.random.choice([0.5, 3.0, 600.0, 7200.0, 15000.0])}
        else:
            worst = self.random.choice([0.05, 0.5, 1.0])
            what = {
                "for_s": self.random.choice([1.0, 60.0, 3600.0]),
                "slow_s": self.random.choice([0.0, 0.01, 2.0, 30.0]),
                "fails_writes": worst if self.chance(0.6) else 0.0,
                "fails_reads": worst if self.chance(0.5) else 0.0,
            }
        return Hazard(at_s=at_s, kind=kind, what=what)
