"""The lanes of the queue: what people fire and what comes by itself, in one line; and apart from it that of backfills.

The queued runs of backfills get the slots that the line leaves. `engine.decide.lanes` holds the rules; here is what
they are asked about, kept up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.clock import Clock
from engine.decide.lanes import LONGEST_KEPT_S, Room, Waits, ahead, is_kept_too_long, may_use_idle
from engine.decide.limits import Block
from engine.events import Event
from engine.queue import Blocks, Queue, Waiting
from engine.runs import Lane, Run

RoomOf = Callable[[str], Room]
"""Tells the slots of a job; one that may start nothing has none."""


class Front:
    """The queued runs of all but backfills: those that people fired in one queue, all others in another.

    They stand in one line by rank. They are apart so that slots can be kept for either, and where no slot is left for
    one, the other goes on.
    """

    def __init__(self, live: Queue, manual: Queue) -> None:
        self._live = live
        self._manual = manual

    def __len__(self) -> int:
        """How many runs the windows hold."""
        return len(self._live) + len(self._manual)

    def of(self, lane: Lane) -> Queue:
        """Return the queue of a lane."""
        return self._manual if lane is Lane.MANUAL else self._live

    def has(self, job: str) -> bool:
        """Tell whether runs of the job wait."""
        return self._live.has(job) or self._manual.has(job)

    def has_ready(self, job: str) -> bool:
        """Tell whether runs of the job wait for more than a slot of their key."""
        return self._live.has_ready(job) or self._manual.has_ready(job)

    def holds(self, job: str, run_id: str) -> bool:
        """Tell whether a run waits in a window."""
        return self._live.holds(job, run_id) or self._manual.holds(job, run_id)

    def offer(self, run: Run, event: Event | None) -> bool:
        """Take in a run that is queued in the store; return whether more may be taken now, or has to be read."""
        return self.of(run.lane).offer(run, event)

    def remove(self, job: str, run_id: str) -> None:
        """Forget a run that was taken out of the queue in the store."""
        self._live.remove(job, run_id)
        self._manual.remove(job, run_id)

    def find(self, job: str, run_id: str) -> Run | None:
        """Return a run that waits in a window, or None."""
        return self._live.find(job, run_id) or self._manual.find(job, run_id)

    def pick(self, job: str, run_id: str) -> Waiting | None:
        """Take one run out of its turn; None where it does not wait in a window."""
        return self._live.pick(job, run_id) or self._manual.pick(job, run_id)

    def take(self, blocks: Blocks, may_take: Callable[[Lane], bool]) -> Waiting | None:
        """Take the first run that nothing blocks, and whose lane may take a slot."""
        if self._manual.is_quiet:
            return self._live.take(blocks) if may_take(Lane.LIVE) else None
        live = self._live.first(blocks) if may_take(Lane.LIVE) else None
        manual = self._manual.first(blocks) if may_take(Lane.MANUAL) else None
        if manual is not None and (live is None or manual < live):
            return self._manual.take(blocks)
        return None if live is None else self._live.take(blocks)

    def waiting(self, job: str) -> Iterator[Run]:
        """Yield the runs of a job at the heads of its queues, in no order."""
        yield from self._live.waiting(job)
        yield from self._manual.waiting(job)

    def unpark(self, job: str) -> None:
        """Let a job take part again, as one of its slots is free."""
        self._live.unpark(job)
        self._manual.unpark(job)

    def unpark_key(self, job: str, key: str | None) -> None:
        """Let a job take part again, as a slot of one of its keys is free."""
        self._live.unpark_key(job, key)
        self._manual.unpark_key(job, key)

    def unpark_all(self, job: str) -> None:
        """Let a job take part again with all its runs, as its limits are other ones."""
        self._live.unpark_all(job)
        self._manual.unpark_all(job)

    def low(self) -> list[tuple[Queue, str]]:
        """Return the queues and jobs of which more must be read."""
        return [(queue, job) for queue in (self._live, self._manual) for job in queue.low()]


class BackfillLane:
    """The queued runs of all backfills, and how long each job's have been kept from every slot.

    `waiting` is empty while none waits, which costs those who ask nothing.
    """

    def __init__(self, clock: Clock, queue: Queue) -> None:
        self._queue = queue
        self.waiting: dict[str, float] = {}
        """By job, since when its runs wait (monotonic); anew with each that gets a slot or gives it back."""
        self._clock = clock
        self._running: dict[str, set[str]] = {}
        self._ahead: str | None = None

    def expect(self, job: str) -> None:
        """Note, at the start, that the store may hold queued runs of a job's backfills."""
        self._queue.expect(job)
        self._look(job)

    def low(self) -> list[str]:
        """Return the jobs of whose queue more must be read."""
        return self._queue.low()

    def is_low(self, job: str) -> bool:
        """Tell whether more of the job's queue must be read."""
        return self._queue.is_low(job)

    async def refill(self, job: str) -> None:
        """Read more of a job's queue."""
        await self._queue.refill(job)
        self._look(job)

    def unpark(self, job: str) -> None:
        """Let a job take part again, as one of its slots is free."""
        self._queue.unpark(job)

    def unpark_key(self, job: str, key: str | None) -> None:
        """Let a job take part again, as a slot of one of its keys is free."""
        self._queue.unpark_key(job, key)

    def unpark_all(self, job: str) -> None:
        """Let a job take part again with all its runs, as its limits are other ones."""
        self._queue.unpark_all(job)

    def holds(self, job: str, run_id: str) -> bool:
        """Tell whether a run waits in the window."""
        return self._queue.holds(job, run_id)

    def offer(self, run: Run, event: Event | None) -> None:
        """Take in a run that is queued in the store."""
        self._queue.offer(run, event)
        self._look(run.job)

    def remove(self, run: Run) -> None:
        """Forget a run that was taken out of the queue in the store."""
        self._queue.remove(run.job, run.id)
        self._look(run.job)

    def take_ahead(self, engine: Room, room_of: RoomOf, blocks: Blocks) -> Waiting | None:
        """Take the run that gets a slot before live work does, if there is one."""
        now_s = self._clock.monotonic()
        waits = [Waits(job=job, kept_since_s=self._kept_since(job), room=room_of(job)) for job in self.waiting]
        job = ahead(waits, engine, one_is_ahead=self._ahead is not None, now_s=now_s)
        taken = None if job is None else self._queue.take_of(job, blocks)
        if taken is not None:
            self._ahead = taken.run.id
            self._began(taken.run)
        return taken

    def kept_too_long(self) -> list[Run]:
        """Return, of each job that live work has kept from every slot for too long, the run that is to go next."""
        now_s = self._clock.monotonic()
        jobs = [job for job in self.waiting if is_kept_too_long(self._kept_since(job), now_s)]
        return [run for job in jobs if (run := self._queue.peek(job)) is not None]

    def take_idle(self, engine: Room, room_of: RoomOf, blocks: Blocks) -> Waiting | None:
        """Take a run for a slot that no live work wants, if it may have one."""
        if not engine.is_spare:
            return None
        taken = self._queue.take(
            lambda run: blocks(run) if may_use_idle(engine, room_of(run.job)) else Block.JOB
        )  # fmt: skip
        if taken is not None:
            self._began(taken.run)
        return taken

    def ended(self, run: Run) -> None:
        """Note that a run that was taken has given its slot back."""
        if self._ahead == run.id:
            self._ahead = None
        running = self._running.get(run.job)
        if running is not None:
            running.discard(run.id)
            if not running:
                del self._running[run.job]
        if run.job in self.waiting:
            self.waiting[run.job] = self._clock.monotonic()

    def count_anew(self) -> None:
        """Count from now on since when runs wait, as it was no live work that kept them."""
        now_s = self._clock.monotonic()
        self.waiting = dict.fromkeys(self.waiting, now_s)

    def look_in_s(self) -> float:
        """Return after how many seconds a run may be kept for too long; call it while runs wait."""
        since = [kept for job in self.waiting if (kept := self._kept_since(job)) is not None]
        left_s = min(since, default=self._clock.monotonic()) + LONGEST_KEPT_S - self._clock.monotonic()
        return left_s if left_s > 0 else LONGEST_KEPT_S

    def _kept_since(self, job: str) -> float | None:
        return None if job in self._running else self.waiting[job]

    def _began(self, run: Run) -> None:
        self._running.setdefault(run.job, set()).add(run.id)
        self.waiting.pop(run.job, None)
        self._look(run.job)

    def _look(self, job: str) -> None:
        """Note whether runs of a job's backfills wait, and since when."""
        if self._queue.has(job):
            self.waiting.setdefault(job, self._clock.monotonic())
        else:
            self.waiting.pop(job, None)
