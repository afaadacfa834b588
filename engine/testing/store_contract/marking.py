"""Cases on what gates remember, and on what waits only so long."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from engine.decide.marks import Claim, Mark, Place
from engine.errors import Conflict
from engine.runs import RunState
from engine.store.base import Store
from engine.store.changes import Accept, Enqueue, Postpone, Shift
from engine.testing.store_contract.material import (
    a_join,
    accept,
    accept_run,
    an_entry,
    an_event,
    at,
    end,
    enqueue,
    make,
    start,
    step,
)
from engine.testing.store_contract.place import Place as Setting
from engine.testing.store_contract.promises import promise

KEY: Place = ("bake", "dedupe", "sack 7")

_SAME_TRANSACTION = (
    "Store: A claim on a mark is made in the same transaction as the events or the run that it comes with."
)
_REFUSED = (
    "Store: Where there is another mark that has an effect at the claim's `now`, and that is not the `seen` one, the "
    "whole change is a conflict; so it is where one that is to be extended is not the seen one, or not there."
)


def a_claim(
    until: float, *, seen: float | None = None, now: float = 0.0, place: Place = KEY, run: str | None = None,
    extends: bool = False, forced: bool = False,
) -> Claim:  # fmt: skip
    """Claim a mark until so many seconds after noon."""
    return Claim(
        place=place, mark=Mark(at(until), run, at(99)), now=at(now), seen=None if seen is None else at(seen),
        extends=extends, forced=forced,
    )  # fmt: skip


def claiming(*claims: Claim) -> Accept:
    """Make a new event that comes with claims."""
    return accept(replace(an_entry(an_event()), claims=claims))


class MarkingCases(Setting):
    """**Marks** of the contract, and expiry."""

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @promise(_SAME_TRANSACTION, "Store.marks: Return the marks at these places, where there are any.")
    async def test_claims_are_made_with_their_events(self, store: Store, together: bool) -> None:
        other: Place = ("bake", "throttle", "")
        one, two = claiming(a_claim(5, run="r1")), claiming(a_claim(7, place=other))
        for batch in [[one, two]] if together else [[one], [two]]:
            await make(store, *batch)
        found = await store.marks([KEY, other, ("bake", "dedupe", "unknown")])
        assert found == {KEY: Mark(at(5), "r1", at(99)), other: Mark(at(7), None, at(99))}

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @pytest.mark.parametrize(
        ("second", "kept"),
        [
            (a_claim(9), 5),
            (a_claim(9, seen=4), 5),
            (a_claim(9, seen=5), 9),
            (a_claim(9, now=5), 9),
            (a_claim(9, forced=True), 9),
            (a_claim(9, seen=5, extends=True), 9),
            (a_claim(9, seen=4, extends=True), 5),
            (a_claim(9, seen=9, extends=True, place=("bake", "dedupe", "another")), 5),
        ],
        ids=["unseen", "another was seen", "seen", "over", "forced", "extended", "another extended", "none extended"],
    )
    @promise(_REFUSED)
    async def test_a_mark_is_only_replaced_by_who_has_seen_it_or_once_it_is_over(
        self, store: Store, second: Claim, kept: float, together: bool
    ) -> None:
        first, change = claiming(a_claim(5)), claiming(second)
        results = [found for batch in ([[first, change]] if together else [[first], [change]])
                   for found in await store.apply(batch)]  # fmt: skip
        assert isinstance(results[1], Conflict) == (kept == 5)
        assert (await store.marks([KEY]))[KEY].until == at(kept)
        assert (await store.event(change.entries[0].event.id) is None) == (kept == 5)

    @promise(_SAME_TRANSACTION)
    async def test_a_chain_of_claims_on_one_mark_is_made_in_one_call(self, store: Store) -> None:
        chain = [claiming(a_claim(n + 1, seen=n or None)) for n in range(100)]
        await make(store, *chain)
        assert (await store.marks([KEY]))[KEY].until == at(100)

    @promise(_SAME_TRANSACTION)
    async def test_the_claims_of_an_event_that_is_known_are_not_made(self, store: Store) -> None:
        first, again = an_event(key="k"), an_event(key="k")
        await make(store, accept(an_entry(first)))
        await make(store, accept(replace(an_entry(again), claims=(a_claim(5),))))
        assert await store.marks([KEY]) == {}

    @promise(_SAME_TRANSACTION)
    async def test_a_mark_names_the_run_that_there_is(self, store: Store) -> None:
        first, second = an_event("mill"), an_event("farm")
        known, twin = (accept_run(key="today")[1] for _ in range(2))
        await make(store, accept(an_entry(first, replace(known, event=first.id))))
        entry = an_entry(second, replace(twin, event=second.id))
        await make(store, accept(replace(entry, claims=(a_claim(5, run=twin.id),))))
        assert (await store.marks([KEY]))[KEY].run == known.id

    @promise(_SAME_TRANSACTION, _REFUSED)
    async def test_a_run_is_postponed_with_its_claims_or_not_at_all(self, store: Store) -> None:
        _, run, change = accept_run(state=RunState.PENDING, window="w", expires_at=at(60))
        await make(store, change)
        later = Postpone(run=run.id, step=step(RunState.PENDING), due_at=at(30), claims=(a_claim(40),))
        await make(store, later)
        found = await store.run(run.id)
        assert found is not None
        assert (found.state, found.due_at, found.window, found.code) == (RunState.PENDING, at(30), None, "case_pending")
        assert (found.expires_at, len(found.trace)) == (at(60), 2)
        assert await store.open_windows() == []
        (refused,) = await store.apply([replace(later, due_at=at(50), claims=(a_claim(50),))])
        assert isinstance(refused, Conflict)
        await make(store, start(run))
        (refused,) = await store.apply([replace(later, claims=())])
        assert isinstance(refused, Conflict)
        assert (await store.marks([KEY]))[KEY].until == at(40)

    @promise(
        "Store: With `shift`, all pending runs at that clock of a throttle are due so much later, and its mark holds "
        "until then, in the same transaction.",
        "Throttled: A clock of a throttle, by trigger and key, with the due times of the first and the last run that "
        "wait for it.",
        "Store.throttled: Return the clocks of throttles for which a run waits that was due before that instant.",
    )
    async def test_what_waits_for_one_clock_is_moved_together(self, store: Store) -> None:
        def throttled(due: float, key: str | None, **fields: Any) -> Any:
            return accept_run(state=RunState.PENDING, due_at=at(due), throttled=key, **fields)

        first, second, other = throttled(5, "a"), throttled(8, "a"), throttled(6, "b")
        begun, elsewhere, without = throttled(1, "a"), throttled(1, "a", trigger="other"), throttled(1, None)
        await make(store, *(made[2] for made in (first, second, other, begun, elsewhere, without)))
        await make(store, start(begun[1]))
        found = await store.throttled(before=at(6))
        assert [(clock.trigger, clock.key, clock.first_at, clock.last_at) for clock in found] == [
            ("bake", "a", at(5), at(8)), ("other", "a", at(1), at(1)),
        ]  # fmt: skip
        shift = Shift(trigger="bake", key="a", by=timedelta(seconds=20), until=at(40))
        await make(store, Accept(entries=(), shift=shift))
        due = {run.id: due_at for due_at, run in await store.due(after=None, limit=9)}
        assert due == {
            first[1].id: at(25), second[1].id: at(28), other[1].id: at(6), elsewhere[1].id: at(1), without[1].id: at(1),
        }  # fmt: skip
        assert await store.marks([("bake", "throttle", "a")]) == {("bake", "throttle", "a"): Mark(at(40))}

    @promise("Store.latest_marks: Return at most `limit` marks, those that have an effect for the longest time.")
    async def test_the_marks_with_the_longest_effect_are_found(self, store: Store) -> None:
        places: list[Place] = [("bake", "dedupe", str(n)) for n in range(5)]
        await make(store, *(claiming(a_claim(n + 1, place=place)) for n, place in enumerate(places)))
        assert sorted(await store.latest_marks(limit=2)) == places[3:]

    @promise("Store.has_marks_before: Tell whether there are marks that have no effect from that instant on.")
    async def test_marks_without_effect_are_found_and_forgotten(self, store: Store) -> None:
        await make(store, claiming(a_claim(5)), claiming(a_claim(9, place=("bake", "dedupe", "b"))))
        assert not await store.has_marks_before(at(4))
        assert await store.has_marks_before(at(5))
        await make(store, Accept(entries=(), forget_marks=at(5)))
        assert list(await store.latest_marks(limit=9)) == [("bake", "dedupe", "b")]
        assert not await store.has_marks_before(at(5))

    @promise(
        "Store.expiring: Return at most `limit` pending, queued and held runs that expire, the first to do so first."
    )
    async def test_what_expires_is_found_while_it_waits_for_its_first_attempt(self, store: Store) -> None:
        def expiring(seconds: float, **fields: Any) -> tuple[str, Accept]:
            _, run, change = accept_run(expires_at=at(seconds), **fields)
            return run.id, change

        (queued, one), (pending, two) = expiring(30), expiring(20, state=RunState.PENDING)
        _, begun, three = accept_run(expires_at=at(5))
        _, ended, four = accept_run(expires_at=at(6))
        for_ever = accept_run()[2]
        await make(store, one, two, three, four, for_ever, start(begun), end(ended))
        assert [run.id for run in await store.expiring(limit=9)] == [pending, queued]
        assert [run.id for run in await store.expiring(limit=1)] == [pending]
        await make(store, Enqueue(run=pending, step=step(RunState.QUEUED), rank=1))
        assert [run.id for run in await store.expiring(limit=9)] == [pending, queued]

    async def test_a_run_that_gathers_expires_later_with_each_event(self, store: Store) -> None:
        _, run, change = accept_run(state=RunState.PENDING, due_at=at(10), expires_at=at(70), window="w", event_bytes=4)
        joins = []
        for due in (20.0, 26.0):
            event = an_event()
            join = replace(a_join(event, run, due_at=at(due)), size_bytes=3)
            joins.append(accept(an_entry(event, joins=[join])))
        await make(store, change, *joins)
        found = await store.run(run.id)
        assert found is not None
        assert (found.due_at, found.expires_at, found.event_bytes) == (at(26), at(86), 10)
        await make(store, enqueue(run))
        assert [one.expires_at for one in await store.expiring(limit=1)] == [at(86)]
