"""Every page in a browser: in every role, large and small, light and dark, and with what strangers may send."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.checking import MARKS, check
from tests.browser.places import places, tokens
from tests.browser.viewing import SIZES, Theme, visitor
from tests.browser.wire import Api

pytestmark = MARKS

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


def test_pages_can_be_read_without_scripts(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token, scripts=False) as page:
        for place in ("/", "/runs", "/triggers/crm"):
            page.goto(place)
            expect(page.locator("h1")).to_be_visible()
            expect(page.locator("nav.side a").first).to_be_visible()


def test_what_is_paused_is_not_what_comes_next(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/")
        expect(page.locator("#coming-minute")).to_contain_text("paused until then")
        expect(page.locator(".sentence")).not_to_contain_text("Next: minute")


def test_each_setting_is_shown_with_where_it_comes_from(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/configuration")
        expect(page.locator(".settings .row", has_text="timezone").first).to_contain_text("config.toml:4")
        page.get_by_role("link", name="uploads").click()
        secret = page.locator(".row", has_text="verify.token")
        expect(secret).to_contain_text("file upload.token, named in config.toml")
        expect(page.locator("main")).not_to_contain_text("an-upload-token")
        check(page)
        for name, key, origin in (("stock-taking", "on.cron.expression", "preset"), ("tidy-up", "job", "api"),
                                  ("crm", "expect", "override")):  # fmt: skip
            page.goto(f"/configuration?table=triggers&name={name}")
            expect(page.locator(".row").filter(has=page.get_by_text(key, exact=True)).locator(".origin")).to_have_text(
                origin
            )
        answer = page.goto("/configuration?table=jobs&name=tidy-up")
        assert answer is not None
        check(page)


def test_instants_in_sentences_are_told_in_the_zone_of_all_others(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/")
        held = page.locator("#waiting .row", has_text="maintenance storage-move until")
        expect(held.locator("time[data-tick=local]")).to_have_text(
            re.compile(r"^(\w{3} \d\d \w{3,4} )?\d\d:\d\d(:\d\d)?$")
        )
