"""What people do with the pages: sign in, fire, pause, cancel, follow, search, and go on where something is gone."""

from __future__ import annotations

import os
import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.checking import MARKS
from tests.browser.places import tokens
from tests.browser.viewing import visitor
from tests.browser.wire import Api

pytestmark = MARKS


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


def do(page: Page, button: str, send: str, **fields: str) -> None:
    """Press a button, fill in its dialog, and send it."""
    page.get_by_role("button", name=button, exact=True).first.click()
    dialog = page.get_by_role("dialog")
    for label, text in fields.items():
        dialog.get_by_label(label.replace("_", " "), exact=True).fill(text)
    dialog.get_by_role("button", name=send, exact=True).click()
    expect(dialog).to_have_count(0)


def test_a_run_that_waits_is_held_released_cancelled_and_run_once_more(api: Api, browser: Browser) -> None:
    run = api.post("/triggers/by-hand/fire", {"reason": "one more"})["runs"][0]
    with visitor(browser, api.url, api.token) as page:
        page.goto(f"/runs/{run}")
        state = page.locator("#heading .state").first
        expect(page.locator("[data-lines]")).to_have_attribute("data-none", "It has not begun: there is no log yet.")
        do(page, "Hold", "Hold", Reason="later")
        expect(state).to_have_text("held")
        expect(page.locator(".verdict")).to_contain_text("later")
        do(page, "Release", "Release", Reason="now")
        expect(state).to_have_text("queued")
        do(page, "Cancel", "Cancel the run", Reason="not needed")
        expect(state).to_have_text("cancelled")
        do(page, "Run again", "Run again", Reason="needed")
        page.wait_for_url(lambda url: "/runs/" in url and run not in url)
        expect(state).to_have_text("queued")
        do(page, "Cancel", "Cancel the run")


def test_an_alert_is_muted_and_heard_again(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token, refusals=True) as page:
        page.goto("/alerts")
        row = page.locator("#watched-disk")
        row.get_by_role("button", name="Mute").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("For").fill("soon")
        dialog.get_by_label("Reason").fill("known")
        dialog.get_by_role("button", name="Mute").click()
        expect(dialog.get_by_role("alert")).to_contain_text("must be a duration")
        dialog.get_by_label("For").fill("2h")
        dialog.get_by_role("button", name="Mute").click()
        expect(page.locator("#watched-disk")).to_contain_text("muted until")
        page.locator("#watched-disk").get_by_role("button", name="Unmute").click()
        page.get_by_role("dialog").get_by_role("button", name="Unmute").click()
        expect(page.locator("#watched-disk")).not_to_contain_text("muted until")


def test_a_token_is_shown_once_works_and_is_revoked(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/tokens")
        page.get_by_role("button", name="Make one").click()
        page.get_by_role("dialog").get_by_label("Name").fill("night-shift")
        page.get_by_role("dialog").get_by_role("button", name="Make one").click()
        expect(page.locator("[data-said]")).to_contain_text("te_")
        token = page.locator("[data-said]").inner_text()
        page.get_by_role("button", name="I have it").click()
        row = page.locator("tr", has_text="night-shift")
        expect(row).to_contain_text("viewer")
        assert token not in page.content()
        assert Api(api.url, token).get("/status")["state"] == "running"
        row.get_by_role("button", name="Revoke").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(page.locator("tr", has_text="night-shift")).to_have_count(0)
        with pytest.raises(AssertionError, match="401"):
            Api(api.url, token).get("/status")


def test_what_a_run_comes_to_is_shown_while_one_looks_at_it(api: Api, browser: Browser) -> None:
    run = api.post("/triggers/crm/fire", {"bypass": ["conditions"], "reason": "to watch it"})["runs"][0]
    with visitor(browser, api.url, api.token) as page:
        page.goto(f"/runs/{run}")
        expect(page.locator("#attempts")).to_have_count(0)
        expect(page.locator("#attempts")).to_contain_text("exited with 0", timeout=15_000)
        expect(page.locator("[data-lines]")).to_contain_text("synced")


def test_an_adaptive_interval_is_frozen_and_adapts_again(api: Api, browser: Browser) -> None:
    with visitor(browser, api.url, api.token) as page:
        page.goto("/triggers/crm")
        do(page, "Freeze", "Freeze", Reason="the supplier said so")
        expect(page.locator("#adaptive-title")).to_contain_text("frozen")
        do(page, "Unfreeze", "Unfreeze", Reason="it is over")
        expect(page.locator("#adaptive-title")).not_to_contain_text("frozen")
