"""Every page in a browser: in every role, large and small, light and dark, and with what strangers may send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.demo import shop
from tests.browser.places import places, tokens
from tests.browser.viewing import CHROMIUM, SIZES, Theme, launch, visitor
from tests.browser.wire import Api

AXE = (Path(__file__).parent / "axe.min.js").read_text("utf-8")
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with shop(tmp_path_factory.mktemp("shop"), days=2) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, launch(playwright) as started:
        yield started


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


LOOKS = (
    ("desktop", "light"),
    ("phone", "dark"),
    pytest.param("desktop", "dark", marks=pytest.mark.full),
    pytest.param("phone", "light", marks=pytest.mark.full),
)


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_every_page_is_whole_and_can_be_used_by_everybody(api: Api, browser: Browser, size: str, theme: Theme) -> None:
    with visitor(browser, api.url, api.token, size=size, theme=theme) as page:
        for name, place in places(api).items():
            answer = page.goto(place)
            assert answer is not None
            assert answer.status == 200, name
            expect(page.locator("h1")).to_be_visible()
            expect(page.locator("[data-later]")).to_have_count(0)
            check(page)


@pytest.mark.parametrize("size", list(SIZES))
def test_what_one_sees_before_one_has_signed_in_is_whole_too(api: Api, browser: Browser, size: str) -> None:
    with visitor(browser, api.url, None, size=size, refusals=True) as page:
        for place in ("/", "/sign-in?wrong=token_expired", "/sign-in"):
            page.goto(place)
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            check(page)
    with visitor(browser, api.url, api.token, size=size, refusals=True) as page:
        page.goto("/no-such-page")
        expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
        check(page)


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_every_role_sees_what_it_may_and_is_offered_no_more(api: Api, browser: Browser, role: str) -> None:
    with visitor(browser, api.url, tokens(api)[role], refusals=True) as page:
        for name, place in places(api).items():
            answer = page.goto(place)
            assert answer is not None
            assert answer.status in (200, 403), name
        page.goto("/triggers/crm")
        buttons = page.get_by_role("button", name="Fire")
        assert (buttons.count() > 0) == (role != "viewer")


def test_a_token_for_a_tag_sees_what_has_it_and_nothing_else(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, tokens(api)["scoped"], refusals=True) as page:
        for name, place in places(api).items():
            answer = page.goto(place)
            assert answer is not None
            assert answer.status in (200, 403, 404), name
        page.goto("/")
        expect(page.locator("#waiting")).to_contain_text("crm-up")
        expect(page.locator("main")).not_to_contain_text("warehouse")
        expect(page.get_by_role("link", name="Queue")).to_have_count(0)
        page.goto("/triggers")
        expect(page.locator("tbody tr")).to_have_count(1)
        answer = page.goto("/triggers/nightly-load")
        assert answer is not None
        assert answer.status == 404


def test_hostile_events_leave_the_pages_whole(api: Api, browser: Browser) -> None:
    hostile = [one for one in api.get("/events?limit=50")["items"] if "<script>" in (one["subject"] or "")]
    assert hostile
    with visitor(browser, api.url, api.token) as page:
        for place in ("/events", f"/events/{hostile[0]['id']}", "/", "/runs", f"/runs/{_run_of(hostile[0])}"):
            page.goto(place)
            assert page.locator("img").count() == 0
            assert page.evaluate("document.querySelectorAll('script:not([src])').length") == 0
        page.goto(f"/events/{hostile[0]['id']}")
        text = page.locator("main").inner_text()
        assert "<script>alert(1)</script>" in text
        assert "\u202e" not in text
        assert "\x1b" not in text


def _run_of(event: dict[str, object]) -> str:
    outcomes = event["outcomes"]
    assert isinstance(outcomes, list)
    return str(next(one["run"] for one in outcomes if one["run"]))


def test_a_megabyte_of_text_is_a_small_page_with_a_link_to_the_whole(api: Api, browser: Browser) -> None:
    (huge,) = api.get("/events?type=order.huge")["items"]
    with visitor(browser, api.url, api.token) as page:
        answer = page.goto(f"/events/{huge['id']}")
        assert answer is not None
        assert len(answer.body()) < 200_000
        expect(page.get_by_role("link", name="All of it")).to_have_attribute("href", f"/api/v1/events/{huge['id']}")


def test_one_signs_in_comes_to_where_one_wanted_to_and_signs_out(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, None, refusals=True) as page:
        page.goto("/triggers?q=crm")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.get_by_label("Token").fill("not-this-one")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not valid")
        page.get_by_label("Token").fill(api.token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/triggers?q=crm")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
        page.goto("/")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_trigger_is_fired_with_data_and_its_run_is_shown_with_its_log(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/triggers/orders")
        page.get_by_role("button", name="Fire").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Data, as JSON").fill("{")
        dialog.get_by_role("button", name="Fire now").click()
        expect(dialog.get_by_role("alert")).to_contain_text("not valid JSON")
        dialog.get_by_label("Data, as JSON").fill('{"total": 99}')
        dialog.get_by_label("Reason").fill("from the page")
        dialog.get_by_role("button", name="Fire now").click()
        page.wait_for_url("**/runs/*")
        expect(page.locator(".story")).to_contain_text("from the page")
        expect(page.locator("[data-lines]")).to_contain_text("billed")
        expect(page.locator("#heading .state").first).to_have_text("succeeded", timeout=15_000)


def test_a_trigger_is_paused_until_it_is_resumed(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/triggers/quarterly")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("dialog").get_by_label("For").fill("2h")
        page.get_by_role("dialog").get_by_label("Reason").fill("the board is away")
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()
        expect(page.locator("#heading")).to_contain_text("the board is away")
        page.get_by_role("button", name="Resume").click()
        page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        assert api.get("/triggers/quarterly")["paused"] is None


def test_a_log_follows_is_searched_and_is_no_markup(api: Api, browser: Browser) -> None:
    run = api.get("/runs?state=running&job=warehouse-load")["items"][0]["id"]
    with visitor(browser, api.url, api.token) as page:
        page.goto(f"/runs/{run}")
        lines = page.locator("[data-lines]")
        expect(lines).to_contain_text("<b>this is no markup</b>")
        assert lines.locator("b").count() == 0
        expect(lines.locator(".f1.bold")).to_have_text("error")
        page.get_by_role("searchbox", name="Search the log").fill("part 17 ")
        expect(lines.locator("div:visible")).to_have_count(1)


def test_now_stays_as_the_engine_is(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/")
        api.post("/pause", {"reason": "the disks are full", "tag": "crm"})
        try:
            expect(page.locator("#banners")).to_contain_text("the disks are full", timeout=15_000)
        finally:
            api.post("/resume", {"tag": "crm"})
        expect(page.locator("#banners")).not_to_contain_text("the disks are full", timeout=15_000)


def test_it_is_told_that_the_engine_does_not_answer_until_it_does(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token, refusals=True) as page:
        page.goto("/")
        page.context.set_offline(True)
        for _ in range(2):
            page.keyboard.press("r")
            page.wait_for_timeout(100)
        expect(page.locator(".offline")).to_be_visible(timeout=30_000)
        page.context.set_offline(False)
        page.keyboard.press("r")
        expect(page.locator(".offline")).to_be_hidden()


def test_all_can_be_done_by_the_keyboard(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_contain_text("Search")
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press("t")
        page.wait_for_url("**/triggers")
        page.keyboard.press("j")
        page.keyboard.press("j")
        expect(page.locator("tr.chosen")).to_have_count(1)
        page.keyboard.press("Enter")
        page.wait_for_url("**/triggers/*")
        page.keyboard.press("/")
        page.keyboard.type("nightly-load")
        page.keyboard.press("Enter")
        page.wait_for_url("**/triggers/nightly-load")


def test_a_chosen_theme_stays(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/")
        page.get_by_role("button", name="Dark or light").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.goto("/runs")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_pages_can_be_read_without_scripts(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token, scripts=False) as page:
        for place in ("/", "/runs", "/triggers/crm"):
            page.goto(place)
            expect(page.locator("h1")).to_be_visible()
            expect(page.locator("nav.side a").first).to_be_visible()
