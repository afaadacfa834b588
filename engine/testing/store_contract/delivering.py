"""Cases on deliveries and tallies."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from engine.deliveries import Delivery, DeliveryFilter, DeliveryHead, DeliveryState, Tried
from engine.ids import new_id
from engine.runs import RunState
from engine.store.changes import Accept
from engine.tallies import Tally, TallyKey, TallyRow, Width
from engine.testing.store_contract.material import (
    NOON,
    a_run,
    accept,
    an_entry,
    an_event,
    at,
    finish,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

_WITH_THE_END = (
    "Store: The `deliveries` of an `Accept` are stored in the same transaction as what it comes with: the end of a run "
    "and what is told of it."
)
_TRIED = "Store: What `tried` says of a delivery that does not wait, or is not there, has no effect."
_FORGOTTEN = "Store: Those that ended before `forget_deliveries` are gone afterwards, but for more than a thousand."
_TALLIES = "Store: The `tallies` of an `Accept` are stored in the place of those with the same key."
_OLD_TALLIES = (
    "Store: Those of a width that began before what `forget_tallies` says of it are gone afterwards, but for more than "
    "a thousand."
)


def a_delivery(**fields: Any) -> Delivery:
    """Make a delivery that is due at noon."""
    given = {
        "id": new_id(), "target": "callback:oven", "run": new_id(), "job": "oven", "event": "failed",
        "created_at": NOON, "due_at": NOON, "message": {"text": "it burnt", "data": {"n": [1, None]}},
    }  # fmt: skip
    return Delivery(**{**given, **fields})


def tells(*deliveries: Delivery) -> Accept:
    """Store deliveries."""
    return Accept(entries=(), deliveries=deliveries)


def over(delivery: Delivery, seconds: float = 1) -> Accept:
    """Note that a delivery arrived."""
    tried = Tried(
        delivery=delivery.id, state=DeliveryState.DELIVERED, code="delivered", reason="delivered: 200 OK", attempts=1,
        at=at(seconds),
    )  # fmt: skip
    return Accept(entries=(), tried=(tried,))


def a_tally(width: Width, seconds: float, count: int, *, trigger: str = "bake", job: str = "oven") -> TallyRow:
    """Make a tally of so many good runs."""
    tally = Tally()
    tally.add(RunState.SUCCEEDED, 0.5, 1)
    tally.add(RunState.FAILED, None, count)
    key = TallyKey(trigger=trigger, job=job, width=width, began_at=at(seconds))
    return TallyRow(key=key, tally=tally)


class DeliveringCases(Place):
    """What is told of runs, to whom, and what is counted."""

    @promise(_WITH_THE_END, "Store.delivery: Return a delivery, or None.")
    async def test_a_delivery_is_stored_with_the_end_of_its_run(self) -> None:
        async with self.opened() as store:
            event = an_event()
            run = a_run(event)
            await make(store, accept(an_entry(event, run)), start(run))
            delivery = a_delivery(run=run.id)
            await make(store, replace(finish(run), then=tells(delivery)))
            assert await store.delivery(delivery.id) == delivery
            again = a_delivery(run=run.id)
            # A run ends once: what goes with a second end is not stored.
            (result,) = await store.apply([replace(finish(run), then=tells(again))])
            assert isinstance(result, Exception)
            assert await store.delivery(again.id) is None

    @promise(_TRIED)
    async def test_what_is_over_stays_as_it_is(self) -> None:
        async with self.opened() as store:
            delivery = a_delivery()
            await make(store, tells(delivery), over(delivery))
            tried = Tried(
                delivery=delivery.id, state=DeliveryState.WAITING, code="waiting", reason="again", attempts=2,
                at=NOON, due_at=at(5),
            )  # fmt: skip
            await make(store, Accept(entries=(), tried=(tried, replace(tried, delivery=new_id()))))
            found = await store.delivery(delivery.id)
            assert found is not None
            assert (found.state, found.attempts, found.finished_at) == (DeliveryState.DELIVERED, 1, at(1))
            assert found.due_at is None

    @promise(_FORGOTTEN, "Store.has_deliveries_before: Tell whether a delivery ended before an instant.")
    async def test_what_ended_long_ago_is_forgotten(self) -> None:
        async with self.opened() as store:
            old, new, waits = a_delivery(), a_delivery(), a_delivery()
            await make(store, tells(old, new, waits), over(old, 1), over(new, 100))
            assert await store.has_deliveries_before(at(50))
            await make(store, Accept(entries=(), forget_deliveries=at(50)))
            assert not await store.has_deliveries_before(at(50))
            left = await store.deliveries(DeliveryFilter(), limit=10)
            assert [one.id for one in left] == [waits.id, new.id]

    @promise(
        "Store.deliveries: Return at most `limit` deliveries, the newest first; those before the id `before` where it "
        "is given."
    )
    async def test_deliveries_are_listed(self) -> None:
        async with self.opened() as store:
            made = [a_delivery(target=f"notify:{number % 2}") for number in range(5)]
            await make(store, tells(*made), over(made[0]))
            page = await store.deliveries(DeliveryFilter(), limit=3)
            assert page == made[:1:-1]
            page = await store.deliveries(DeliveryFilter(target="notify:0"), limit=3, before=made[4].id)
            assert [one.id for one in page] == [made[2].id, made[0].id]
            assert await store.deliveries(DeliveryFilter(run=made[3].run), limit=3) == [made[3]]
            page = await store.deliveries(DeliveryFilter(state=DeliveryState.DELIVERED), limit=3)
            assert [one.id for one in page] == [made[0].id]

    @promise(
        "Store.delivery_heads: Return each target for which a delivery waits, and when the first is due; a step for "
        "each target.",
        "Store.due_deliveries: Return at most `limit` deliveries to a target that wait and are due by then, the first "
        "due first.",
        "Store.waiting_deliveries: Return how many deliveries wait, by target.",
        "Store.waiting_deliveries: Reads all of these.",
    )
    async def test_what_waits_is_found_by_its_target(self) -> None:
        async with self.opened() as store:
            assert await store.delivery_heads() == []
            a2, a1, a9 = (a_delivery(target="a", due_at=at(seconds)) for seconds in (2, 1, 9))
            gone, c5 = a_delivery(target="b"), a_delivery(target="c", due_at=at(5))
            await make(store, tells(a2, a1, a9, gone, c5), over(gone))
            assert await store.delivery_heads() == [
                DeliveryHead(target="a", due_at=at(1)), DeliveryHead(target="c", due_at=at(5))
            ]  # fmt: skip
            assert await store.due_deliveries("a", before=at(2), limit=9) == [a1, a2]
            assert await store.due_deliveries("a", before=at(9), limit=1) == [a1]
            assert await store.waiting_deliveries() == {"a": 3, "c": 1}

    @promise(
        _TALLIES,
        "Store.tallies: Return the tallies of a trigger, or of a job, that begin from `start` to before `end`, in that "
        "order.",
        "Store.tallies_at: Return all tallies that begin at an instant.",
    )
    async def test_tallies_are_kept_by_trigger_job_and_time(self) -> None:
        async with self.opened() as store:
            first, second = a_tally(Width.HOUR, 0, 1), a_tally(Width.HOUR, 3600, 2)
            other, day = a_tally(Width.HOUR, 0, 3, trigger="grind"), a_tally(Width.DAY, 0, 4)
            await make(store, Accept(entries=(), tallies=(a_tally(Width.HOUR, 0, 9), second, other, day)))
            await make(store, Accept(entries=(), tallies=(first,)))
            found = await store.tallies(trigger="bake", width=Width.HOUR, start=NOON, end=at(7200))
            assert found == [first, second]
            assert await store.tallies(trigger="bake", width=Width.HOUR, start=at(1), end=at(3600)) == []
            found = await store.tallies(job="oven", width=Width.HOUR, start=NOON, end=at(1))
            assert found == [first, other]
            assert await store.tallies_at(Width.DAY, NOON) == [day]

    @promise("Store.last_tallies: Return, for each of the triggers, its tallies of the latest day that it has any of.")
    async def test_the_tallies_of_the_latest_day_of_triggers_are_found(self) -> None:
        async with self.opened() as store:
            rows = [
                a_tally(Width.DAY, 0, 1),
                a_tally(Width.DAY, 86_400, 2),
                a_tally(Width.DAY, 86_400, 3, job="mill"),
                a_tally(Width.HOUR, 200_000, 4),
                a_tally(Width.DAY, 0, 5, trigger="grind"),
                a_tally(Width.DAY, 0, 6, trigger="other"),
            ]
            await make(store, Accept(entries=(), tallies=tuple(rows)))
            found = await store.last_tallies(["bake", "grind", "nobody"])
            assert sorted(found, key=lambda row: row.tally.ends[RunState.FAILED]) == [rows[1], rows[2], rows[4]]
            assert await store.last_tallies([]) == []

    @promise(
        "Store.ended_since: Return the runs that ended after an instant, of the latest `limit` made since an hour "
        "before it."
    )
    async def test_what_ended_lately_is_found(self) -> None:
        async with self.opened() as store:
            made = []
            for _ in range(3):
                event = an_event()
                run = a_run(event)
                await make(store, accept(an_entry(event, run)), start(run))
                made.append(run)
            await make(store, finish(made[0]), finish(made[2]))
            ended = [run for run in [await store.run(one.id) for one in made] if run and run.finished_at]
            assert [run.id for run in ended] == [made[0].id, made[2].id]
            finished = ended[0].finished_at
            assert finished is not None
            before = finished - timedelta(microseconds=1)
            # Ids are made by the machine's clock, which is later than all of these instants.
            assert {run.id for run in await store.ended_since(before, limit=9)} == {run.id for run in ended}
            assert [run.id for run in await store.ended_since(before, limit=1)] == [made[2].id]
            assert await store.ended_since(finished + timedelta(days=1), limit=9) == []

    @promise(
        _OLD_TALLIES, "Store.first_tally_at: Return when the oldest tally of a width begins; None where there is none."
    )
    async def test_old_tallies_are_forgotten_by_their_width(self) -> None:
        async with self.opened() as store:
            assert await store.first_tally_at(Width.HOUR) is None
            rows = [a_tally(width, seconds, 1) for width in Width for seconds in (0, 3600)]
            await make(store, Accept(entries=(), tallies=tuple(rows)))
            await make(store, Accept(entries=(), forget_tallies={Width.HOUR: at(3600)}))
            assert await store.tallies_at(Width.HOUR, NOON) == []
            assert await store.first_tally_at(Width.HOUR) == at(3600)
            assert await store.tallies_at(Width.HOUR, at(3600)) == [rows[1]]
            assert await store.tallies_at(Width.DAY, NOON) == [rows[2]]
