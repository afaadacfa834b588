"""Sources and timers: what emits events."""

from __future__ import annotations

import logging
import shlex
from abc import abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from msgspec import Struct

from engine.clock import Clock
from engine.errors import PluginError
from engine.events import Accepted, Event
from engine.plugin.requests import Handler
from engine.plugin.settings import BadSetting, Plugin
from engine.runs import ENDED, RunState


class Settled(Struct, frozen=True, kw_only=True):
    """How a run of an event ended, or stands; see `SourceContext.settled`."""

    run: str
    job: str
    trigger: str
    state: RunState
    code: str
    reason: str


LONGEST_WAIT_S = 60.0
"""How long an answer may wait for the ends of runs, where it is asked to: proxies on the way give up then."""


def waited_view(settled: Sequence[Settled]) -> tuple[int, dict[str, Any]]:
    """Return the status of an answer that waited, and what it tells: 200 where all runs have ended, 202 where not."""
    status = 200 if all(one.state in ENDED for one in settled) else 202
    return status, {"states": {one.run: one.state for one in settled}, "ends": list(settled)}


class Whereabouts(Struct, frozen=True, kw_only=True):
    """Where somebody who wants to try a source stands: for shell lines that work there when they are pasted.

    - `trigger`: the name of a trigger on the source.
    - `base`: the directory of the configuration file.
    - `command`: what calls the engine's command line, such as `.venv/bin/python -m engine`.
    - `url`: the engine's own address, such as `http://127.0.0.1:8080`; None where it does not listen.
    """

    trigger: str
    base: Path
    command: str
    url: str | None

    def path(self, path: Path | str) -> str:
        """Return a path of the configuration as a shell word, relative to the working directory where that is near."""
        whole = self.base / path
        near = Path.cwd()
        return shlex.quote(str(whole.relative_to(near) if whole.is_relative_to(near) else whole))


class RunEnd(Struct, frozen=True, kw_only=True):
    """A kind of end of a run: how runs of a job, made by a trigger, end; see `Source.follows`.

    `outcome` is one of `OUTCOMES`; `tags` are the job's.
    """

    job: str
    trigger: str
    outcome: RunState
    tags: frozenset[str] = frozenset()


class SourceContext(Protocol):
    """What the engine offers to a running source."""

    name: str
    """The id of the source, such as `webhook:github`; events get it as their `source`."""

    clock: Clock
    """Time; a virtual one in tests. A source reads no other clock and sleeps by no other means."""

    log: logging.LoggerAdapter[logging.Logger]
    """A logger whose records carry the source's name."""

    max_data: int
    """The largest data an event may have, as JSON, in bytes; emit refuses more."""

    base: Path
    """The directory of the configuration file: relative paths in settings are relative to it."""

    files: Path
    """A directory, below the engine's own, for files that belong to events; it need not be there yet."""

    async def emit(
        self, *events: Event, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]:
        """Make events durable, with the source's cursor and memory where they are given, in one transaction.

        When it returns, events, their runs, the cursor and what is to be remembered are on disk; the answers
        are in the order of the events. An event with a key that came before is not stored again: its answer
        says `duplicate`. `cursor` is any JSON value but None. `remember` holds any JSON values by key (text of 1 to
        1024 characters); a value of None forgets the key. It is for sources that have to know more than how far
        they came, such as the files of a directory; what a cursor can tell belongs there.

        Raises InvalidEvent when one of them is no event (none is stored then), and StoreUnavailable when the
        store can't take them now: what was not emitted must stay where it came from, and be offered again.
        """
        ...

    async def reject(self, event: Event, reason: str) -> Accepted:
        """Record something that came but is not valid, so that `why` can tell of it; no trigger runs for it."""
        ...

    async def cursor(self) -> Any:
        """Return the cursor that was last made durable, or None before the first."""
        ...

    async def remembered(self) -> dict[str, Any]:
        """Return all that `emit` was told to remember and not to forget, by key, in the order of the keys."""
        ...

    async def settled(self, accepted: Accepted, *, within_s: float | None = None) -> tuple[Settled, ...]:
        """Wait until all runs of an event have ended, however long it takes, and return how, in their order.

        With `within_s` it returns when so many seconds have passed, or the engine stops, with how each run stands then.

        `accepted` is what `emit` answered for the event: after a restart emit it again, under its key, to have the
        answer again. An event without runs is settled at once, with an empty answer.
        """
        ...

    def as_stored(self, event: Event) -> Event:
        """Return an event as it would be stored, such as to compare it with one that is; raise InvalidEvent.

        What is redacted is replaced, and data that is `Raw` is read.
        """
        ...

    async def stored(self, accepted: Accepted) -> Event | None:
        """Return an event that was accepted as it is stored; None where it is not any more."""
        ...

    def ready(self) -> None:
        """Say that the source receives: an engine that starts is ready when all its sources did, or failed."""
        ...

    def warn(self, text: str | None) -> None:
        """Say what is wrong while the source goes on, such as a directory that is gone; None: all is well again.

        The text is shown with the source, and the engine's health is `degraded` as long as it stands. The end of
        the source takes it back. Say it as often as you like: only what is new is logged.
        """
        ...

    def every(self, seconds: float) -> AsyncIterator[None]:
        """Iterate at once and then every `seconds`, measured from start to start; slow rounds skip beats.

        Where the source's interval is adapted, so is this: see `pause`.
        """
        ...

    async def pause(self, seconds: float, *, since_s: float | None = None) -> None:
        """Wait until `seconds` have passed since `since_s`, of the monotonic clock (None: since now).

        For sources that choose their own pauses between looks. Where a trigger's `adaptive` makes the source's interval
        longer or shorter, so is the pause, by the same factor, also one that is going on.
        """
        ...

    def paced(self, seconds: float) -> float:
        """Return how long a period or pause is now, by that factor, where it waits for other things as well."""
        ...

    def route(self, method: str, path: str, handler: Handler, *, encodings: Collection[str] = ()) -> None:
        """Answer requests for `path` (below `/hooks/`) on the engine's listener for as long as the source runs.

        A body with a Content-Encoding is refused, but for the `encodings` that the handler undoes itself, in bounds.
        """
        ...


class Source(Plugin, frozen=True, kw_only=True):
    """Something that emits events, such as a watched directory.

    Sources with equal settings are one source, shared by the triggers that name them.

    - `gets_requests`: whether its events carry `http`, so that triggers' expressions may use it.
    - `hears`: whether it takes events that came in through the API; they are offered to `accepts`.
    - `follows_runs`: whether ends of runs are events for its triggers; `follows` tells which.
    - `emits`: whether it emits events by itself. Those that come to its triggers in other ways (they are heard, follow
      runs or are fired) are not counted as its.
    - `previews`: whether it can say what it would emit; see `preview`.
    - `ready_within_s`: how long it may take from its start, or from what it last emitted, until it says that it is
      ready; beyond it is cancelled, and started again after a pause.
    """

    gets_requests: ClassVar[bool] = False
    hears: ClassVar[bool] = False
    follows_runs: ClassVar[bool] = False
    emits: ClassVar[bool] = True
    previews: ClassVar[bool] = False
    ready_within_s: ClassVar[float] = 60.0

    def identity(self) -> str | None:
        """Return what makes it the same source when other settings change, such as a webhook's path.

        Event keys and cursors are kept under it. None: a digest of all settings.
        """
        return None

    def base_interval(self) -> float | None:
        """Return how often it looks, in seconds, by its settings, where that may be adapted; None: it may not.

        It then waits between its looks by `SourceContext.every` or `pause`, or as long as `paced` says.
        """
        return None

    def with_interval(self, interval_s: float) -> Self:
        """Return it with another `base_interval`, of one second or more, where it has one.

        Raises BadSetting where it can't have that.
        """
        raise BadSetting("interval", f"can't be another one: {self.name} does not say how")

    def accepts(self, event: Event) -> bool:
        """Tell whether an event that came in through the API is one for its triggers (where it `hears`)."""
        return False

    def try_it(self, here: Whereabouts) -> str | None:
        """Return a shell line that makes it emit an event, for people who try it; None where there is none."""
        return None

    def follows(self, end: RunEnd) -> bool:
        """Tell whether ends of this kind are events for its triggers (where it `follows_runs`).

        The engine makes the event, of the type `engine.run.<outcome>`, durable in the very commit of the run's end. It
        asks once for each kind of end and keeps the answer, and it asks when the configuration is checked, to find
        loops: a job whose end starts it again, perhaps by way of others.
        """
        return False

    def may_loop(self) -> bool:
        """Tell whether its author said that loops through its triggers are meant (where it `follows_runs`)."""
        return False

    async def preview(self, context: SourceContext, cursor: Any) -> None:
        """Look once, as `run` does from what was stored, and emit what is found (where it `previews`).

        Of what is emitted, remembered and rejected nothing is kept: it is shown to who asked. When that is enough, the
        call is cancelled. `cursor` is what they chose in the place of what was stored, as text or a number; None: that.
        Raise BadSetting("cursor", …) for one that is of no use, and PluginError where nothing could be told.
        """
        raise PluginError(f"sources of the plugin {self.name} can't tell what they would emit")

    @abstractmethod
    async def run(self, context: SourceContext) -> None:
        """Emit events until cancelled. What it raises is logged, and it is started again after a pause."""
