"""Browsers that look at the page: Debian's Chromium, at the size of a desk and of a phone; what goes wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright

Theme = Literal["light", "dark"]
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
PATIENCE_MS = 20_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def launch(playwright: Playwright) -> Iterator[Browser]:
    """Start the system's Chromium, without a window."""
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    )
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def visitor(
    browser: Browser, url: str, token: str | None, *, size: str = "desktop", theme: Theme = "light",
    refusals: bool = False, scripts: bool = True,
) -> Iterator[Page]:  # fmt: skip
    """Open a page as somebody with a token; raises where anything is wrong in it.

    `refusals` tells whether the engine may refuse something; `scripts` whether scripts run.
    """
    width, height = SIZES[size]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, extra_http_headers=headers,
        is_mobile=size == "phone", has_touch=size == "phone", base_url=url, java_script_enabled=scripts,
    )  # fmt: skip
    context.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: _note(message, wrong, refusals))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"a script of somebody else ran: {dialog.message}"))
    try:
        yield page
    finally:
        context.close()
    assert not wrong, wrong


def _note(message: ConsoleMessage, wrong: list[str], refusals: bool) -> None:
    refused = refusals and "Failed to load resource" in message.text
    if message.type in ("error", "warning") and not refused:
        wrong.append(f"{message.text} ({message.location})")
