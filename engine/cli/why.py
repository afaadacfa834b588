"""Why something ran, or did not: sentences made of traces and outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.cli.client import Client
from engine.cli.failures import Gone, NotThere
from engine.cli.output import local, sentence
from engine.cli.pausing import sentences as sentences_of_pauses
from engine.events import at_first
from engine.ids import is_id, is_tail

LAST_RUNS = 10
LAST_EVENTS = 50


def ask(client: Client, what: str) -> dict[str, Any]:
    """Return what the engine knows of a run or an event, by id, or of a trigger, by name."""
    if not is_id(what):
        try:
            trigger = client.get("triggers", what)
        except NotThere:
            if not is_tail(what.lower()):
                raise
            return ask(client, _by_tail(client, what))
        return {
            "trigger": trigger,
            "runs": client.get("triggers", what, "runs", limit=LAST_RUNS)["items"],
            "events": client.get("events", trigger=what, limit=LAST_EVENTS)["items"],
        }
    try:
        run = client.get("runs", what)
        paused = client.get("status").get("paused") if run["state"] in ("queued", "retrying") else None
        events, gone = _those_that_are_there(client, "events", run["events"][-LAST_RUNS:])
        return {"run": run, "events": events, "gone": gone, **({"paused": paused} if paused else {})}
    except NotThere as error:
        no_run = error
    try:
        event = client.get("events", what)
    except NotThere as error:
        found = next((each for each in (error, no_run) if isinstance(each, Gone)), None)
        raise found or NotThere(f"there is no run and no event {what}") from None
    runs, gone = _those_that_are_there(
        client, "runs", dict.fromkeys(outcome["run"] for outcome in event["outcomes"] if outcome["run"])
    )
    return {"event": event, "runs": runs, "gone": gone}


def _by_tail(client: Client, tail: str) -> str:
    """Return the id of the run, or of the event, that ends with these digits."""
    try:
        return client.named("runs", tail)
    except NotThere as error:
        no_run = error
    try:
        return client.named("events", tail)
    except NotThere as error:
        raise NotThere(f"there is no trigger {tail}; {no_run}; {error}") from None


def _those_that_are_there(client: Client, what: str, ids: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return runs or events by their ids, and of those that were removed after their time what the engine says."""
    found, gone = [], []
    for one in ids:
        try:
            found.append(client.get(what, one))
        except Gone as error:
            gone.append(str(error))
    return found, gone


def sentences(known: dict[str, Any]) -> Iterator[str]:
    """Tell what `ask` found."""
    if "run" in known:
        yield from _run(known["run"])
        if "paused" in known:
            yield from (f"  Nothing starts now: {line}." for line in sentences_of_pauses([known["paused"]]))
        for event in known["events"]:
            yield f"It is for {_event_name(event)}."
            for outcome in event["outcomes"]:
                if outcome["run"] == known["run"]["id"]:
                    yield from gates_seen(outcome.get("gates", ()))
        yield from (f"{line[:1].upper()}{line[1:]}." for line in known["gone"])
    elif "event" in known:
        yield from _event(known["event"])
        for run in known["runs"]:
            yield ""
            yield from _run(run)
        yield from (f"{line[:1].upper()}{line[1:]}." for line in known["gone"])
    else:
        yield from _trigger(known)


def _run(run: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Run {run['id']} of job {run['job']}, by trigger {run['trigger']} ({run['origin']}): "
        f"{sentence(run['state'], run['reason'])}"
    )
    if cause := run.get("cause"):
        yield f"  {_caused(cause)}."
    if run["scheduled_for"]:
        yield f"  It was due at {local(run['scheduled_for'])}."
    if run.get("waits_for"):
        yield f"  It {run['waits_for']}."
    for step in run["trace"]:
        yield f"  {local(step['at'])}  {sentence(step['state'], step['reason'])} [{step['code']}]"
    for attempt in run["attempts"]:
        yield f"  {_attempt(attempt)}"
    if run["due_at"] and not run["finished_at"]:
        yield f"  It is not to start before {local(run['due_at'])}."


def _attempt(attempt: dict[str, Any]) -> str:
    began, ended = local(attempt["started_at"]), local(attempt["finished_at"])
    if attempt["counted"]:
        return f"Attempt {attempt['number']} began {began} and {attempt['state']} {ended}: {attempt['reason']}"
    cause = "death" if attempt["code"] == "engine_died" else "stop"
    return (
        f"An attempt {attempt['number']} began {began} and was interrupted by the engine's {cause}, recorded {ended}; "
        "it does not count"
    )


def _event(event: dict[str, Any]) -> Iterator[str]:
    yield f"E{_event_name(event)[1:]}, was received {local(event['received_at'])}."
    if cause := event.get("cause"):
        yield f"  {_caused(cause)}."
    for outcome in event["outcomes"]:
        yield f"  {_outcome(outcome)}"
        yield from gates_seen(outcome.get("gates", ()))


def _caused(cause: Mapping[str, Any]) -> str:
    """Say which run caused something, and by which way."""
    runs = "1 run" if cause["hops"] == 1 else f"{cause['hops']} runs"
    way = ("… → " if cause["hops"] > len(cause["via"]) else "") + " → ".join(cause["via"])
    return f"It was caused by run {cause['run']}, after {runs} in a chain: {way}"


def gates_seen(gates: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Tell what each gate of a trigger saw of an event, and what it said."""
    for gate in gates:
        saw = gate["saw"]
        if isinstance(saw, dict):
            saw = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in saw.items())
        told = "" if saw in (None, "") else f"; it saw {saw}"
        yield f"      {gate['gate']}: {gate['verdict'].replace('_', ' ')}{told}"


def _event_name(event: dict[str, Any]) -> str:
    subject = f" about {event['subject']}" if event["subject"] else ""
    return f"event {event['id']} of type {event['type']}{subject}, from {event['source']}"


def _outcome(outcome: dict[str, Any]) -> str:
    met = f"trigger {outcome['trigger']}" if outcome["trigger"] else "no trigger"
    run = f", run {outcome['run']}" if outcome["run"] else ""
    told = at_first(outcome["reason"].removeprefix(f"{outcome['outcome']}: "))
    return f"{met}: {outcome['outcome']}{run}: {told} [{outcome['code']}]"


def _refused(found: dict[str, Any]) -> str:
    count = (
        "1 request was refused, at" if found["count"] == 1 else f"{found['count']:,} requests were refused, the last at"
    )
    said = found["last_reason"].rstrip(".")
    return f"{count} {local(found['last_at'])} from {found['last_remote']} with {found['last_status']}: {said}"


def trouble_of(trigger: dict[str, Any]) -> str | None:
    """Say what is wrong with a trigger's source, and since when."""
    found = trigger.get("source_problem")
    if found is None:
        return None
    since = f" (since {local(found['since'])})" if found["since"] else ""
    return f"its source {trigger['source']}: {found['problem'].rstrip('.')}{since}"


def guards_of(view: Mapping[str, Any]) -> Iterator[str]:
    """Say of a trigger or source whether it is in quarantine, and whether events are missing there."""
    for guard in (view.get("quarantine"), view.get("expected")):
        if guard is not None and guard["reason"]:
            yield guard["reason"]


def _trigger(known: dict[str, Any]) -> Iterator[str]:
    trigger, runs = known["trigger"], known["runs"]
    yield f"Trigger {trigger['name']} is {trigger['state']} and runs job {trigger['job']}."
    if trigger.get("state_reason"):
        yield f"  {trigger['state_reason'][:1].upper()}{trigger['state_reason'][1:]}."
    for line in guards_of(trigger):
        if line != trigger.get("state_reason"):
            yield f"  {line[:1].upper()}{line[1:]}."
    if trigger.get("next_at"):
        at = trigger.get("next_fires_at")
        fires = f", and fires {local(at)}: its load is spread" if at not in (None, trigger["next_at"]) else ""
        yield f"  It is next due {local(trigger['next_at'])}{fires}."
    if (trouble := trouble_of(trigger)) is not None:
        yield f"  {trouble[:1].upper()}{trouble[1:]}."
    if trigger.get("refused_requests"):
        yield f"  {_refused(trigger['refused_requests'])}. `refusals {trigger['name']}` says more."
    yield "Its last runs:" if runs else "It has had no run."
    for run in runs:
        yield f"  {local(run['created_at'])}  run {run['id']} {sentence(run['state'], run['reason'])} [{run['code']}]"
    others = [
        (event, outcome)
        for event in known["events"]
        for outcome in event["outcomes"]
        if outcome["trigger"] == trigger["name"] and outcome["outcome"] != "run"
    ]
    if others:
        yield "Events that came to no run of their own:"
    for event, outcome in others:
        subject = f" about {event['subject']}" if event["subject"] else ""
        yield (
            f"  {local(event['received_at'])}  event {event['id']} of type {event['type']}{subject} "
            f"was {sentence(outcome['outcome'], outcome['reason'])} [{outcome['code']}]"
        )
