"""Cases on joins: by which inputs the events of runs that wait came, and which others took the place of."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from msgspec.structs import replace

from engine.decide.joins import JOIN_WAITS, Filled
from engine.errors import Conflict
from engine.events import Event, EventOutcome
from engine.runs import Run, RunState
from engine.store.base import Store
from engine.store.changes import Entry, Fill, Supersede
from engine.testing.store_contract.material import a_join, a_run, accept, an_entry, an_event, end, make
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise


def by_input(entry: Entry, run: Run, name: str, *supersedes: Supersede) -> Entry:
    """Let the event of an entry have come by an input of a run."""
    fill = Fill(run=run.id, event=entry.event.id, input=name)
    return replace(entry, fills=(fill,), supersedes=supersedes)


def in_place_of(old: Event, new: Event, run: Run, *, first: bool = False) -> Supersede:
    """Let an event take the place of another one in a run."""
    return Supersede(
        run=run.id, trigger=run.trigger, old=old.id, event=new.id, code="join_superseded",
        reason="deduplicated: a later one came", first=first,
    )  # fmt: skip


class JoiningCases(Place):
    """Runs of triggers on several sources, while they wait."""

    @promise(
        "Store.filled: Return by which inputs the events of joins came that still wait, of each join the oldest first."
    )
    async def test_the_inputs_of_runs_that_wait_are_told_of_and_those_of_others_are_not(self, store: Store) -> None:
        sales, stock, other = an_event(), an_event(), an_event()
        waits, over = (a_run(event, state=RunState.PENDING, window="day", code=JOIN_WAITS) for event in (sales, other))
        joined = an_entry(stock, joins=[a_join(stock, waits)])
        await make(
            store,
            accept(by_input(an_entry(sales, waits), waits, "sales")),
            accept(by_input(an_entry(other, over), over, "sales")),
        )
        await make(store, accept(by_input(joined, waits, "stock")), end(over))
        assert await store.filled() == [
            Filled(waits.id, sales.id, "sales", opened=True),
            Filled(waits.id, stock.id, "stock", opened=False),
        ]

    async def test_an_event_that_takes_the_place_of_another_is_told_of_alone(self, store: Store) -> None:
        first, later = an_event(), an_event()
        run = a_run(first, state=RunState.PENDING, window="day", code=JOIN_WAITS)
        await make(store, accept(by_input(an_entry(first, run), run, "sales")))
        joined = an_entry(later, joins=[replace(a_join(later, run), count=0)])
        await make(store, accept(by_input(joined, run, "sales", in_place_of(first, later, run, first=True))))
        assert await store.filled() == [Filled(run.id, later.id, "sales", opened=True)]
        before = await store.event(first.id)
        assert before is not None
        assert [(one.outcome, one.code) for one in before.outcomes] == [(EventOutcome.DEDUPLICATED, "join_superseded")]
        lost = an_event()
        nothing = an_entry(lost, joins=[replace(a_join(lost, run), count=0)])
        (refused,) = await store.apply([accept(by_input(nothing, run, "sales", in_place_of(an_event(), lost, run)))])
        assert isinstance(refused, Conflict)
        assert await store.event(lost.id) is None
