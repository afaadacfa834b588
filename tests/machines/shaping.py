"""Shaping against a slow and obvious model: random events, times and restarts, and no difference.

The model counts tokens in fractions and looks at everything at each step; it knows nothing of marks or clocks.
"""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from engine.testing import VirtualClock
from engine.triggers import Batch, Debounce, Dedupe, Edge, Rate, Trigger
from tests.machines.driven import Driven, Machine
from tests.organs import Bench, bench, event, trigger

KEY = "data.k"


class Bucket:
    """Holds at most `burst` tokens; one more comes each interval."""

    def __init__(self, rate: Rate, now: Fraction) -> None:
        self.interval = Fraction(rate.per_s) / rate.limit
        self.burst, self.tokens, self.at = rate.burst, Fraction(rate.burst), now

    def fill(self, now: Fraction) -> None:
        self.tokens = min(Fraction(self.burst), self.tokens + (now - self.at) / self.interval)
        self.at = now

    def next_at(self) -> Fraction:
        """Return when there is a token."""
        return self.at + max(Fraction(0), 1 - self.tokens) * self.interval


class Group:
    """A run as the model knows it: the numbers of its events, and when it is due while it gathers."""

    def __init__(self, number: int, first: int) -> None:
        self.number, self.events = number, [first]
        self.due = self.closes = Fraction(0)


class Model:
    """What a trigger makes of events, step by step. Times are seconds since the start."""

    def __init__(self, rule: Trigger) -> None:
        self.rule, self.now = rule, Fraction(0)
        self.runs: list[Group] = []
        self.starts: list[tuple[Fraction, int, tuple[int, ...]]] = []
        self.outcomes: list[tuple[str, int | None]] = []
        self.seen: dict[str, tuple[Fraction, int]] = {}
        self.limits: dict[str, Bucket] = {}
        self.leads: dict[str, tuple[Fraction, Fraction, int]] = {}
        self.windows: dict[str, Group] = {}
        self.buckets: dict[str, Bucket] = {}
        self.queues: dict[str, list[Group]] = {}

    # Time

    def go_to(self, to: Fraction) -> None:
        """Let everything happen that is due until then, in order."""
        while True:
            due = [(window.due, 0, key) for key, window in self.windows.items()]
            due += [(self.buckets[key].next_at(), 1, key) for key, queue in self.queues.items() if queue]
            if not due or min(due)[0] > to:
                break
            at, kind, key = min(due)
            self.now = max(self.now, at)
            if kind == 0:
                self.ready(key, self.windows.pop(key))
            else:
                self.let_one(key)
        self.now = to

    def be_away(self, seconds: Fraction) -> None:
        """Nothing happens; then the first that waits for a token has one, and no more came meanwhile."""
        self.now += seconds
        for key, queue in self.queues.items():
            bucket = self.buckets[key]
            if queue and bucket.next_at() < self.now:
                bucket.tokens, bucket.at = Fraction(1), self.now
        for key, window in sorted(self.windows.items(), key=lambda item: (item[1].due, item[1].number)):
            if window.due <= self.now:
                self.ready(key, self.windows.pop(key))
        self.go_to(self.now)

    # Events

    def event(self, n: int, key: str) -> None:
        self.outcomes.append(self.decide(n, key))

    def decide(self, n: int, key: str) -> tuple[str, int | None]:
        rule, now = self.rule, self.now
        if rule.dedupe is not None and key in self.seen and now < self.seen[key][0]:
            return "deduplicated", self.seen[key][1]
        if rule.rate_limit is not None:
            bucket = self.limits.setdefault(key, Bucket(rule.rate_limit, now))
            bucket.fill(now)
            if bucket.tokens < 1:
                return "rate_limited", None
            bucket.tokens -= 1
        outcome = self.gather(n, key)
        if rule.dedupe is not None and outcome[0] != "deduplicated":
            assert outcome[1] is not None
            self.seen[key] = (now + Fraction(rule.dedupe.window_s), outcome[1])
        return outcome

    def gather(self, n: int, key: str) -> tuple[str, int | None]:
        now, debounce, batch = self.now, self.rule.debounce, self.rule.batch
        if debounce is None and batch is None:
            return "run", self.at_once(n, key)
        wait = Fraction(debounce.wait_s if debounce is not None else batch.wait_s)  # type: ignore[union-attr]
        most = debounce.max_events if debounce is not None else batch.size  # type: ignore[union-attr]
        longest = wait if debounce is None else Fraction(10**9 if debounce.max_wait_s is None else debounce.max_wait_s)
        window = self.windows.get(key)
        if window is not None:
            window.events.append(n)
            window.due = min(now + wait, window.closes)
            if most is not None and len(window.events) >= most:
                self.ready(key, self.windows.pop(key))
            return "joined", window.number
        closes = now + longest
        if debounce is not None and debounce.edge is not Edge.TRAILING:
            until, closes, led = self.leads.get(key, (Fraction(-1), closes, -1))
            if now >= until:
                number = self.at_once(n, key)
                self.leads[key] = (min(now + wait, now + longest), now + longest, number)
                return "run", number
            if debounce.edge is Edge.LEADING:
                self.leads[key] = (max(until, min(now + wait, closes)), closes, led)
                return "deduplicated", led
        if most == 1:
            return "run", self.at_once(n, key)
        window = self.windows[key] = self.run(n)
        window.due, window.closes = min(now + wait, closes), closes
        return "run", window.number

    def run(self, n: int) -> Group:
        self.runs.append(Group(len(self.runs), n))
        return self.runs[-1]

    def at_once(self, n: int, key: str) -> int:
        run = self.run(n)
        self.ready(key, run)
        return run.number

    # Starts

    def ready(self, key: str, run: Group) -> None:
        if self.rule.throttle is None:
            self.start(run)
            return
        self.buckets.setdefault(key, Bucket(self.rule.throttle, self.now)).fill(self.now)
        self.queues.setdefault(key, []).append(run)
        while self.queues[key] and self.buckets[key].tokens >= 1:
            self.let_one(key)

    def let_one(self, key: str) -> None:
        bucket = self.buckets[key]
        bucket.fill(self.now)
        bucket.tokens -= 1
        self.start(self.queues[key].pop(0))

    def start(self, run: Group) -> None:
        self.starts.append((self.now, run.number, tuple(run.events)))


SECONDS = (st.integers(0, 12) | st.integers(0, 60)).map(lambda half: Fraction(half, 2))
RATES = st.builds(
    lambda limit, interval, burst: Rate(limit=limit, per_s=float(limit * interval), burst=burst, key=KEY),
    st.integers(1, 4), st.integers(1, 8), st.integers(1, 3),
)  # fmt: skip
DEBOUNCES = st.builds(
    lambda wait, more, most, edge: Debounce(
        wait_s=wait, max_wait_s=None if more is None else wait + more, edge=edge, key=KEY,
        max_events=None if edge is Edge.LEADING else most,
    ),
    st.integers(1, 8), st.none() | st.integers(0, 10), st.none() | st.integers(2, 4), st.sampled_from(Edge),
)  # fmt: skip
BATCHES = st.builds(lambda size, wait: Batch(size=size, wait_s=wait, key=KEY), st.integers(1, 4), st.integers(1, 8))
TRIGGERS = st.builds(
    lambda gathers, throttle, limit, dedupe: trigger(
        debounce=gathers if isinstance(gathers, Debounce) else None,
        batch=gathers if isinstance(gathers, Batch) else None, throttle=throttle, rate_limit=limit,
        dedupe=None if dedupe is None else Dedupe(key=KEY, window_s=float(dedupe)),
    ),
    st.none() | DEBOUNCES | BATCHES, st.none() | RATES, st.none() | RATES, st.none() | st.integers(1, 20),
)  # fmt: skip


class ShapingMachine(Machine):
    """A trigger that shapes its events in any way, and a source that emits; runs succeed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.driven: Driven[Bench] = Driven()
        self.n = 0
        self.numbers: dict[str, int] = {}
        self.outcomes: list[tuple[str, int | None]] = []
        self.starts: list[tuple[Fraction, int, tuple[int, ...]]] = []

    @initialize(rule=TRIGGERS, most_marks=st.sampled_from([1, 1000]))
    def begin(self, rule: Trigger, most_marks: int) -> None:
        if rule.dedupe is not None and rule.rate_limit is not None:
            # What a rate limit drops claims nothing: that it is a repeat, too, may not be known. It runs neither way.
            most_marks = 1000
        self.rule, self.most_marks = rule, most_marks
        self.clock = VirtualClock()
        self.began = self.clock.now()
        self.model = Model(rule)
        self.enter()

    def enter(self) -> None:
        self.driven.enter(
            bench(
                self.driven.path, triggers=[self.rule], clock=self.clock, concurrency=1000, most_marks=self.most_marks
            )
        )  # fmt: skip
        self.driven.do(self.driven.desk.settle())

    @rule(keys=st.lists(st.sampled_from("aaab"), min_size=1, max_size=4))
    def emit(self, keys: list[str]) -> None:
        events = list(enumerate(keys, start=self.n))
        self.n += len(events)
        for number, key in events:
            self.model.event(number, key)
        self.driven.do(self._emit(events))

    async def _emit(self, events: list[tuple[int, str]]) -> None:
        desk = self.driven.desk
        for answer in await desk.emit(*(event(data={"n": n, "k": key}) for n, key in events)):
            (outcome,) = answer.outcomes
            run = outcome.run
            number = None if run is None else self.numbers.setdefault(run, len(self.numbers))
            self.outcomes.append((outcome.outcome.value, number))
        await desk.settle()

    @rule(seconds=SECONDS)
    def wait(self, seconds: Fraction) -> None:
        self.model.go_to(self.model.now + seconds)
        self.driven.do(self.driven.desk.advance(float(seconds)))

    @rule(seconds=SECONDS, killed=st.booleans())
    def be_away(self, seconds: Fraction, killed: bool) -> None:
        self.starts += self.begun()
        self.driven.kill() if killed else self.driven.leave()
        self.driven.do(self.clock.advance(float(seconds)))
        self.model.be_away(seconds)
        self.enter()

    def begun(self) -> list[tuple[Fraction, int, tuple[int, ...]]]:
        """Return what has started in this life of the engine."""
        script, found = self.driven.desk.script, []
        for run, _, at in script.begun:
            numbers = tuple(one.data["n"] for one in script.events[run])
            micros = round((at - self.began).total_seconds() * 1e6)
            found.append((Fraction(micros, 10**6), self.numbers[run], numbers))
        return found

    def compare(self) -> None:
        assert self.outcomes == self.model.outcomes
        assert sorted(self.starts + self.begun()) == sorted(self.model.starts)

    def teardown(self) -> None:
        try:
            if self.n:
                self.wait(Fraction(500))
                self.compare()
                assert self.driven.do(self.driven.desk.store.ledger()).missing == ()
        finally:
            self.driven.close()
