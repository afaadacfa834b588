"""What is looked for on every page: axe's rules, and that nothing is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.viewing import CHROMIUM

AXE = (Path(__file__).parent / "axe.min.js").read_text("utf-8")
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}

TABLES = ".table:not(:has(.heat))"
"""A week's hours are too many for a phone: that table alone is moved under the finger."""

MARKS = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.timeout(240),
]
"""The marks of every test that needs a browser."""


def check(page: Page) -> None:
    """Refuse a page on which something is wrong for people who don't see, or that is wider than its window."""
    page.evaluate(AXE)
    found = page.evaluate(f"axe.run(document, {json.dumps(RULES)})")
    told = [
        f"{page.url}: {one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in found["violations"]
    ]
    assert not told, "\n".join(told)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{page.url} is {wide} pixels wider than its window"
    cut = page.evaluate(
        f"[...document.querySelectorAll('{TABLES}')].filter((one) => one.scrollWidth > one.clientWidth).length"
    )
    assert not cut, f"{page.url} has {cut} tables that are cut at the edge"
