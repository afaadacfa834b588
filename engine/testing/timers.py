"""A check for timers: that `next`, `previous` and `count` agree, as the engine relies on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from engine.plugin import Timer

_MOMENT = timedelta(microseconds=1)


def check_timer(timer: Timer, instants: Iterable[datetime]) -> list[datetime]:
    """Ask a timer around each of the instants, and return all due instants that it named, in order.

    Raises AssertionError with the calls that disagree, where it is not so that: answers are aware, in UTC, later than
    `after` and earlier than `before`; the same question has the same answer; and from each due instant `next` and
    `previous` lead to the neighbours from which the other one leads back, and `count` counts what is between them.
    """
    due: set[datetime] = set()
    for instant in instants:
        following, preceding = _ask(timer, "next", instant), _ask(timer, "previous", instant)
        if following is not None:
            due.add(following)
            _expect(timer, "previous", following + _MOMENT, following, "it was said to be due")
            _expect(timer, "next", following - _MOMENT, following, "it was said to be due")
        if preceding is not None:
            due.add(preceding)
            _expect(timer, "next", preceding - _MOMENT, preceding, "it was said to be due")
            _expect(timer, "previous", preceding + _MOMENT, preceding, "it was said to be due")
        _check_between(timer, preceding, instant, following)
    return sorted(due)


def _check_between(timer: Timer, preceding: datetime | None, instant: datetime, following: datetime | None) -> None:
    """Check that nothing else is due between two neighbours of an instant, which may be due itself."""
    is_due = _ask(timer, "next", instant - _MOMENT) == instant
    if preceding is not None:
        _expect(timer, "next", preceding, instant if is_due else following, f"{_shown(preceding)} is the one before")
    if following is not None:
        _expect(timer, "previous", following, instant if is_due else preceding, f"{_shown(following)} is the next one")
    if preceding is not None and following is not None:
        counted, expected = timer.count(preceding, following), 2 if is_due else 1
        if counted != expected:
            raise AssertionError(
                f"count({_shown(preceding)}, {_shown(following)}) is {counted}, not {expected}: "
                "what is due at the later one is counted, and what is due at the earlier one is not"
            )
    if is_due:
        _expect(timer, "previous", instant + _MOMENT, instant, "`next` says that it is due")


def _ask(timer: Timer, method: str, instant: datetime) -> datetime | None:
    answer, again = (getattr(timer, method)(instant) for _ in range(2))
    call = f"{method}({_shown(instant)})"
    if answer != again:
        raise AssertionError(f"{call} is {_shown(answer)}, and then {_shown(again)}: a timer is pure")
    if answer is None:
        return None
    if not isinstance(answer, datetime) or answer.utcoffset() != timedelta(0):
        raise AssertionError(f"{call} is {answer!r}, which is no aware instant in UTC")
    if answer <= instant if method == "next" else answer >= instant:
        raise AssertionError(f"{call} is {_shown(answer)}, which is not {'later' if method == 'next' else 'earlier'}")
    return answer


def _expect(timer: Timer, method: str, instant: datetime, expected: datetime | None, why: str) -> None:
    answer = _ask(timer, method, instant)
    if answer != expected:
        raise AssertionError(f"{method}({_shown(instant)}) is {_shown(answer)}, not {_shown(expected)}: {why}")


def _shown(instant: object) -> str:
    return instant.astimezone(UTC).isoformat() if isinstance(instant, datetime) else repr(instant)
