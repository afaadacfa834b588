"""Find and read the configuration files, and say all that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.config.build import Builder
from engine.config.document import Node, Place, Problems, merge, read_document, read_source, show_value
from engine.config.environment import Overrides, split_overrides
from engine.config.model import Config, DefaultsTable, EngineSettings, RetryTable, Root
from engine.config.origins import pack
from engine.config.plugin_tables import SettingsReader
from engine.config.presets import Presets
from engine.config.references import References
from engine.config.shapes import NAME_KINDS, fields_of
from engine.errors import ConfigError, ConfigProblem
from engine.registry import Registry

DEFAULT_FILE = "config.toml"

DEFINED_BY_CODE = frozenset({"job", "trigger"})
"""Kinds of names of what a program may define, after its configuration was read."""


def named_files(environment: Mapping[str, str]) -> list[str]:
    """Return the files that `ENGINE_CONFIG` names."""
    return [text for text in environment.get("ENGINE_CONFIG", "").split(os.pathsep) if text]


def find_files(explicit: Sequence[str], environment: Mapping[str, str]) -> list[Path]:
    """Return the configuration files, in the order in which later ones go over earlier ones.

    They are the `explicit` ones (`--config`), else those of `ENGINE_CONFIG` (separated as PATH is), else
    `./config.toml`. Raises ConfigError for each that is not a file that is there.
    """
    named = named_files(environment)
    files, origin = (
        [Path(DEFAULT_FILE)],
        f"name one with --config or ENGINE_CONFIG, or make {DEFAULT_FILE} here",
    )
    if explicit:
        files, origin = [Path(text) for text in explicit], "it was named with --config"
    elif named:
        files, origin = [Path(text) for text in named], "it was named in ENGINE_CONFIG"
    problems = []
    for file in files:
        if not file.exists():
            message = f"there is no such file in {Path.cwd()}" if not file.is_absolute() else "there is no such file"
            problems.append(ConfigProblem(file=str(file), line=0, path="", message=message, hint=origin))
        elif file.is_dir():
            problems.append(
                ConfigProblem(file=str(file), line=0, path="", message="is a directory, no file", hint=origin)
            )
    if problems:
        raise ConfigError(problems)
    return files


def load(
    files: Sequence[Path],
    *,
    environment: Mapping[str, str],
    registry: Registry | None = None,
    create_secrets: bool = False,
    examine: bool = False,
    given: Node | None = None,
    discover: Callable[[Sequence[Path]], Registry] = Registry.discover,
) -> Config:
    """Read the configuration from `files`, later ones over earlier ones, and overrides from `environment`.

    Without a `registry`, `discover` finds the plugins: those of the entry points and of the folders of `[engine]
    plugins`. With `create_secrets`, files of `{ file = …, generate = true }` that are missing are made, once all the
    rest was found right; without, a random value in memory stands in. With `examine`, runners look at what their
    settings name outside of the configuration, such as modules to import. Without files, everything has its default,
    and relative paths are relative to the working directory. `given` is what code lays over all of it; what is read
    may then name jobs and triggers that the code is yet to define.

    Raises ConfigError with all problems, in the order of files and lines; no text of it holds a secret.
    """
    problems = Problems()
    base = files[0].absolute().parent if files else Path.cwd()
    documents = [read_document(file, order, problems) for order, file in enumerate(files)]
    start = Place(str(files[0]) if files else DEFAULT_FILE, 1, base, 0)
    root = _merged(documents, start)
    references = References(environment, problems)
    if registry is None:
        registry = discover(_plugin_folders(root if given is None else merge(root, given)))
    reader = _reader(root, problems, references, registry)
    reader.incomplete = None in documents
    presets = _lay(root, reader, Overrides(registry, problems, base, len(files)), environment)
    if given is not None:
        root = merge(root, given)
        _know_names(reader, root)
        reader.elsewhere = DEFINED_BY_CODE
    tables = _read_tables(reader, root, presets)
    if examine:
        reader.examine_runners(root, base)
    config = Builder(reader, root, tables).build(base, tuple(file.absolute() for file in files))
    if config is None or len(problems):
        raise error_of(problems, references)
    config = replace(config, presets=presets.by_name, written=pack(root))
    if create_secrets:
        references.write_generated()
        if len(problems):
            raise error_of(problems, references)
    return config


def load_sent(
    sent: Sequence[tuple[str, bytes]], *, base: Path, environment: Mapping[str, str], registry: Registry | None,
    readable: Collection[Path] | None,
) -> Config:  # fmt: skip
    """Read a configuration that somebody sent: the names and contents of files that would stand in `base`.

    Of files it reads none but those in `readable`, None for any: calendars that name others are refused, and a random
    text stands for what a `{ file = … }` refers to. With a `registry`, the plugins are those, whatever folders it
    names. Nothing is made. Overrides from `environment` hold, as they would for files.

    Raises ConfigError with all problems; no text of it holds a secret.
    """
    problems = Problems()
    places = [Place(name, 1, base, order) for order, (name, _) in enumerate(sent)]
    documents = [read_source(source, place, problems) for (_, source), place in zip(sent, places, strict=True)]
    root = _merged(documents, places[0])
    references = References(environment, problems, read_files=readable is None)
    if registry is None:
        registry = Registry.discover(_plugin_folders(root))
    reader = _reader(root, problems, references, registry)
    reader.incomplete = None in documents
    presets = _lay(root, reader, Overrides(registry, problems, base, len(sent)), environment)
    tables = _read_tables(reader, root, presets)
    builder = Builder(reader, root, tables)
    builder.readable = readable
    config = builder.build(base, tuple(base / name for name, _ in sent))
    if config is None or len(problems):
        raise error_of(problems, references)
    return replace(config, presets=presets.by_name)


def _merged(documents: Sequence[Node | None], start: Place) -> Node:
    root = Node({}, start)
    for document in documents:
        if document is not None:
            root = merge(root, document)
    return root


def _reader(root: Node, problems: Problems, references: References, registry: Registry) -> SettingsReader:
    reader = SettingsReader(problems, references, registry)
    _know_names(reader, root)
    return reader


def _know_names(reader: SettingsReader, root: Node) -> None:
    """Tell the reader what there is, by the names of tables."""
    for kind, key in NAME_KINDS.items():
        table = root.value.get(key)
        reader.named[kind] = table.value.keys() if table is not None and isinstance(table.value, dict) else ()


def _lay(root: Node, reader: SettingsReader, overrides: Overrides, environment: Mapping[str, str]) -> Presets:
    """Lay presets under the triggers that name them, and overrides over all; return the presets."""
    of_presets, others = split_overrides(environment)
    overrides.apply(root, of_presets, incomplete=reader.incomplete)
    presets = Presets(root, reader)
    presets.lay()
    overrides.apply(root, others, incomplete=reader.incomplete)
    return presets


def _plugin_folders(root: Node) -> list[Path]:
    """Return the folders of `[engine] plugins` that are there; the others are told when they are read."""
    node = root.nearest(("engine", "plugins"))
    if not isinstance(node.value, list):
        return []
    named = [child for child in node.value if isinstance(child.value, str) and child.value and "\0" not in child.value]
    folders = [Path(os.path.abspath(child.place.base / child.value)) for child in named]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _read_tables(reader: SettingsReader, root: Node, presets: Presets) -> dict[str, Any]:
    """Read the tables of the root in their order; jobs and triggers go by `engine` and `defaults`."""
    tables: dict[str, Any] = {}
    known = {field.key: field for field in fields_of(Root)}
    for field in known.values():
        if field.key == "presets":
            presets.read()
            continue
        node = root.value.get(field.key, Node({}, root.place))
        tables[field.key] = reader.read(field.shape, node, (field.key,))
        if isinstance(tables[field.key], EngineSettings):
            reader.timezone = tables[field.key].timezone
        elif isinstance(tables[field.key], DefaultsTable):
            reader.inherited[RetryTable] = tables[field.key].retry
    _check_folders(reader, root.nearest(("engine", "plugins")))
    unknown = Node({key: child for key, child in root.value.items() if key not in known}, root.place)
    reader.read_fields(Root, unknown, ())
    return tables


def _check_folders(reader: SettingsReader, folders: Node) -> None:
    for index, child in enumerate(folders.value if isinstance(folders.value, list) else ()):
        if not isinstance(child.value, str) or not child.value or "\0" in child.value:
            continue
        folder = child.place.base / child.value
        if not folder.is_dir():
            message = f"found {show_value(child.value)}, but there is no folder {show_value(str(folder))}"
            reader.problems.at(child, ("engine", "plugins", index), message)


def error_of(problems: Problems, references: References) -> ConfigError:
    """Return the error that tells all problems; no text of it holds a secret."""
    return ConfigError(
        [
            ConfigProblem(
                file=problem.file,
                line=problem.line,
                path=problem.path,
                message=references.masked_in(problem.message),
                hint=references.masked_in(problem.hint) if problem.hint else None,
            )
            for problem in problems.ordered()
        ]
    )
