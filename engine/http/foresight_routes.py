"""Routes about the future."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from engine.foresight import Downtime, Page, Question, TooMany
from engine.foresight.desk import LONGEST
from engine.http.calls import Call
from engine.http.fields import Fields, body, media_type, query
from engine.http.problems import Problem
from engine.ids import is_slug
from engine.plugin import Request, Response

DAY = timedelta(days=1)
MOST_NAMES, MOST_DOWNTIMES, MOST_WINDOWS, MOST_EXAMPLES = 1000, 100, 100, 1000
MOST_DAYS, DEFAULT_DAYS = 366, 7
MOST_COUNT, DEFAULT_COUNT = 10_000, 20
LAST_PAGE = 10**9 - 1

_MEMBERS = (
    "from", "to", "triggers", "tags", "durations", "past", "down", "quiet", "windows", "examples",
)  # fmt: skip


async def post_simulate(call: Call) -> Response:
    """Answer with what would happen in a time to come, and a page of all that would."""
    parameters = query(call.request, "limit", "cursor")
    page = Page(parameters.number("cursor", 0, LAST_PAGE) or 0, parameters.limit())
    parameters.finish()
    desk = call.operations.foresight
    fields = body(call.request, _MEMBERS, optional=True)
    start = fields.instant("from") or call.operations.clock.now()
    question = Question(
        start=start,
        end=fields.instant("to") or start + DAY,
        triggers=_words(fields, "triggers"),
        tags=_words(fields, "tags"),
        durations=_durations(fields),
        past=_flag(fields, "past", True),
        downtimes=_downtimes(fields),
        quiet_s=fields.duration("quiet"),
        windows=_whole(fields, "windows", 1, MOST_WINDOWS, 3),
        first=_whole(fields, "examples", 0, MOST_EXAMPLES, 10),
    )
    fields.finish()
    world = desk.world()
    for member, detail in question.mistakes(world, LONGEST):
        fields.fault(member, detail)
    fields.finish()
    try:
        return Response(body=await desk.simulate(question, world, page))
    except TooMany as error:
        raise Problem(422, str(error), code="too_many") from None


async def post_plan(call: Call) -> Response:
    """Answer with what the configuration in the body would change."""
    if media_type(call.request.headers, ("application/json", "application/toml")) == "application/toml":
        parameters = query(call.request, "days", "count")
        sent = call.request.body
        days = parameters.number("days", 1, MOST_DAYS) or DEFAULT_DAYS
        count = parameters.number("count", 1, MOST_COUNT) or DEFAULT_COUNT
        parameters.finish()
    else:
        sent, days, count = _plan_fields(call.request)
    return Response(body=await call.operations.foresight.plan(sent, days=days, count=count))


def _plan_fields(request: Request) -> tuple[bytes, int, int]:
    query(request).finish()
    fields = body(request, ("config", "days", "count"))
    text = fields.value("config")
    if not isinstance(text, str):
        fields.fault("config", "config must be the text of a configuration, in TOML")
    days = _whole(fields, "days", 1, MOST_DAYS, DEFAULT_DAYS)
    count = _whole(fields, "count", 1, MOST_COUNT, DEFAULT_COUNT)
    fields.finish()
    return str(text).encode("utf-8", "surrogatepass"), days, count


def _whole(fields: Fields, name: str, lowest: int, highest: int, default: int) -> int:
    value = fields.value(name)
    if value is None:
        return default
    if type(value) is int and lowest <= value <= highest:
        return value
    fields.fault(name, f"{name} must be a whole number from {lowest} to {highest}")
    return default


def _flag(fields: Fields, name: str, default: bool) -> bool:
    value = fields.value(name)
    if value is None or isinstance(value, bool):
        return default if value is None else value
    fields.fault(name, f"{name} must be true or false")
    return default


def _words(fields: Fields, name: str) -> frozenset[str]:
    value = fields.value(name)
    if value is None:
        return frozenset()
    if not isinstance(value, list) or len(value) > MOST_NAMES or not all(isinstance(one, str) for one in value):
        fields.fault(name, f"{name} must be a list of at most {MOST_NAMES} names")
        return frozenset()
    return frozenset(value)


def _durations(fields: Fields) -> dict[str, float]:
    value = fields.value("durations")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(is_slug(name) for name in value):
        fields.fault("durations", 'durations must be an object of jobs and durations, such as {"import": "12m"}')
        return {}
    return _nested(fields, "durations", value, value.keys(), lambda inner: {
        name: seconds for name in value if (seconds := inner.duration(name)) is not None
    }) or {}  # fmt: skip


def _downtimes(fields: Fields) -> tuple[Downtime, ...]:
    value = fields.value("down")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_DOWNTIMES or not all(isinstance(one, dict) for one in value):
        fields.fault("down", f'down must be a list of at most {MOST_DOWNTIMES} objects with "from" and "to"')
        return ()
    found = [_nested(fields, f"down/{place}", one, ("from", "to"), _downtime) for place, one in enumerate(value)]
    return tuple([downtime for downtime in found if downtime is not None])


def _downtime(fields: Fields) -> Downtime | None:
    start, end = fields.instant("from"), fields.instant("to")
    for name in ("from", "to"):
        if fields.value(name) is None:
            fields.fault(name, f"{name} is required")
    return None if start is None or end is None else Downtime(start=start, end=end)


def _nested(fields: Fields, place: str, value: dict[str, Any], known: Any, read: Callable[[Fields], Any]) -> Any:
    """Read an object within the body; what is wrong with it is noted with the rest."""
    inner = Fields(value, known, f"/{place}")
    found = read(inner)
    fields.errors.extend(inner.errors)
    return found
