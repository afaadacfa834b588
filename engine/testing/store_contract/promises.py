"""Which sentences of `engine.store.base` a case keeps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TypeVar

from engine.store import base

Case = TypeVar("Case", bound=Callable[..., object])

_HEADING = re.compile(r"\*\*[^*]+\.\*\*\s")
_SENTENCE_END = re.compile(r"(?<=\.)\s+(?=[A-Z`])")


def promise(*sentences: str) -> Callable[[Case], Case]:
    """Mark a case as one for these sentences, each as it stands in a docstring of `engine.store.base`."""

    def mark(case: Case) -> Case:
        vars(case)["promises"] = sentences
        return case

    return mark


def sentences_of(text: str) -> list[str]:
    """Split prose into its sentences: on one line each, without the headings in bold."""
    prose = _HEADING.sub("", " ".join(inspect.cleandoc(text).split()) + " ")
    return _SENTENCE_END.split(prose.strip())


def sentences_of_contract() -> dict[str, str]:
    """Return each sentence of the contract with the name of what it stands at, such as `Store.apply`."""
    found: dict[str, str] = {}
    for name, kind in vars(base).items():
        if not inspect.isclass(kind) or kind.__module__ != base.__name__:
            continue
        described = [(name, kind.__doc__)]
        described += [
            (f"{name}.{method}", function.__doc__)
            for method, function in vars(kind).items()
            if inspect.isfunction(function)
        ]
        for place, text in described:
            found |= {f"{place}: {sentence}": place for sentence in sentences_of(text or "")}
    return found


def sentences_kept_by(suite: type) -> set[str]:
    """Return the sentences, each after its place, for which the suite has a case."""
    return {sentence for _, case in inspect.getmembers(suite) for sentence in getattr(case, "promises", ())}
