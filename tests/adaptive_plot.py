"""The plot of docs/adaptive.md: how an interval goes in four scenarios, by the law itself.

`python -m tests.adaptive_plot` draws it anew; `tests/test_adaptive_law.py` fails where it is not what the law gives.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from engine.triggers import Adaptive
from tests.adaptive_worlds import BASE_S, HOUR, SCENARIOS, SHOWN_S, TROUBLE_S, Moment, live

PLOT = Path(__file__).parent.parent / "docs" / "adaptive.svg"

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 760, 176, 52, 16, 44, 26
_TEXT = 'font-family="sans-serif" font-size="12" fill="#333"'
_SMALL = 'font-family="sans-serif" font-size="10" fill="#666"'


def plot() -> str:
    """Return the plot as SVG."""
    panels = [
        _panel(number * PANEL, title, said, settings, live(settings, world, SHOWN_S))
        for number, (title, said, settings, world) in enumerate(SCENARIOS)
    ]
    height = PANEL * len(panels)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'role="img" aria-label="The interval over three days in four scenarios">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *panels, "</svg>", ""])


def _panel(top: int, title: str, said: str, settings: Adaptive, course: Sequence[Moment]) -> str:
    low, high = top + PANEL - BOTTOM, top + TOP

    def x(at_s: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * min(at_s, SHOWN_S) / SHOWN_S, 1)

    def y(interval_s: float) -> float:
        return round(low - (low - high) * interval_s / settings.max_s, 1)

    begun, ended = (x(at_s) for at_s in TROUBLE_S)
    lines = [
        f'<rect x="{begun}" y="{high}" width="{round(ended - begun, 1)}" height="{low - high}" fill="#fbe9e7"/>',
        f'<text x="{LEFT}" y="{top + 20}" {_TEXT} font-weight="bold">{title}</text>',
        f'<text x="{LEFT}" y="{top + 36}" {_SMALL}>while it is shaded, {said}</text>',
    ]
    for interval_s, text in ((settings.min_s, "min"), (BASE_S, "60m"), (settings.max_s, "max 4h")):
        lines += [
            f'<line x1="{LEFT}" y1="{y(interval_s)}" x2="{WIDTH - RIGHT}" y2="{y(interval_s)}" '
            f'stroke="#bbb" stroke-dasharray="{"none" if interval_s == BASE_S else "3 3"}"/>',
            f'<text x="{LEFT - 6}" y="{round(y(interval_s) + 3, 1)}" text-anchor="end" {_SMALL}>{text}</text>',
        ]
    for hour in range(0, round(SHOWN_S / HOUR) + 1, 12):
        text = f"{hour}h" if hour else "0"
        lines.append(f'<text x="{x(hour * HOUR)}" y="{low + 16}" text-anchor="middle" {_SMALL}>{text}</text>')
    steps = [f"M{x(0)} {y(course[0].interval_s)}"]
    for moment in course[1:]:
        if moment.at_s <= SHOWN_S and not steps[-1].endswith(f"V{y(moment.interval_s)}"):
            steps.append(f"H{x(moment.at_s)} V{y(moment.interval_s)}")
    lines.append(f'<path d="{" ".join(steps)} H{x(SHOWN_S)}" fill="none" stroke="#1565c0" stroke-width="2"/>')
    return "\n".join(lines)


def main() -> None:
    """Draw the plot anew."""
    PLOT.write_text(plot(), "utf-8")
    sys.stdout.write(f"{PLOT.name} was drawn anew\n")


if __name__ == "__main__":
    main()
