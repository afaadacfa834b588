"""Reads of the queue as a whole, for those who look at it: the line of what is ready, over all jobs.

Dispatch takes each job's queue from its own index; the line is these merged by rank. What is merged are places alone,
which the indexes hold; whole runs are read for one page. So a page costs by its length and the number of jobs, however
long the queue is.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator

from engine.runs import Lane, Run
from engine.store.base import Depth, QueuePlace
from engine.store.reads import LANES, next_job, snapshot
from engine.store.reads import run as read_one


def _queries(lane: Lane) -> dict[str, str]:
    index, holds = LANES[lane]
    of_job = f"from runs indexed by {index} where {holds} and job = ?"
    return {
        # The places of a job's queue, from its head.
        f"{lane}_places": f"select rank, id {of_job} order by rank, id limit ?",
        # The places of a job's queue, from a place on.
        f"{lane}_places_after": f"select rank, id {of_job} and (rank, id) > (?, ?) order by rank, id limit ?",
        # How many of a job's queue stand before a place.
        f"{lane}_before": f"select count(*) {of_job} and (rank, id) < (?, ?)",
        # How many stand in a job's queue.
        f"{lane}_of_job": f"select count(*) {of_job}",
        # How many are queued, and which was made first.
        f"{lane}_depth": f"select count(*), min(id) from runs indexed by {index} where {holds}",
    }


QUERIES = {name: text for lane in Lane for name, text in _queries(lane).items()}


def line(raw: sqlite3.Connection, lanes: Collection[Lane], after: QueuePlace | None, limit: int) -> list[Run]:
    places: list[tuple[int, str]] = []
    with snapshot(raw):
        for lane, name in _queues(raw, lanes):
            if after is None:
                rows = raw.execute(QUERIES[f"{lane}_places"], (name, limit))
            else:
                rows = raw.execute(QUERIES[f"{lane}_places_after"], (name, after.rank, after.run, limit))
            places = heapq.nsmallest(limit, [*places, *rows])
        found = [read_one(raw, run_id) for _, run_id in places]
    return [run for run in found if run is not None]


def ahead(raw: sqlite3.Connection, lanes: Collection[Lane], before: QueuePlace | None) -> dict[str, int]:
    counts: Counter[str] = Counter()
    with snapshot(raw):
        for lane, job in _queues(raw, lanes):
            if before is None:
                (count,) = raw.execute(QUERIES[f"{lane}_of_job"], (job,)).fetchone()
            else:
                (count,) = raw.execute(QUERIES[f"{lane}_before"], (job, before.rank, before.run)).fetchone()
            if count:
                counts[job] += count
    return dict(counts)


def depths(raw: sqlite3.Connection) -> dict[Lane, Depth]:
    found = {}
    with snapshot(raw):
        for lane in Lane:
            count, oldest = raw.execute(QUERIES[f"{lane}_depth"]).fetchone()
            found[lane] = Depth(count=count, oldest=oldest)
    return found


def _queues(raw: sqlite3.Connection, lanes: Collection[Lane]) -> Iterator[tuple[Lane, str]]:
    """Yield each lane with each of its jobs."""
    for lane in sorted(lanes):
        name = ""
        while (found := next_job(raw, lane, name)) is not None:
            yield lane, found
            name = found
