"""What a function is: imported by its name, and told as a description. Standard library alone.

Run as a script it answers questions for `plugins.runners.python.probe`: in an interpreter of its own, where an import
may do what it likes.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

LONGEST_TEXT = 500


class NoFunction(Exception):
    """A name does not lead to a function that a job can call; the text says why, `hint` what would be right."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Description(NamedTuple):
    """A function: whether it is `async def`, whether its first argument is the run, and its module's file."""

    is_async: bool
    takes_run: bool
    file: str | None


_added: set[str] = set()


def add_folders(folders: Iterable[str]) -> None:
    """Let modules be imported from further folders, after all that is installed."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)
            _added.add(folder)


def own_folders() -> list[str]:
    """Return the folders that modules are imported from, but for those that were added: they are other jobs'."""
    return [os.path.abspath(entry) for entry in sys.path if entry not in _added]


def import_function(target: str) -> tuple[Callable[..., Any], str | None]:
    """Import `package.module:function` and return it, with its module's file; raise NoFunction."""
    name, _, path = target.partition(":")
    module = import_module(name)
    value: Any = module
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            where = name if value is module else f"{name}:{path.partition('.' + part)[0]}"
            raise NoFunction(f"{where} has no {part}", _near(part, _functions_in(value))) from None
        except Exception as error:  # a property or module __getattr__ of the user's
            raise NoFunction(f"looking up {part} failed with {_say(error)}") from None
    if not callable(value):
        raise NoFunction(f"{target} is a {type(value).__name__}, which can't be called", "name a function")
    return value, getattr(module, "__file__", None)


def import_module(name: str) -> Any:
    """Import a module; whatever its code raises is NoFunction, with the line that raised it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            parent, _, last = error.name.rpartition(".")
            near = _near(last, _modules_in(parent), f"{parent}." if parent else "")
            hint = near or "modules are looked for where Python finds them, and in `path`"
            raise NoFunction(f"there is no module {error.name}", hint) from None
        raise NoFunction(f"importing {name} failed with {_say(error)}{_place(error)}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code: also SystemExit
        raise NoFunction(f"importing {name} failed with {_say(error)}{_place(error)}") from None


def describe(function: Callable[..., Any], arguments: Collection[str], file: str | None) -> Description:
    """Describe a function that is to be called with keyword `arguments`; raise NoFunction where it can't be."""
    called = function
    if not inspect.isroutine(function) and not inspect.isclass(function):
        called = getattr(function, "__call__", function)  # noqa: B004 - an object's own, which may be async
    plain = inspect.unwrap(called) if callable(called) else called
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise NoFunction("it is a generator: calling it runs nothing of it", "return instead of yield")
    is_async = inspect.iscoroutinefunction(called)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions of C have none
        return Description(is_async, not arguments, file)
    given = dict.fromkeys(arguments)
    problems = []
    for takes_run in (True, False):
        try:
            signature.bind(*([None] if takes_run else []), **given)
        except TypeError as error:
            problems.append(str(error))
        else:
            return Description(is_async, takes_run, file)
    raise NoFunction(
        f"it is called with {_calls(arguments)}, but is {_shown(function)}{signature}: {problems[0]}",
        "let it take the run, and what `arguments` names; or give the rest defaults",
    )


def _calls(arguments: Collection[str]) -> str:
    return ", ".join(["the run", *arguments])


def _shown(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _say(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}"[:LONGEST_TEXT] if text else type(error).__name__


def _place(error: BaseException) -> str:
    """Return where user code raised an error: the innermost line that is not of the import system or this file."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _near(name: str, known: Collection[str], before: str = "") -> str | None:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {before}{close[0]}?" if close else None


def _functions_in(value: Any) -> list[str]:
    members = list(getattr(value, "__dict__", {}).items())
    return [name for name, member in members if callable(member)]


def _modules_in(package: str) -> list[str]:
    """Return the names of the modules beside one that is missing."""
    paths = sys.path
    if package:
        module = sys.modules.get(package)
        paths = list(getattr(module, "__path__", ()))
    try:
        return [found.name for found in pkgutil.iter_modules(paths)]
    except Exception:  # a finder of somebody's
        return []


def main() -> None:
    """Answer the questions on standard input, a line of JSON for each, in their order."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what modules print is no answer
    given = json.loads(sys.stdin.buffer.read())
    sys.path[:] = given["path"]
    sys.argv[:] = [""]
    for target, arguments in given["questions"]:
        answer: dict[str, Any]
        try:
            function, file = import_function(target)
            answer = describe(function, arguments, file)._asdict()
        except NoFunction as error:
            answer = {"error": str(error), "hint": error.hint}
        except Exception as error:  # objects of the user's, which may break anything that looks at them
            answer = {"error": f"looking at it failed with {_say(error)}", "hint": None}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # what modules have started, such as threads, is not waited for


if __name__ == "__main__":
    main()
