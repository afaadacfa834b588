"""A trigger made ready to decide: its expressions compiled once, its data merged the one way."""

from __future__ import annotations

from typing import Any

from engine.errors import ExpressionError
from engine.events import Event
from engine.expressions import JOB_NAMES, TRIGGER_NAMES, Expression, Scope, Template, plain
from engine.jobs import Job
from engine.triggers import Trigger

_NO_REQUEST = {"method": "", "headers": {}, "query": {}, "remote": ""}


class Rule:
    """A trigger with its job and its compiled expressions.

    `disabled` says why it runs nothing, or is None where it does.

    Raises ExpressionError where one of them is wrong; the configuration has checked them before.
    """

    __slots__ = ("_defaults", "disabled", "filter", "job", "key", "names", "trigger")

    def __init__(self, trigger: Trigger, job: Job) -> None:
        self.trigger = trigger
        self.job = job
        self.disabled = _why_disabled(trigger, job)
        self.filter = None if trigger.filter is None else Expression(trigger.filter, TRIGGER_NAMES)
        debounce = trigger.debounce
        key = None if debounce is None else debounce.key
        self.key = None if key is None else Expression(key, TRIGGER_NAMES)
        self._defaults = {
            name: Template(value, JOB_NAMES) if isinstance(value, str) else value
            for name, value in (trigger.defaults or {}).items()
        }
        self.names = {
            "trigger": {"name": trigger.name, "tags": list(trigger.tags)},
            "job": {"name": job.name, "tags": list(job.tags)},
        }

    def data_of(self, event: Event) -> Any:
        """Return the data that the trigger's expressions and its job see.

        Fixed values win over the event's, the event's over the defaults; the first level only. Data that is
        no object stays as it is where there is nothing to merge, and becomes the member `value` where there
        is. Raises ExpressionError for a default whose template fails on this event.
        """
        fixed, data = self.trigger.data, event.data
        if not self._defaults and not fixed:
            return data
        if data is None:
            data = {}
        elif not isinstance(data, dict):
            data = {"value": data}
        filled = {}
        scope: Scope | None = None
        for name, default in self._defaults.items():
            if name in data:
                continue
            if isinstance(default, Template) and not default.constant:
                if scope is None:
                    scope = self.scope(event, data)
                try:
                    filled[name] = plain(default.value(scope))
                except ExpressionError as error:
                    raise ExpressionError(f"default {name}: {error}") from None
            else:
                filled[name] = default.text if isinstance(default, Template) else default
        return {**filled, **data, **(fixed or {})}

    def scope(self, event: Event, data: Any) -> Scope:
        """Return what expressions see for an event whose merged data is `data`; `now` is when it was received."""
        return Scope(
            {
                "event": {
                    "id": event.id,
                    "source": event.source,
                    "type": event.type,
                    "subject": event.subject,
                    "time": event.time,
                    "received_at": event.received_at,
                    "key": event.key,
                    "priority": event.priority,
                },
                "data": data,
                "http": event.http or _NO_REQUEST,
                "now": event.received_at,
                **self.names,
            }
        )


def _why_disabled(trigger: Trigger, job: Job) -> str | None:
    why = trigger.why_disabled()
    if why is not None:
        return f"trigger {trigger.name} {why}"
    return None if job.enabled else f"job {job.name} is disabled"
