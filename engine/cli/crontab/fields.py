"""The time fields of a crontab line, as crontab(5) of Vixie's cron, Debian's cron and cronie has them.

They are stricter than those of `on.cron`: a range that wraps is a mistake there, and so the line never runs.
"""

from __future__ import annotations

import re
from hashlib import sha256

_FIELDS = (
    ("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7),
)  # fmt: skip
_NAMES = {
    3: dict(zip("jan feb mar apr may jun jul aug sep oct nov dec".split(), range(1, 13), strict=True)),
    4: dict(zip("sun mon tue wed thu fri sat".split(), range(7), strict=True)),
}
_ELEMENT = re.compile(
    r"(?:(?P<all>\*)|(?P<low>\w+)(?:(?P<sign>[-~])(?P<high>\w+)?)?|~(?P<upto>\w+)?)(?:/(?P<step>\w+))?"
)

NAMED = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *", "@every_minute": "* * * * *",
}  # fmt: skip
"""What stands for five fields; cron at least knows these, but for `@every_minute`, which is FreeBSD's."""


class BadField(ValueError):
    """A field that cron does not take either, or of which crons differ; the text says why."""


def read_fields(texts: list[str], seed: str) -> tuple[str, str]:
    """Return the five fields as `on.cron` has them, and what had to be decided on the way, in words, or "".

    `seed` decides what is drawn: the `~` of cronie is a random value that stays, and so it is here for the same seed.
    Raises BadField.
    """
    written, drawn = [], []
    for place, text in enumerate(texts):
        name = _FIELDS[place][0]
        if not text:
            raise BadField(f"the {name} is missing")
        elements = []
        for element in text.lower().split(","):
            fixed = _element(place, element, f"{seed} {place}")
            if fixed != element:
                drawn.append(f"{name} {element} became {fixed}, which cron would have drawn when it read the crontab")
            elements.append(fixed)
        written.append(",".join(elements))
    return " ".join(written), "; ".join(drawn)


def _element(place: int, text: str, seed: str) -> str:
    name, lowest, highest = _FIELDS[place]
    match = _ELEMENT.fullmatch(text)
    if match is None:
        raise BadField(f'the {name} has "{text}", which cron does not know')
    step = match["step"]
    if step is not None and not (step.isascii() and step.isdigit() and int(step) > 0):
        raise BadField(f'the {name} has the step "/{step}"; a step is a number from 1')
    if match["all"]:
        return text
    low, high = match["low"], match["high"]
    if match["sign"] == "~" or low is None:
        first = lowest if low is None else _number(place, low)
        last = (
            _number(place, high or match["upto"])
            if high or match["upto"]
            else min(highest, 6 if place == 4 else highest)
        )
        if step is not None or first > last:
            raise BadField(f'the {name} has "{text}", which is no random range')
        return str(first + int.from_bytes(sha256(seed.encode()).digest()[:8], "big") % (last - first + 1))
    if match["sign"] == "-" and high is None:
        raise BadField(f'the {name} has "{text}", a range without an end')
    if high is None:
        _number(place, low)
        if step is not None:
            raise BadField(
                f'the {name} has "{text}": some crons leave the step out, others count from {low} to the end; '
                f"write {low}-{highest}/{step} if that is meant"
            )
        return text
    if _number(place, low) > _number(place, high):
        raise BadField(f'the {name} has "{text}", which runs backwards: cron takes no such range')
    return text


def _number(place: int, text: str) -> int:
    name, lowest, highest = _FIELDS[place]
    if text.isascii() and text.isdigit() and len(text) < 10:
        number = int(text)
    else:
        named = _NAMES.get(place, {}).get(text)
        if named is None:
            raise BadField(f'the {name} has "{text}", which is no {name}')
        number = named
    if not lowest <= number <= highest:
        raise BadField(f'the {name} has "{text}", which is not between {lowest} and {highest}')
    return number
