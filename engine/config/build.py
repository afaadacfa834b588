"""From tables that were read to what the engine works with; what only shows between tables is found here."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from engine.config.addresses import is_loopback, parse_listen, parse_store_url, store_url
from engine.config.document import KeyPath, Node, show_value
from engine.config.model import (
    Config,
    DebounceTable,
    DefaultsTable,
    HttpSettings,
    HttpTable,
    JobTable,
    StoreSettings,
    StoreTable,
    TriggerTable,
)
from engine.config.plugin_tables import SettingsReader
from engine.config.scalars import near
from engine.config.shapes import fields_of
from engine.errors import PluginError
from engine.jobs import Job
from engine.plugin import Plugin, Secret, Source
from engine.triggers import PRIORITIES, Debounce, Trigger

_log = logging.getLogger(__name__)


class Builder:
    """Makes a Config of the tables, by key, of which those that were wrong are BAD."""

    def __init__(self, reader: SettingsReader, root: Node, tables: Mapping[str, Any]) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._root = root
        self._tables = tables
        self.jobs_elsewhere = False
        """Set where code defines further jobs: a trigger may name one that is not among the tables."""

    def build(self, base: Path, files: tuple[Path, ...]) -> Config | None:
        """Return the configuration, or None where a table is wrong; all problems were told then."""
        engine, store, http = (self._tables[key] for key in ("engine", "store", "http"))
        self._check_exposure()
        if not self.jobs_elsewhere:
            self._check_jobs_of_triggers()
        triggers = self.triggers()
        if len(self._problems):
            return None
        return Config(
            engine=engine,
            store=self._store(store, engine.data),
            http=self._http(http),
            jobs=self.jobs(self._tables["jobs"], self._tables["defaults"]),
            triggers=triggers,
            base=base,
            files=files,
            defaults=self._tables["defaults"],
            secrets=frozenset(self._reader.references.values),
        )

    def _at(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        self._problems.at(self._root.nearest(path), path, message, hint)

    def _text(self, path: KeyPath) -> str | None:
        """Return the text at a path, also where it is a reference; None where it is none or not there."""
        node = self._root.nearest(path)
        text = self._reader.references.resolved.get(path) if node.is_reference else node.value
        return text if isinstance(text, str) else None

    def _found(self, path: KeyPath) -> str:
        """Say what stands at a path, or that it is a reference, whose text is not shown."""
        node = self._root.nearest(path)
        return "the text it refers to" if node.is_reference else show_value(node.value)

    def _check_exposure(self) -> None:
        """Refuse to listen beyond loopback in the clear where nobody said so."""
        path = ("http", "listen")
        text = self._text(path)
        try:
            host, _ = parse_listen(text or "")
        except ValueError:
            return
        if not is_loopback(host) and self._root.nearest(("http", "insecure")).value is not True:
            self._at(
                path,
                f"found {self._found(path)}, which others can reach: tokens and data would go in the clear",
                'listen on "127.0.0.1:8080" behind a proxy that speaks TLS, or say insecure = true',
            )

    def _http(self, table: HttpTable) -> HttpSettings:
        host, port = parse_listen(table.listen)
        return HttpSettings(host=host, port=port, insecure=table.insecure, max_body_bytes=table.max_body)

    def _store(self, table: StoreTable, data: Path) -> StoreSettings:
        if table.url is None:
            file = data / "engine.db"
            return StoreSettings(url=store_url(file), path=file)
        place = self._root.nearest(("store", "url")).place
        return StoreSettings(url=table.url, path=parse_store_url(table.url, place.base))

    def jobs(self, tables: Mapping[str, JobTable], defaults: DefaultsTable) -> dict[str, Job]:
        """Return the jobs; `defaults` hold where they say nothing."""
        return {name: self._job(name, table, defaults) for name, table in tables.items()}

    def _job(self, name: str, table: JobTable, defaults: DefaultsTable) -> Job:
        return Job(
            name=name,
            runner=table.run,
            timeout_s=defaults.timeout if table.timeout is None else table.timeout,
            retry=(defaults.retry if table.retry is None else table.retry).policy(),
            concurrency=table.concurrency,
            on_crash=table.on_crash,
            description=table.description,
            tags=table.tags,
            enabled=table.enabled,
            defined_in=self._defined_in(("jobs", name)),
        )

    def _check_jobs_of_triggers(self) -> None:
        """Check that each trigger's job is there, also of those that have other mistakes."""
        triggers, jobs = self._root.value.get("triggers"), self._root.value.get("jobs")
        names = jobs.value if jobs is not None and isinstance(jobs.value, dict) else {}
        if triggers is None or not isinstance(triggers.value, dict) or self._reader.incomplete:
            return
        for name, trigger in triggers.value.items():
            job = trigger.value.get("job") if isinstance(trigger.value, dict) else None
            if job is None:
                continue
            path = ("triggers", name, "job")
            text = self._text(path)
            if text is not None and text not in names:
                hint = near(text, names) or "there are no jobs: a job is a table [jobs.NAME]"
                self._at(path, f"found {self._found(path)}, but there is no such job", hint)

    def triggers(self, beside: Mapping[str, Trigger] = MappingProxyType({})) -> dict[str, Trigger]:
        """Return the triggers; those that clash with another one, or with one `beside` them, by source, are told."""
        # Also of those that are right where others are wrong: all clashes are told at once.
        tables = self._reader.sound.get(("triggers",), {})
        triggers: dict[str, Trigger] = {}
        first_of: dict[str, Trigger] = {}
        for name, table in tables.items():
            trigger = self._trigger(name, table)
            if trigger is None:
                continue
            triggers[name] = trigger
            other = beside.get(trigger.source) or first_of.setdefault(trigger.source, trigger)
            if other.on != trigger.on:
                self._tell_clash(trigger, other)
        return triggers

    def _trigger(self, name: str, table: TriggerTable) -> Trigger | None:
        source = self._source(name, table.on)
        if source is None:
            return None
        debounce, rule = table.debounce, None
        if isinstance(debounce, DebounceTable):
            rule = Debounce(wait_s=debounce.wait, max_wait_s=debounce.max_wait, key=debounce.key)
        elif debounce is not None:
            rule = Debounce(wait_s=debounce)
        return Trigger(
            name=name,
            job=table.job,
            source=source,
            on=table.on,
            filter=table.filter,
            debounce=rule,
            priority=_priority(table.priority),
            priority_max=_priority(table.priority_max),
            data=table.data,
            defaults=table.defaults,
            description=table.description,
            tags=table.tags,
            enabled=table.enabled,
            defined_in=self._defined_in(("triggers", name)),
        )

    def _source(self, name: str, on: Plugin) -> str | None:
        """Return the id of a trigger's source: the plugin's name, and its identity or a digest."""
        if not isinstance(on, Source):
            return f"timer:{name}"
        path = ("triggers", name, "on", on.name)
        try:
            identity = on.identity()
        except Exception as error:  # identity is plugin code
            _log.warning("%s: identity failed", on.name, exc_info=True, extra={"action": "plugin.identity"})
            self._at(path, f"the plugin's identity failed with {type(error).__name__}: {error}")
            return None
        if identity is None:
            try:
                settings = _canonical(on, path, self._reader.references.origins)
            except PluginError as error:
                self._at(path, f"the plugin {show_value(on.name)} can't be used: {error}")
                return None
            text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            identity = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return f"{on.name}:{identity}"

    def _tell_clash(self, trigger: Trigger, other: Trigger) -> None:
        on = trigger.on
        identity = on.identity()
        what = " ".join(part for part in (on.name, on.main, identity) if part)
        path = ("triggers", trigger.name, "on", on.name)
        message = f"{what} is already used with other settings by trigger {other.name}"
        hint = "give both the same settings: they share one source"
        if identity is None:
            message = f"the same {on.name} is already used with another secret by trigger {other.name}"
        self._at(path, message, hint)

    def _defined_in(self, path: KeyPath) -> str:
        place = self._root.nearest(path).place
        return f"{place.file}:{place.line}"


def _priority(value: int | str) -> int:
    return PRIORITIES[value] if isinstance(value, str) else value


def _canonical(value: Any, path: KeyPath, origins: Mapping[KeyPath, str]) -> Any:
    """Return settings as JSON values for a digest.

    Where a text stands elsewhere, the reference counts and not the text; a secret's text never counts. So a
    source keeps its id (and with it its keys and cursor) when a password changes, and the id tells nothing.
    """
    if path in origins:
        return {"reference": origins[path]}
    if isinstance(value, Secret):
        return {"secret": value.origin}
    if isinstance(value, Struct):
        fields = fields_of(type(value))
        return {field.key: _canonical(getattr(value, field.name), (*path, field.key), origins) for field in fields}
    if isinstance(value, dict):
        return {key: _canonical(item, (*path, key), origins) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item, (*path, index), origins) for index, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_canonical(item, (), {}), sort_keys=True) for item in value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
