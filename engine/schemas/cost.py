"""What a schema can cost: how often its parts are applied to one value at most, before any data is seen.

A schema that describes itself (a tree) is applied to each value once, as long as no branch applies it twice to the
same child. One that does takes twice as long with each level, which whoever sends the data chooses: such a schema is
refused. For others the steps for one value are known, and how many values may come is bounded by that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from engine.errors import SchemaError
from engine.payload import MAX_DEPTH
from engine.schemas.document import Document, Node

MOST_FOR_A_VALUE = 100_000
"""Steps for one value; a step takes about 25 ns on a small machine."""

_LEFT_OVER = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_OF_AN_OPTION = 4
"""Steps that it takes to compare with a list or table that is an option."""


def steps_for_a_value(document: Document) -> int:
    """Return how many steps the schema takes for one value of the data at most; raise SchemaError for too many."""
    own = {pointer: _own(node) for pointer, node in document.nodes.items()}
    place = {pointer: number for number, pointer in enumerate(document.order)}
    times = _here(document, place, {"": 1})
    most = 0
    for _ in range(MAX_DEPTH + 1):
        steps = sum(count * own[pointer] for pointer, count in times.items())
        if steps > MOST_FOR_A_VALUE:
            worst = max(times, key=lambda pointer: times[pointer] * own[pointer])
            raise SchemaError(
                worst,
                f"is applied {times[worst]:,} times to one value, which somebody could make take very long",
                "apply what describes itself once: not in several branches of anyOf, allOf or oneOf",
            )
        most = max(most, steps)
        following: dict[str, int] = {}
        for applied in _below(document, times):
            for pointer, count in _here(document, place, applied).items():
                following[pointer] = max(count, following.get(pointer, 0))
        if following == times:
            break
        times = following
    return most


def _own(node: Node) -> int:
    """Return the steps of one subschema itself."""
    if not isinstance(node.schema, dict):
        return 1
    options = [node.schema["const"]] if "const" in node.schema else []
    if isinstance(node.schema.get("enum"), list):
        options += node.schema["enum"]
    compared = sum(_OF_AN_OPTION for option in options if isinstance(option, (list, dict)))
    patterns = node.schema.get("patternProperties")
    required = node.schema.get("required")
    return (
        1
        + compared
        + len(options) // 8
        + (len(patterns) if isinstance(patterns, dict) else 0)
        + (len(required) // 2 if isinstance(required, list) else 0)
        + len(node.named) // 2
    )


def _here(document: Document, place: dict[str, int], applied: dict[str, int]) -> dict[str, int]:
    """Return how often each subschema is applied to a value, with what those that are apply to the same one.

    `place` is that of each in the order in which none comes before what applies it.
    """
    found = defaultdict(int, applied)
    waiting = [place[pointer] for pointer in applied]
    heapify(waiting)
    seen = set(waiting)
    while waiting:
        node = document.nodes[document.order[heappop(waiting)]]
        # What is left over is known only by applying the others once more.
        left_over = isinstance(node.schema, dict) and not _LEFT_OVER.isdisjoint(node.schema)
        for child in node.here:
            found[child] += found[node.pointer] * (2 if left_over else 1)
            if place[child] not in seen:
                seen.add(place[child])
                heappush(waiting, place[child])
    return found


def _below(document: Document, times: dict[str, int]) -> Iterator[dict[str, int]]:
    """Yield how often each subschema is applied to a child of that value: for children that none names, and each name.

    Those of `rest` are not applied to children that the same subschema names.
    """
    others: dict[str, int] = defaultdict(int)
    named: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for pointer, count in times.items():
        node = document.nodes[pointer]
        for child in (*node.each, *node.rest):
            others[child] += count
        for name, children in node.named.items():
            for child in children:
                named[name][child] += count
            for child in node.rest:
                named[name][child] -= count
    yield others
    for changes in named.values():
        yield {
            child: count for child in {**others, **changes} if (count := others.get(child, 0) + changes.get(child, 0))
        }
