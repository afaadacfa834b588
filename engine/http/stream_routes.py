"""Server-sent events: what happens in the engine, as it becomes durable.

The format is that of the HTML standard (server-sent events, https://html.spec.whatwg.org/multipage/).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from msgspec import field
from msgspec.structs import replace

from engine.errors import StoreUnavailable
from engine.feed import MOST_LISTENERS, Feed, Kind, Message
from engine.http.calls import Call, Stream
from engine.http.described import Media, described
from engine.http.forms import Form
from engine.http.kinds import Line, Slug, SomeOf, words_of
from engine.http.problems import Problem
from engine.payload import encode_json
from engine.runs import RunState

LAST = "Last-Event-ID"
PAGE = 100
LOOK_S = 1.0
"""How often it is looked whether the client is there still, while nothing happens."""

ALIVE_EVERY = 15
"""After so many looks a comment is sent, so that nobody between here and there takes the connection for dead."""

TOGETHER_S = 0.05
"""Messages that come together go out together."""

HELLO = b"retry: 2000\n\n"
ALIVE = b": alive\n\n"


class Listening(Form, frozen=True, kw_only=True):
    """What a client wants to hear of."""

    types: Annotated[frozenset[str] | None, SomeOf(words_of(Kind), "type"), "Several with commas; by default all"] = (
        None
    )
    job: Annotated[str | None, Slug(), "Runs of this job alone"] = None
    trigger: Annotated[str | None, Slug(), "What is about this trigger alone"] = None
    tag: Annotated[str | None, Line(128), "What is about triggers with this tag alone"] = None
    states: Annotated[
        frozenset[str] | None, SomeOf(words_of(RunState), "state"), "Runs that come to these states alone"
    ] = field(name="state", default=None)
    last: Annotated[str | None, Line(128), "As the header Last-Event-ID, for who can't send one"] = field(
        name="last_event_id", default=None
    )


@described({200: Media(kind="text/event-stream", what="What happens")})
async def get_stream(call: Call, query: Listening) -> Stream:
    """Send what happens, as it becomes durable: `run`, `event`, `trigger`, `alert`; data is JSON.

    Who comes back with the `Last-Event-ID` gets what came meanwhile; where that is not there any more a `reset` comes
    first: read anew what you show. At most 50 may listen at once.
    """
    if call.operations.feed.listeners >= MOST_LISTENERS:
        detail = f"{MOST_LISTENERS} clients listen already; close one, or ask again later"
        raise Problem(503, detail, code="too_many_streams", headers={"Retry-After": "30"})
    last = call.request.headers.get(LAST) or query.last
    return Stream(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"},
        chunks=_messages(call, query, last),
    )


async def _messages(call: Call, query: Listening, last: str | None) -> AsyncIterator[bytes]:
    feed = call.operations.feed
    with feed.listen():
        yield HELLO
        place = feed.place(last)
        if place is None:
            place = feed.latest
            yield _reset(feed, place, "what came since is not known any more")
        else:
            yield _at(feed, place)
        looks = 0
        while not call.gone():
            if place >= feed.latest:
                await feed.wait(place, LOOK_S)
                looks += 1
                if place >= feed.latest:
                    if looks % ALIVE_EVERY == 0:
                        yield ALIVE
                    continue
                await call.operations.clock.sleep(TOGETHER_S)
            found = feed.after(place, PAGE)
            if found is None:
                place = feed.latest
                yield _reset(feed, place, "more happened than could be sent")
                continue
            place = found[-1].number
            wanted = [_in_scope(call, await _known(call, message)) for message in found]
            if chunk := b"".join(
                _said(feed, one) for one in wanted if one is not None and _is_wanted(call, query, one)
            ):
                yield chunk
            else:
                yield _at(feed, place)


async def _known(call: Call, message: Message) -> Message:
    """Return a message with the job and trigger of its run, also of one that began before anybody listened."""
    feed, data = call.operations.feed, message.data
    if message.kind is not Kind.RUN or data["job"] is not None:
        return message
    whose = feed.whose(data["id"])
    if whose is None:
        try:
            run = await call.operations.store.run(data["id"])
        except StoreUnavailable:
            return message
        if run is None:
            return message
        feed.learn(run)
        whose = (run.job, run.trigger)
    job, trigger = whose
    return replace(message, data={**data, "job": job, "trigger": trigger}, job=job, triggers=(trigger,))


def _in_scope(call: Call, message: Message) -> Message | None:
    """Return what a token may know of a message: one with tags of what is about its triggers alone."""
    if call.who is None or not call.who.tags:
        return message
    names = frozenset(call.operations.trigger_names())
    if names.isdisjoint(message.triggers):
        return None
    data = message.data
    if message.kind is Kind.EVENT:
        data = {**data, "outcomes": [one for one in data["outcomes"] if one["trigger"] in names]}
    return replace(message, data=data, triggers=tuple(name for name in message.triggers if name in names))


def _is_wanted(call: Call, query: Listening, message: Message) -> bool:
    if query.types is not None and message.kind not in query.types:
        return False
    if query.trigger is not None and query.trigger not in message.triggers:
        return False
    if query.tag is not None and call.operations.tagged(query.tag).isdisjoint(message.triggers):
        return False
    if query.job is not None and query.job != message.job:
        return False
    return query.states is None or (message.kind is Kind.RUN and message.data["state"] in query.states)


def _said(feed: Feed, message: Message) -> bytes:
    return _block(feed, message.number, message.kind, message.data)


def _reset(feed: Feed, place: int, reason: str) -> bytes:
    return _block(feed, place, "reset", {"reason": reason})


def _at(feed: Feed, place: int) -> bytes:
    """Say where in the stream this is, without a message: who comes back need not hear again what was not for it."""
    return f"id: {feed.id_of(place)}\n\n".encode()


def _block(feed: Feed, number: int, kind: str, data: Any) -> bytes:
    head = f"id: {feed.id_of(number)}\nevent: {kind}\ndata: ".encode()
    return head + encode_json(data) + b"\n\n"
