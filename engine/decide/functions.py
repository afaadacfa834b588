"""An application's functions where the configuration has CEL: filters, debounce keys and fixed data."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from engine.errors import ExpressionError, InvalidEvent, said
from engine.events import Event
from engine.expressions import Scope, render
from engine.payload import copied, survey
from engine.triggers import Judge

T = TypeVar("T")

log = logging.getLogger("engine.decide")


class Function:
    """A function of an event. `text` is how reasons and views call it, such as `is_large(event)`.

    It gets a copy of the event, so what it changes changes nothing. Where it raises, or its answer is none of the
    asked kind, ExpressionError says so.
    """

    __slots__ = ("_function", "text")

    def __init__(self, function: Judge) -> None:
        self._function = function
        self.text = text_of(function)

    def holds(self, event: Event) -> bool:
        """Return whether the function's answer counts as true."""
        return self._call(event, bool)

    def seen(self, scope: Scope) -> None:
        """Return what of an event is recorded: nothing, as which parts the function looked at is not known."""

    def key(self, event: Event) -> str:
        """Return the function's answer as text, as that of an expression would be written."""
        return self._call(event, render)

    def data(self, event: Event) -> dict[str, Any]:
        """Return the members that the function gives."""
        return self._call(event, _members)

    def _call(self, event: Event, read: Callable[[Any], T]) -> T:
        mine = replace(event, data=copied(event.data))
        try:
            answer = self._function(mine)
            if inspect.iscoroutine(answer):
                answer.close()
                raise TypeError("it is asynchronous; it has to answer at once")
            return read(answer)
        except (Exception, SystemExit) as error:  # the application's code
            log.exception("%s raised", self.text, extra={"action": "function_raised", "event": event.id})
            raise ExpressionError(f"{self.text} raised {type(error).__name__}: {said(error)}") from None


def text_of(function: Judge) -> str:
    """Return a function as reasons and views write it."""
    return f"{getattr(function, '__name__', type(function).__name__)}(event)"


def _members(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, Mapping):
        raise InvalidEvent(f"it has to give a mapping, not a {type(answer).__name__}")
    members = dict(answer)
    survey(members)
    return members
