"""Retries: attempts that fail, time out, are interrupted by stops or cut off by crashes; when the next one begins."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from engine.jobs import OnCrash, RetryPolicy
from engine.plugin import Outcome
from engine.runs import RunState
from tests.machines.attempts import Attempts
from tests.machines.driven import Machine
from tests.organs import event, job, trigger

MOST_CRASHES = 10
ENDS = {
    "succeeds": lambda: Outcome.succeeded("done"),
    "fails": lambda: Outcome.failed("exit_code", "exited with 1"),
    "asks for 30 s": lambda: Outcome.failed("http_status", "503", retry_after_s=30.0),
    "is skipped": lambda: Outcome(state=RunState.SKIPPED, code="nothing", reason="nothing to do"),
}


class One:
    """A run as the model knows it."""

    def __init__(self) -> None:
        self.attempt = 0
        self.state = "running"
        self.since = Fraction(0)
        self.due: Fraction | None = None
        self.crashes = 0


class Model:
    """Each run for itself: there is a slot for each. Times are seconds since the start."""

    def __init__(self, policy: RetryPolicy, timeout: int, on_crash: OnCrash) -> None:
        self.policy, self.timeout, self.on_crash = policy, timeout, on_crash
        self.now = Fraction(0)
        self.runs: list[One] = []
        self.begun: list[tuple[Fraction, int, int]] = []

    def begin(self, run: One) -> None:
        run.attempt += 1
        run.state, run.since, run.due = "running", self.now, None
        self.begun.append((self.now, self.runs.index(run), run.attempt))

    def come(self) -> None:
        self.runs.append(One())
        self.begin(self.runs[-1])

    def fail(self, run: One, state: str, asked: int = 0) -> None:
        if run.attempt >= self.policy.attempts:
            run.state = state
            return
        pause = Fraction(self.policy.delay_s)
        for _ in range(run.attempt - 1):
            pause *= Fraction(self.policy.factor)
        run.state = "retrying"
        run.due = self.now + max(min(pause, Fraction(self.policy.max_delay_s)), Fraction(asked))

    def go_to(self, to: Fraction) -> None:
        """Let everything happen that is due until then, in order."""
        while True:
            ends = [(run.since + self.timeout, run) for run in self.runs if run.state == "running"]
            begins = [(run.due, run) for run in self.runs if run.due is not None]
            at, run = min([*ends, *begins], key=lambda pair: pair[0], default=(to + 1, None))
            if run is None or at > to:
                break
            self.now = max(self.now, at)
            if run.state == "running":
                self.fail(run, "timed_out")
            else:
                self.begin(run)
        self.now = to

    def be_away(self, seconds: Fraction, *, killed: bool) -> None:
        """What ran runs once more, by the same number; what came due meanwhile begins now."""
        self.now += seconds
        for run in self.runs:
            if run.state != "running":
                continue
            if killed and (self.on_crash is OnCrash.FAIL or run.crashes >= MOST_CRASHES):
                run.state = "failed"
                continue
            run.crashes += killed
            run.attempt -= 1
            self.begin(run)
        self.go_to(self.now)


POLICIES = st.builds(
    lambda attempts, delay, factor, more: RetryPolicy(
        attempts=attempts, delay_s=float(delay), factor=float(factor), max_delay_s=float(delay + more), jitter=0.0
    ),
    st.integers(1, 5), st.integers(0, 20), st.sampled_from([1, 2, 3]), st.integers(0, 100),
)  # fmt: skip
SECONDS = st.integers(0, 40).map(lambda half: Fraction(half, 2)) | st.integers(0, 300).map(Fraction)


class RetryMachine(Machine):
    """One job with a retry policy and a time-out, and room for all of its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.driven: Attempts | None = None

    @initialize(
        policy=POLICIES, timeout=st.sampled_from([7, 60, 3600]), on_crash=st.sampled_from([*OnCrash, OnCrash.RETRY])
    )
    def begin(self, policy: RetryPolicy, timeout: int, on_crash: OnCrash) -> None:
        self.model = Model(policy, timeout, on_crash)
        made = job(retry=policy, timeout_s=float(timeout), on_crash=on_crash)
        self.engine = self.driven = Attempts([made], [trigger()], 1000)
        self.engine.start()

    @rule(count=st.integers(1, 3))
    def emit(self, count: int) -> None:
        for _ in range(count):
            answer = self.engine.do(self.engine.desk.emit_one(event()))
            self.engine.know(answer.runs[0])
            self.model.come()
        self.engine.do(self.engine.desk.settle())

    @precondition(lambda self: any(run.state == "running" for run in self.model.runs))
    @rule(data=st.data(), how=st.sampled_from(["fails", *ENDS]))
    def end(self, data: st.DataObject, how: str) -> None:
        number = data.draw(st.sampled_from([n for n, run in enumerate(self.model.runs) if run.state == "running"]))
        run = self.model.runs[number]
        self.engine.end(number, ENDS[how]())
        if how == "succeeds":
            run.state = "succeeded"
        elif how == "is skipped":
            run.state = "skipped"
        else:
            self.model.fail(run, "failed", 30 if how == "asks for 30 s" else 0)
            self.model.go_to(self.model.now)

    @rule(seconds=SECONDS)
    def wait(self, seconds: Fraction) -> None:
        self.model.go_to(self.model.now + seconds)
        self.engine.do(self.engine.desk.advance(float(seconds)))

    @rule(seconds=SECONDS, killed=st.booleans())
    def be_away(self, seconds: Fraction, killed: bool) -> None:
        self.engine.stop(float(seconds), killed=killed)
        self.model.be_away(seconds, killed=killed)

    def compare(self) -> None:
        assert sorted(self.engine.begun()) == sorted(self.model.begun)
        found = self.engine.runs()
        assert [found[number].state.value for number in sorted(found)] == [run.state for run in self.model.runs]
        for number, one in enumerate(self.model.runs):
            assert found[number].attempt == one.attempt
            if one.due is not None:
                due_at = found[number].due_at
                assert due_at is not None
                assert Fraction(round((due_at - self.engine.began).total_seconds() * 1e6), 10**6) == one.due

    def teardown(self) -> None:
        if self.driven is not None:
            self.driven.close()
