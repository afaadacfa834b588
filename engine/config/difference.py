"""What differs between two configurations, and which of it a running engine can't take up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.config.model import Config, EngineSettings
from engine.config.origins import keep_old
from engine.decide.lanes import starved

_TAKEN_UP = frozenset({"timezone", "concurrency", "shutdown_grace_s", "conditions", "watch"})
"""Fields of `[engine]` that are taken up while the engine runs."""

_WRITTEN = {"host": "listen", "port": "listen", "path": "url", "max_body_bytes": "max_body"}
"""Keys of the configuration by the fields in which they are kept."""


class Difference(Struct, frozen=True, kw_only=True):
    """Names of what is new, is another one now, and is gone, each in the order of the alphabet."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    """Return what differs between definitions by name; that one stands in another line is no difference."""
    both = sorted(old.keys() & new.keys())
    return Difference(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(name for name in both if not is_same(old[name], new[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def is_same(old: Any, new: Any) -> bool:
    """Tell whether a definition is as it was, wherever it stands."""
    return old == new or bool(replace(old, defined_in=new.defined_in) == new)


def for_running(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """Return `new` with what only a restart changes as it is in `old`, and the keys of that, as they are written."""
    waits = [f"engine.{_key(name)}" for name in _differing(old.engine, new.engine) if name not in _TAKEN_UP]
    engine = {name: getattr(new.engine, name) for name in _TAKEN_UP}
    if starved(engine["concurrency"], old.engine.reserve.by_lane()):
        # It is right beside the slots that will be kept from the restart on.
        engine["concurrency"] = old.engine.concurrency
        waits.append("engine.concurrency")
    waits += [f"store.{_key(name)}" for name in _differing(old.store, new.store, without="keep")]
    waits += [
        f"http.{_key(name)}"
        for name in (*_differing(old.http, new.http, without="doors"), *_differing(old.http.doors, new.http.doors))
    ]
    if old.metrics.most_names != new.metrics.most_names:
        waits.append("metrics.most_names")
    if old.redaction != new.redaction:
        waits.append("security.redact")
    waits += [f"tracing.{name}" for name in _differing(old.tracing, new.tracing)]
    if old.logs.format != new.logs.format:
        waits.append("logs.format")
    settings: EngineSettings = replace(old.engine, **engine)
    store = replace(old.store, keep=new.store.keep)
    metrics = replace(new.metrics, most_names=old.metrics.most_names)
    waiting = tuple(sorted(dict.fromkeys(waits)))
    kept = replace(
        new, engine=settings, store=store, http=old.http, metrics=metrics, redaction=old.redaction, base=old.base,
        tracing=old.tracing, logs=replace(new.logs, format=old.logs.format),
        written=keep_old(old.written, new.written, waiting),
    )  # fmt: skip
    return kept, waiting


def _differing(old: Struct, new: Struct, without: str = "") -> Iterator[str]:
    for name in old.__struct_fields__:
        if name != without and getattr(old, name) != getattr(new, name):
            yield name


def _key(field: str) -> str:
    return _WRITTEN.get(field, field.removesuffix("_s").removesuffix("_bytes"))
