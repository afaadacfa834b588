"""Routes about the future."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar

from msgspec import Struct, field

from engine.foresight import Downtime, Page, Question, TooMany
from engine.foresight.desk import LONGEST
from engine.http import shapes
from engine.http.calls import Call
from engine.http.described import JSON, Raw, described
from engine.http.disclosure import disclosed
from engine.http.fields import DEFAULT_LIMIT, Fields, media_type, refuse
from engine.http.forms import Form, Nothing, read_body, read_members, read_query, schema_of
from engine.http.kinds import LIMIT, Flag, Instant, Number, Schema, Slug, Span, Text, Whole
from engine.http.problems import Problem
from engine.ids import is_slug
from engine.plugin import Request, Response

DAY = timedelta(days=1)
MOST_NAMES, MOST_DOWNTIMES, MOST_WINDOWS, MOST_EXAMPLES = 1000, 100, 100, 1000
MOST_DAYS, DEFAULT_DAYS = 366, 7
MOST_COUNT, DEFAULT_COUNT = 10_000, 20
LAST_PAGE = 10**9 - 1


class Durations(Struct, frozen=True):
    """How long runs of jobs take."""

    @property
    def schema(self) -> Schema:
        return {"type": "object", "propertyNames": Slug().schema, "additionalProperties": Span().schema}

    def read(self, fields: Fields, name: str) -> dict[str, float] | None:
        value: Any = fields.value(name)
        if value is None:
            return None
        if not isinstance(value, dict) or not all(is_slug(job) for job in value):
            fields.fault(name, f'{name} must be an object of jobs and durations, such as {{"import": "12m"}}')
            return None
        inner = Fields(value, value.keys(), f"/{name}")
        found = {job: seconds for job in value if (seconds := inner.duration(job)) is not None}
        fields.errors.extend(inner.errors)
        return found


class Down(Form, frozen=True, kw_only=True):
    """A time in which the engine is down."""

    start: Annotated[datetime, Instant()] = field(name="from")
    end: Annotated[datetime, Instant()] = field(name="to")


class Downtimes(Struct, frozen=True):
    """Times in which the engine is down."""

    @property
    def schema(self) -> Schema:
        return {"type": "array", "maxItems": MOST_DOWNTIMES, "items": schema_of(Down)}

    def read(self, fields: Fields, name: str) -> tuple[Downtime, ...] | None:
        value: Any = fields.value(name)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) > MOST_DOWNTIMES
            or not all(isinstance(one, dict) for one in value)
        ):
            fields.fault(name, f'{name} must be a list of at most {MOST_DOWNTIMES} objects with "from" and "to"')
            return None
        found: list[Downtime] = []
        for place, one in enumerate(value):
            inner = Fields(one, ("from", "to"), f"/{name}/{place}")
            down = read_members(inner, Down)
            fields.errors.extend(inner.errors)
            if down is not None:
                found.append(Downtime(start=down.start, end=down.end))
        return tuple(found)


class Words(Struct, frozen=True):
    """A list of words."""

    @property
    def schema(self) -> Schema:
        return {"type": "array", "maxItems": MOST_NAMES, "items": {"type": "string"}}

    def read(self, fields: Fields, name: str) -> frozenset[str] | None:
        value: Any = fields.value(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > MOST_NAMES or not all(isinstance(one, str) for one in value):
            fields.fault(name, f"{name} must be a list of at most {MOST_NAMES} names")
            return None
        return frozenset(value)


class SimulationPaging(Form, frozen=True, kw_only=True):
    """Which page of all that would happen."""

    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[int, Number(0, LAST_PAGE), "The `next` of the page before"] = 0


class Simulating(Form, frozen=True, kw_only=True):
    """What time is simulated, and what is assumed of it."""

    optional: ClassVar[bool] = True

    start: Annotated[datetime | None, Instant(), "By default now"] = field(name="from", default=None)
    end: Annotated[datetime | None, Instant(), "By default a day after `from`"] = field(name="to", default=None)
    triggers: Annotated[frozenset[str], Words(), "These alone"] = frozenset()
    tags: Annotated[frozenset[str], Words(), "Those with one of these tags alone"] = frozenset()
    durations: Annotated[dict[str, float], Durations(), "How long runs of jobs take"] = field(default_factory=dict)
    past: Annotated[bool, Flag(), "Whether a job without a duration takes as long as its past runs"] = True
    down: Annotated[tuple[Downtime, ...], Downtimes(), "When the engine is down"] = ()
    quiet_s: Annotated[float | None, Span()] = field(name="quiet", default=None)
    windows: Annotated[int, Whole(1, MOST_WINDOWS)] = 3
    examples: Annotated[int, Whole(0, MOST_EXAMPLES)] = 10


class Planning(Form, frozen=True, kw_only=True):
    """Another configuration."""

    config: Annotated[str, Text("the text of a configuration, in TOML"), "A configuration, in TOML"]
    days: Annotated[int, Whole(1, MOST_DAYS)] = DEFAULT_DAYS
    count: Annotated[int, Whole(1, MOST_COUNT)] = DEFAULT_COUNT


CONFIGURATION = Raw(
    content={"application/json": schema_of(Planning), "application/toml": {"type": "string"}}
)  # fmt: skip
"""Another configuration, as the description tells of it."""


class PlanningOf(Form, frozen=True, kw_only=True):
    """For how long what a configuration in TOML changes is told."""

    days: Annotated[int, Number(1, MOST_DAYS)] = DEFAULT_DAYS
    count: Annotated[int, Number(1, MOST_COUNT)] = DEFAULT_COUNT


@described({200: shapes.Page[Any]}, example={"to": "2026-11-22T00:00:00Z"})
async def post_simulate(call: Call, query: SimulationPaging, body: Simulating) -> Response:
    """Answer with what would happen in a time to come, and a page of all that would."""
    page = Page(query.cursor, query.limit)
    desk = call.operations.foresight
    start = body.start or call.operations.clock.now()
    question = Question(
        start=start, end=body.end or start + DAY, triggers=body.triggers, tags=body.tags, durations=body.durations,
        past=body.past, downtimes=body.down, quiet_s=body.quiet_s, windows=body.windows, first=body.examples,
    )  # fmt: skip
    world = desk.world()
    refuse([
        {"pointer": f"#/{member}", "detail": detail} for member, detail in question.mistakes(world, LONGEST)
    ])  # fmt: skip
    world = desk.world()
    try:
        return Response(body=await desk.simulate(question, world, page))
    except TooMany as error:
        raise Problem(422, str(error), code="too_many") from None


@described({200: JSON}, takes=CONFIGURATION, query=PlanningOf)
async def post_plan(call: Call) -> Response:
    """Answer with what the configuration in the body would change."""
    if media_type(call.request.headers, ("application/json", "application/toml")) == "application/toml":
        parameters = read_query(call.request, PlanningOf)
        sent, days, count = call.request.body, parameters.days, parameters.count
    else:
        sent, days, count = _plan_fields(call.request)
    plan = await call.operations.foresight.plan(sent, days=days, count=count)
    return Response(body=disclosed(call.role, plan))


def _plan_fields(request: Request) -> tuple[bytes, int, int]:
    read_query(request, Nothing)
    sent = read_body(request, Planning)
    return sent.config.encode("utf-8", "surrogatepass"), sent.days, sent.count
