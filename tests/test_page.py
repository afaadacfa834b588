"""The web page over HTTP: who sees it, what it may load, and that nothing from outside does anything in it."""

from __future__ import annotations

import gzip
import itertools
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.decide.alerts import Alert, Course, Finding, What
from engine.errors import StoreUnavailable
from engine.http.page import ASSETS, PAGES
from engine.http.page.curves import curve_of
from engine.http.page.now import coming
from engine.http.page.sign_in import own_path
from engine.http.page.sparklines import drawn
from engine.http.page.timeline import lanes_of
from engine.http.page.words import Clockwork, about, cut, linked, percent, pretty, span, visible
from engine.http.routes import PAGE_ROUTES
from engine.ids import new_id
from engine.runs import Attempt, Origin, Run, RunState
from engine.tallies import Tally, TallyKey, TallyRow, Width, bin_of, percentile
from engine.triggers import Pause
from tests.fake_operations import FakeOperations, serving
from tests.http_client import Client, asking

PEOPLE = {"Accept": "text/html,application/xhtml+xml", "Accept-Encoding": "identity"}


def a_run(**changed: Any) -> Run:
    return replace(
        Run(
            id=new_id(), job="import", trigger="nightly", origin=Origin.SCHEDULE, key="k", event=new_id(),
            state=RunState.FAILED, code="failed", reason="exited with 1", priority=5, rank=0, created_at=NOW,
        ),
        **changed,
    )  # fmt: skip


NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(FakeOperations(tmp_path)) as server, asking(server) as asked:
        yield asked


async def test_who_is_not_signed_in_is_led_to_where_that_is_done_and_back(client: Client) -> None:
    got = await client.ask("GET", "/search?q=nightly", headers=PEOPLE, token=None)
    assert got.status == 303
    assert got.headers["Location"] == "/sign-in?next=/search%3Fq%3Dnightly"
    form = await client.ask("GET", got.headers["Location"], headers=PEOPLE, token=None)
    assert form.status == 200
    assert b'name="next" value="/search?q=nightly"' in form.body


async def test_search_finds_a_run_and_an_event_by_the_last_digits_of_their_ids(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    run = operations.add_run()
    async with serving(operations) as server, asking(server) as client:
        for sought, place in ((run.id[-8:], f"/runs/{run.id}"), (run.event[-12:].upper(), f"/events/{run.event}")):
            got = await client.ask("GET", f"/search?q={sought}", headers=PEOPLE)
            assert (got.status, got.headers["Location"]) == (303, place)
        got = await client.ask("GET", "/search?q=00000000", headers=PEOPLE)
        assert (got.status, b"the last 8 digits do" in got.body) == (200, True)
        other = "1" + run.id[1:]
        operations.memory.kept[other] = replace(run, id=other)
        got = await client.ask("GET", f"/search?q={run.id[-8:]}", headers=PEOPLE)
        assert (got.status, b"give more digits of it" in got.body) == (404, True)


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/a\nb", "/" + "a" * 3000],
)
def test_nobody_is_led_elsewhere_after_signing_in(target: str) -> None:
    assert own_path(target) == "/"


async def test_a_page_may_load_what_is_ours_and_run_nothing_that_stands_in_it(client: Client) -> None:
    got = await client.ask("GET", "/search", headers=PEOPLE)
    assert got.status == 200
    policy = got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = got.body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", text)
    for place in re.findall(r'(?:src|href)="(/assets/[^"]+)"', text):
        asset = await client.ask("GET", place, token=None)
        assert asset.status == 200
        assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        again = await client.ask("GET", place, token=None, headers={"If-None-Match": asset.headers["ETag"]})
        assert again.status == 304


async def test_what_a_script_imports_is_there(client: Client) -> None:
    todo, seen = ["page.js"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        got = await client.ask("GET", ASSETS.url(name), headers=PEOPLE, token=None)
        assert got.status == 200, name
        todo += re.findall(r'from "\./([^"]+)"', got.body.decode())
    assert len(seen) > 3


async def test_files_of_another_version_and_what_is_beside_them_are_not_there(client: Client) -> None:
    for place in (
        "/assets/000000000000/page.js",
        f"/assets/{ASSETS.folder}/../shell.py",
        f"/assets/{ASSETS.folder}/no.js",
    ):
        assert (await client.ask("GET", place, token=None)).status == 404


async def test_pages_are_packed_for_who_takes_that(client: Client) -> None:
    got = await client.ask("GET", "/search", headers={**PEOPLE, "Accept-Encoding": "gzip, br"})
    assert got.headers["Content-Encoding"] == "gzip"
    assert b"<!doctype html>" in gzip.decompress(got.body)
    refused = await client.ask("GET", "/search", headers={**PEOPLE, "Accept-Encoding": "gzip;q=0, br"})
    assert b"<!doctype html>" in refused.body


async def test_a_program_gets_a_problem_and_a_person_a_page(client: Client) -> None:
    told = await client.ask("GET", "/no-such-page")
    assert told.status == 404
    assert told.json["code"] == "not_found"
    shown = await client.ask("GET", "/no-such-page", headers=PEOPLE)
    assert shown.status == 404
    assert b"There is nothing here" in shown.body
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]


async def test_a_store_that_is_away_is_told_of_and_asked_again_later(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    operations.memory.fault = StoreUnavailable("the disk is full")
    async with serving(operations) as server, asking(server) as client:
        got = await client.ask("GET", f"/runs/{new_id()}", headers=PEOPLE)
    assert got.status == 503
    assert got.headers["Retry-After"] == "2"
    assert b"The store can&#39;t be read now" in got.body
    assert b"The disk is full" in got.body


async def test_a_fault_of_ours_tells_a_person_no_more_than_a_program(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    operations.memory.fault = RuntimeError("a secret detail")
    async with serving(operations) as server, asking(server) as client:
        got = await client.ask("GET", f"/runs/{new_id()}", headers=PEOPLE)
    assert got.status == 500
    assert b"secret detail" not in got.body


async def test_runs_are_shown_as_text(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    run = a_run(reason="<img src=x onerror=alert(1)>")
    operations.memory.kept[run.id] = run
    async with serving(operations) as server, asking(server) as client:
        got = await client.ask("GET", "/runs?state=failed", headers=PEOPLE)
        wrong = await client.ask("GET", "/runs?state=nonsense", headers=PEOPLE)
    assert got.status == 200
    assert b"&lt;img src=x onerror=alert(1)&gt;" in got.body
    assert b"<img" not in got.body
    assert wrong.status == 422
    assert b"unknown state" in wrong.body


def test_every_page_has_a_route_and_no_two_the_same_key() -> None:
    assert {page.path for page in PAGES} <= {route.pattern for route in PAGE_ROUTES}
    keys = [page.key for page in PAGES if page.key is not None]
    assert len(keys) == len(set(keys))
    assert all(page.role is not None for page in PAGES if page.path != "/sign-in")


# Words


def test_what_can_not_be_seen_is_written_out() -> None:
    assert visible("a\x1b[31mb\x00") == "a␛[31mb␀"
    assert visible("invoice\u202egnp.exe") == "invoice\\u202egnp.exe"
    assert visible("\ud800") == "\\ud800"


def test_a_megabyte_is_cut() -> None:
    assert len(cut("x" * 1_000_000)) == 300
    text, whole = pretty({"text": "<" * 1_000_000})
    assert len(text) < 20_000
    assert not whole
    assert pretty({"a": [1, "b\nc"]}) == ('{\n  "a": [\n    1,\n    "b\\nc"\n  ]\n}', True)


def test_a_run_that_is_named_is_a_link_and_everything_else_is_text() -> None:
    run = "01a2168a-bdd5-7474-8bdb-2105ee5fad92"
    assert str(linked(f"<b> {run}")) == (
        f'<bdi>&lt;b&gt; <a class="id" href="/runs/{run}" title="{run}">ee5fad92</a></bdi>'
    )


@pytest.mark.parametrize("told", ["2026-11-26 17:38:34 UTC", "2026-11-26T17:38:34Z", "2026-11-26T17:38:34.160739Z"])
def test_an_instant_that_is_told_is_a_time_that_browsers_show_in_the_zone_of_all_others(told: str) -> None:
    shown = str(linked(f"held until {told} (disks)"))
    assert shown == (
        '<bdi>held until <time datetime="2026-11-26T17:38:34Z" title="2026-11-26 17:38:34 UTC" data-tick="local">'
        "2026-11-26 17:38:34 UTC</time> (disks)</bdi>"
    )
    assert "<time" not in str(linked(f"x{told}y"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0094, "9 ms"),
        (1.14, "1.1 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (5400, "1 h 30 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_spans_are_written_for_people(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_what_is_known_to_a_twentieth_claims_no_more_digits() -> None:
    of_205_ms = percentile({bin_of(0.205): 5}, 0.5)
    assert of_205_ms is not None
    told = [about(seconds) for seconds in (of_205_ms, 9.46, 93.4, 754.0, 0.0004, None)]
    assert told == [
        "≈\u00a0200\u00a0ms", "≈\u00a09.5\u00a0s", "≈\u00a093\u00a0s", "≈\u00a013\u00a0min", "≈\u00a01\u00a0ms", "–"
    ]  # fmt: skip


async def test_statistics_say_which_times_are_rough(client: Client) -> None:
    shown = (await client.ask("GET", "/jobs/import", headers=PEOPLE)).body.decode()
    told = re.findall(r'data-label="(?:Median|95 %)"[^>]*>([^<]*)<', shown)
    assert told[:2] == ["1\u00a0s", "9\u00a0s"]
    assert ("≈ Median" in shown, "≈ 95 %" in shown) == (True, True)


def test_almost_all_is_not_all() -> None:
    assert [percent(part) for part in (1.0, 0.99999, 0.0, 0.00001, 0.5, None)] == [
        "100\u202f%", "99.9\u202f%", "0\u202f%", "0.1\u202f%", "50\u202f%", "–"
    ]  # fmt: skip


def test_times_are_told_as_seen_from_now_and_in_both_zones() -> None:
    clock = Clockwork("Europe/Berlin", NOW)
    assert clock.local("2026-11-21T02:58:00Z") == "03:58:00"
    assert clock.full("2026-11-21T02:58:00Z") == "Sat 21 Nov 2026, 03:58:00 Europe/Berlin (02:58:00 UTC)"
    assert clock.ago("2026-11-21T02:58:00Z") == "2 min ago"
    assert clock.ago("2026-11-23T03:00:00Z") == "in 2 d"


# Drawings


def ran(job: str, began_s: float, took_s: float, **changed: Any) -> Run:
    began = NOW + timedelta(seconds=began_s)
    return a_run(job=job, created_at=began, started_at=began, finished_at=began + timedelta(seconds=took_s), **changed)


def test_runs_that_overlap_stand_below_each_other_in_the_lane_of_their_job() -> None:
    runs = [ran("b", 0, 60), ran("a", 0, 60), ran("a", 30, 60), ran("a", 90, 10)]
    lanes = lanes_of(runs, NOW, NOW + timedelta(seconds=200), NOW + timedelta(seconds=200))
    assert [(lane.job, lane.rows, len(lane.bars)) for lane in lanes] == [("a", 2, 3), ("b", 1, 1)]
    assert [(bar.x, bar.width) for bar in lanes[0].bars] == [(0, 30), (15, 30), (45, 5)]
    assert lanes[0].bars[0].y == lanes[0].bars[2].y < lanes[0].bars[1].y


def test_a_run_that_began_before_the_drawing_and_one_that_runs_still_end_at_its_edges() -> None:
    still = ran("a", -100, 0, state=RunState.RUNNING)
    still = replace(still, finished_at=None)
    (lane,) = lanes_of([still], NOW, NOW + timedelta(seconds=100), NOW + timedelta(seconds=50))
    assert [(bar.x, bar.width) for bar in lane.bars] == [(0, 50)]


def test_a_sparkline_tells_its_sums_and_shows_one_failure_among_a_thousand() -> None:
    start = NOW - timedelta(hours=23)
    tally = Tally()
    tally.add(RunState.SUCCEEDED, 2.0, 1)
    tally.ends[RunState.SUCCEEDED] = 1000
    tally.add(RunState.FAILED, None)
    key = TallyKey(trigger="nightly", job="import", width=Width.HOUR, began_at=NOW)
    line = drawn([TallyRow(key=key, tally=tally)], start, Width.HOUR)
    assert line.label == "1\u202f001 runs in 24 hours, 1 failed"
    assert len(line.bars) == 24
    last = line.bars[-1]
    assert last.bad == 3.0
    assert last.good + last.bad + last.other <= 24.0
    assert line.sums.success_rate == pytest.approx(1000 / 1001)


def test_an_interval_is_drawn_from_change_to_change_within_its_bounds() -> None:
    view = {
        "interval_s": 3600.0, "base_s": 1800.0, "min_s": 600.0, "max_s": 14_400.0,
        "changes": [{"at": "2026-11-20T03:00:00Z", "old_s": 1800.0, "new_s": 3600.0, "reason": "slower", "rule": "x"}],
    }  # fmt: skip
    curve = curve_of(view, NOW)
    (point,) = curve.points
    assert point.slower
    assert 0 < point.x < 1000
    highest, configured, lowest = (one.y for one in curve.guides)
    assert highest < point.y < configured < lowest
    assert curve.path.endswith("H1000")


async def test_an_alert_that_is_not_open_says_so_and_its_severity_is_told_as_such(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    async with serving(operations) as server, asking(server) as client:
        shown = (await client.ask("GET", "/alerts", headers=PEOPLE)).body.decode()
        assert 'title="open"' in shown
        for state, course, enabled in (
            ("not open", Course(), True), ("not open yet", pending_course(), True), ("disabled", Course(), False),
        ):  # fmt: skip
            operations.alerts.course = course
            operations.alerts.alert = replace(operations.alerts.alert, for_s=60.0, enabled=enabled)
            shown = (await client.ask("GET", "/alerts", headers=PEOPLE)).body.decode()
            row = re.findall(r'<li class="row" id="watched-failing">.*?</span></div>', shown, re.DOTALL)[0]
            assert f'title="{state}"><span class="sr">{state}</span>' in row
            assert f'<span class="by">{state}' in row
            assert "severity: warning" in row
            assert "succeeded" not in re.sub(r'class="[^"]*"', "", row)


async def test_a_run_of_several_attempts_says_which_of_its_times_is_of_what(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    starts = [NOW + timedelta(seconds=seconds) for seconds in (1, 20, 60)]
    attempts = tuple(
        Attempt(
            number=number, started_at=at, finished_at=at + timedelta(seconds=4), state=RunState.FAILED, code="exit",
            reason="exited with 1",
        )
        for number, at in enumerate(starts, 1)
    )  # fmt: skip
    times = {"started_at": starts[-1], "finished_at": starts[-1] + timedelta(seconds=4), "attempt": 3}
    thrice, once = a_run(attempts=attempts, **times), a_run(attempts=attempts[:1], **{**times, "attempt": 1})
    running = a_run(attempts=attempts[:2], state=RunState.RUNNING, started_at=starts[-1], attempt=3)
    for run in (thrice, once, running):
        operations.memory.kept[run.id] = run
        operations.memory.joined[run.id] = (run.event,)
    async with serving(operations) as server, asking(server) as client:
        facts = [await facts_of(client, run) for run in (thrice, once, running)]
        listed = (await client.ask("GET", "/runs", headers=PEOPLE)).body.decode()
    assert facts[0]["Waited"] == "1 s until its first attempt"
    assert facts[0]["Last attempt took"] == "4 s"
    assert facts[0]["In all"] == "1 min 3 s 3 attempts and the pauses between them"
    assert (facts[1]["Waited"], facts[1]["Took"], "In all" in facts[1]) == ("1 s", "4 s", False)
    assert facts[2]["Waited"] == "1 s until its first attempt"
    assert "Runs for" in facts[2]
    assert listed.count("until its last attempt") == 2


async def facts_of(client: Client, run: Run) -> dict[str, str]:
    shown = (await client.ask("GET", f"/runs/{run.id}", headers=PEOPLE)).body.decode()
    found = re.findall(r'<div class="fact"><dt>(.*?)</dt><dd>(.*?)</dd>', shown, re.DOTALL)
    return {name: " ".join(re.sub("<[^>]*>", "", value).split()) for name, value in found}


async def test_what_became_of_an_event_at_first_does_not_read_as_the_state_of_its_run_now(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    run = operations.add_run(state=RunState.SUCCEEDED)
    stored = operations.memory.stored[run.event]
    gathered = replace(stored.outcomes[0], code="debounce", reason="pending: gathers events for 2s (debounce)")
    operations.memory.stored[run.event] = replace(stored, outcomes=(gathered,))
    async with serving(operations) as server, asking(server) as client:
        shown = (await client.ask("GET", f"/events/{run.event}", headers=PEOPLE)).body.decode()
    assert "pending at first: gathers events for 2s (debounce)" in shown
    assert "pending: " not in shown


@pytest.mark.parametrize(("failed", "told"), [(9, "9"), (120, "100 or more")])
async def test_how_many_failed_lately_is_counted_beyond_those_that_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: int, told: str
) -> None:
    operations = FakeOperations(tmp_path)
    monkeypatch.setattr(operations, "status", status_of_a_whole_engine)
    for _ in range(failed):
        run = a_run(created_at=operations.clock.now(), finished_at=operations.clock.now())
        operations.memory.kept[run.id] = run
    async with serving(operations) as server, asking(server) as client:
        shown = (await client.ask("GET", "/", headers=PEOPLE)).body.decode()
    assert re.search(r">([^<]*)</b> failed in the last hour", shown)[1] == told  # type: ignore[index]
    assert shown.count('class="row failure"') == 8


async def test_the_page_leads_to_the_reference_of_the_api_and_back(client: Client) -> None:
    assert b'<a href="/docs">' in (await client.ask("GET", "/search", headers=PEOPLE)).body
    assert b'<a href="./">' in (await client.ask("GET", "/docs", headers=PEOPLE)).body


async def status_of_a_whole_engine() -> dict[str, Any]:
    return {
        "state": "running", "started_at": "2026-11-21T03:00:00Z", "triggers": 1, "jobs": 1, "concurrency": 4,
        "sources": [], "maintenance": [], "conditions": {"holding": {}},
    }  # fmt: skip


def pending_course() -> Course:
    alert, course = Alert(name="failing", what=What.FAILURES, limit=3, for_s=60.0), Course()
    course.look(alert, {"trigger nightly": Finding(subject="trigger nightly", value=3, text="3 failed")}, NOW, 0.0)
    return course


def due_at(operations: FakeOperations, now: datetime) -> list[tuple[str, bool]]:
    return [(f"{one.at:%d %H:%M}", one.paused) for one in coming(operations, now)]


def test_what_is_paused_comes_next_when_the_pause_is_over_and_not_before(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path)
    operations.due_soon = [(NOW + timedelta(hours=23), "nightly")]
    assert due_at(operations, NOW) == [("22 02:00", False)]
    pause = Pause(reason="", since=NOW, until=NOW + timedelta(hours=2), name="nightly")
    operations.paused = {"nightly": pause}
    assert due_at(operations, NOW) == [("22 02:00", True)]
    operations.due_soon = []  # its timer waits for the end of the pause
    assert due_at(operations, NOW) == [("22 02:00", True)]
    for until in (NOW + timedelta(hours=23, minutes=30), NOW + timedelta(days=2), None):
        operations.paused = {"nightly": replace(pause, until=until)}
        operations.due_soon = [(NOW + timedelta(hours=23), "nightly")]
        assert due_at(operations, NOW) == []


def test_names_beside_a_curve_stand_clear_of_each_other() -> None:
    view = {"interval_s": 60, "base_s": 60, "min_s": 60, "max_s": 60, "changes": []}
    heights = [one.label_y for one in curve_of(view, NOW).guides]
    assert all(after - before >= 14 for before, after in itertools.pairwise(heights))
    assert max(heights) <= 160


def test_what_failed_is_drawn_over_what_went_well() -> None:
    runs = [a_run(state=state, started_at=NOW, finished_at=NOW) for state in (RunState.FAILED, RunState.SUCCEEDED)]
    (lane,) = lanes_of(runs, NOW - timedelta(hours=1), NOW, NOW)
    assert [bar.run.state for bar in lane.bars] == [RunState.SUCCEEDED, RunState.FAILED]


async def test_where_nothing_is_there_is_a_word_and_another_where_nothing_was_found(client: Client) -> None:
    for place, told in (
        ("/runs", "Nothing has run yet"),
        ("/runs?state=failed", "There are no such runs"),
        ("/events", "No event has come yet"),
        ("/events?type=no.such", "There are no such events"),
        ("/jobs?q=no-such", "There are no such jobs"),
    ):
        page = await client.ask("GET", place, headers=PEOPLE)
        assert (page.status, told in page.body.decode()) == (200, True), place
