"""The routes below `/hooks/` that running sources answer."""

from __future__ import annotations

from collections.abc import Callable, Collection

from engine.errors import PluginError
from engine.plugin import Handler
from engine.sources.refusals import RefusedRequest

Note = Callable[[RefusedRequest], None]


class Routes:
    """Handlers by path and method."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._notes: dict[str, Note] = {}
        self._encodings: dict[str, frozenset[str]] = {}

    def add(
        self, method: str, path: str, handler: Handler, note: Note | None = None, *, encodings: Collection[str] = ()
    ) -> None:
        """Add a route; raise PluginError where it is taken or not below `/hooks/`.

        `note` is told of the path's requests that are refused; `encodings` are those of bodies that it undoes itself.
        """
        if not path.startswith("/hooks/"):
            raise PluginError(f"a source's route begins with /hooks/, {path!r} does not")
        methods = self._handlers.setdefault(path, {})
        if method in methods:
            raise PluginError(f"the route {method} {path} is taken")
        methods[method] = handler
        if note is not None:
            self._notes[path] = note
        self._encodings[path] = self.encodings(path) | frozenset(encodings)

    def remove(self, method: str, path: str) -> None:
        """Remove a route."""
        methods = self._handlers.get(path, {})
        methods.pop(method, None)
        if not methods:
            self._handlers.pop(path, None)
            self._notes.pop(path, None)
            self._encodings.pop(path, None)

    def note_refused(self, path: str, request: RefusedRequest) -> None:
        """Tell the source whose path it is that a request was refused."""
        if (note := self._notes.get(path)) is not None:
            note(request)

    def encodings(self, path: str) -> frozenset[str]:
        """Return the content codings with which bodies may come to a path."""
        return self._encodings.get(path, frozenset())

    def find(self, method: str, path: str) -> Handler | tuple[str, ...] | None:
        """Return the handler, or the methods that the path allows, or None."""
        methods = self._handlers.get(path)
        if methods is None:
            return None
        return methods.get(method) or tuple(sorted(methods))
