"""Every page in a browser: in every role, large and small, light and dark, and with what strangers may send."""

from __future__ import annotations

import json
import os
import re
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

TABLES = ".table:not(:has(.heat))"
"""A week's hours are too many for a phone: that table alone is moved under the finger."""

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
    cut = page.evaluate(
        f"[...document.querySelectorAll('{TABLES}')].filter((one) => one.scrollWidth > one.clientWidth).length"
    )
    assert not cut, f"{page.url} has {cut} tables that are cut at the edge"


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


def test_a_trigger_is_disabled_and_enabled(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/triggers/quarterly")
        for verb, state in (("Disable", "disabled"), ("Enable", "active")):
            page.get_by_role("button", name=verb, exact=True).click()
            page.get_by_role("dialog").get_by_label("Reason").fill("a test")
            page.get_by_role("dialog").get_by_role("button", name=verb, exact=True).click()
            expect(page.locator("#heading .state").first).to_have_text(state)
        assert api.get("/triggers/quarterly")["overrides"]["reason"] == "a test"


def test_a_fire_that_runs_nothing_leads_to_what_became_of_it(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/triggers/orders")
        page.get_by_role("button", name="Fire").click()
        page.get_by_role("dialog").get_by_label("Data, as JSON").fill('{"total": 3}')
        page.get_by_role("dialog").get_by_role("button", name="Fire now").click()
        page.wait_for_url("**/events/*")
        expect(page.locator("main")).to_contain_text("data.total > 50 is false")


def test_who_is_signed_out_meanwhile_is_told_so_and_led_to_the_door(api: Api, browser: Browser) -> None:
    name = f"leaves-{os.urandom(4).hex()}"
    token = api.post("/tokens", {"name": name, "role": "operator"})["token"]
    with visitor(browser, api.url, None, refusals=True) as page:
        page.goto("/sign-in?next=/triggers/orders")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Fire").click()
        api.post(f"/tokens/{name}", method="DELETE")
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Fire now").click()
        expect(dialog.get_by_role("alert")).to_contain_text("You are not signed in any more")
        expect(dialog.get_by_role("link", name="Sign in")).to_have_attribute(
            "href", "/sign-in?next=%2Ftriggers%2Forders"
        )
        dialog.get_by_role("button", name="Back").click()
        page.keyboard.press("r")
        page.wait_for_url("**/sign-in?next=/triggers/orders")


def test_a_page_of_what_is_gone_meanwhile_says_so(api: Api, browser: Browser) -> None:
    api.post("/triggers", {"name": "goes", "on": {"cron": "40 4 * * *"}, "job": "tidy-up"})
    with visitor(browser, api.url, api.token, refusals=True) as page:
        page.goto("/triggers/goes")
        api.post("/triggers/goes", method="DELETE")
        page.keyboard.press("r")
        expect(page.locator(".offline")).to_contain_text("This is not there any more.")


def test_times_that_are_given_are_of_the_zone_in_which_times_are_shown(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/backfills")
        page.get_by_role("button", name="Begin one").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Trigger").fill("quarterly")
        dialog.get_by_label("From, Europe/Berlin").fill("2026-03-28T00:00")
        dialog.get_by_label("To, Europe/Berlin").fill("2026-07-02T00:00")
        dialog.get_by_role("button", name="Begin one").click()
        expect(page.locator("#list")).to_contain_text("quarterly")
        (begun,) = [one for one in api.get("/backfills")["items"] if one["trigger"] == "quarterly"]
        assert (begun["from"], begun["to"]) == ("2026-03-27T23:00:00Z", "2026-07-01T22:00:00Z")
        script = next(one for one in re.findall(r"/assets/[^\"]+page.js", page.content()))
        told = "".join(
            f"(await import('{script.replace('page.js', 'actions.js')}')).instantOf('{text}', 'Europe/Berlin'),"
            for text in ("2026-10-25T02:30", "2026-10-25T03:30", "2026-03-29T03:30", "2026-03-29T01:30")
        )
        assert page.evaluate(f"(async () => [{told}])()") == [
            "2026-10-25T00:30:00.000Z",
            "2026-10-25T02:30:00.000Z",
            "2026-03-29T01:30:00.000Z",
            "2026-03-29T00:30:00.000Z",
        ]


def test_the_chosen_row_stays_chosen_and_opens_what_it_is_about(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/runs")
        page.keyboard.press("j")
        chosen = page.locator("tr.chosen")
        expect(chosen).to_have_count(1)
        row = chosen.get_attribute("id") or ""
        api.post("/triggers/orders/fire", {"data": {"total": 70}})
        page.keyboard.press("r")
        expect(page.locator("tbody tr").first).not_to_have_attribute("id", row)
        expect(chosen).to_have_attribute("id", row)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/runs/{row.removeprefix('run-')}")


def test_a_button_is_of_its_own_row_also_after_the_list_has_changed(api: Api, browser: Browser) -> None:
    api.post("/maintenance", {"name": "middle", "duration": "2h", "scope": {"tags": ["storage"]}})
    with visitor(browser, api.url, api.token) as page:
        page.goto("/maintenance")
        api.post("/maintenance", {"name": "before", "duration": "2h", "scope": {"tags": ["storage"]}})
        page.keyboard.press("r")
        expect(page.locator("#window-before")).to_be_visible()
        page.locator("#window-middle").get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(page.locator("#window-middle")).to_have_count(0)
        expect(page.locator("#window-before")).to_be_visible()
    api.post("/maintenance/before", method="DELETE")


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


def test_the_engine_and_what_has_a_tag_are_paused_and_resumed_on_the_first_page(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/")
        for tag, told in (("crm", "All with the tag crm is paused"), ("", "The engine is paused")):
            page.get_by_role("button", name="Pause", exact=True).click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_label("For").fill("2h")
            dialog.get_by_label("Only what has the tag").fill(tag)
            dialog.get_by_label("Reason").fill("the disks move")
            dialog.get_by_role("button", name="Pause", exact=True).click()
            banner = page.locator(".banner", has_text=told)
            expect(banner).to_contain_text("the disks move")
            if not tag:
                expect(page.get_by_role("button", name="Pause", exact=True)).to_have_count(0)
            banner.get_by_role("button", name="Resume").click()
            page.get_by_role("dialog").get_by_role("button", name="Resume").click()
            expect(banner).to_have_count(0)
    with visitor(browser, api.url, tokens(api)["viewer"]) as page:
        page.goto("/")
        expect(page.get_by_role("button", name="Pause", exact=True)).to_have_count(0)
