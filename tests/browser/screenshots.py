"""`python -m tests.browser.screenshots DIR [PAGE …]`: pictures of all pages, large and small, light and dark."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.demo import shop
from tests.browser.places import places
from tests.browser.viewing import SIZES, Theme, launch, visitor
from tests.browser.wire import Api

FULL_HEIGHT_PX = 2400


def take(browser: Browser, api: Api, folder: Path, only: list[str]) -> None:
    """Take all pictures."""
    looks: tuple[tuple[str, Theme], ...] = (("desktop", "light"), ("desktop", "dark"), ("phone", "light"))
    for size, theme in looks:
        with visitor(browser, api.url, api.token, size=size, theme=theme) as page:
            for name, place in places(api).items():
                if only and name not in only:
                    continue
                page.goto(api.url + place)
                page.wait_for_timeout(250)
                expect(page.locator("[data-later]")).to_have_count(0)
                height = page.evaluate("document.documentElement.scrollHeight")
                page.set_viewport_size({"width": SIZES[size][0], "height": min(max(height, 600), FULL_HEIGHT_PX)})
                page.screenshot(path=folder / f"{name}-{size}-{theme}.png")
                page.set_viewport_size({"width": SIZES[size][0], "height": SIZES[size][1]})


def main() -> int:
    """Run the shop and take the pictures; or, with `--url`, of an engine that runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--url", help="of an engine that runs already")
    parser.add_argument("--token", default="the-bench-is-the-admin")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if given.url:
            api = Api(given.url, given.token)
        else:
            # The shop first: playwright has an event loop of its own from when it begins.
            api = stack.enter_context(shop(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))))
        playwright = stack.enter_context(sync_playwright())
        take(stack.enter_context(launch(playwright)), api, given.folder, given.pages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
