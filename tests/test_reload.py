"""The configuration is read anew while the engine runs: whole or not at all, and without losing anything."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

from engine.decide.adaptive import Decision, Pace
from engine.errors import ConfigError, Conflict, StoreUnavailable
from engine.events import Event
from engine.runs import RunState
from engine.store.base import EventFilter
from engine.testing import VirtualClock
from engine.triggers import PauseScope
from tests.changing import HEAD, Site, tapped
from tests.fakes import until
from tests.test_runtime import Gate, Tap, _fresh, free_port  # noqa: F401 - a fixture


class Polled(Tap, frozen=True, kw_only=True):
    """One that looks at something once a minute."""

    name: ClassVar[str] = "polled"

    def base_interval(self) -> float:
        return 60.0


GATE = """
[jobs.work.run.gate]
gate = "{gate}"
[triggers.by-hand]
on.manual = true
job = "work"
"""
ONE = GATE.format(gate="open")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_what_is_added_changed_and_removed_is_taken_up(site: Site) -> None:
    site.write(ONE + '[triggers.old]\non.tap.label = "old"\njob = "work"\n')
    async with site.running() as operations:
        change = await site.reload(
            ONE.replace('job = "work"', 'job = "work"\npriority = "high"')
            + '[jobs.more.run]\ngate = "open"\n[triggers.new]\non.tap.label = "new"\njob = "more"\n'
        )
        assert (change.triggers.added, change.triggers.changed, change.triggers.removed) == (
            ("new",), ("by-hand",), ("old",)
        )  # fmt: skip
        assert (change.jobs.added, change.jobs.changed) == (("more",), ())
        assert operations.trigger_view("by-hand")["priority"] == 8
        assert not operations.has_trigger("old")
        context = await tapped("new")
        (accepted,) = await context.emit(Event(type="came"))
        assert await site.ended(accepted.runs[0]) is RunState.SUCCEEDED
        await until(lambda: [source["name"] for source in operations.source_views()] != [])
        assert len([one for one in operations.source_views() if "tap" in one["name"]]) == 1


async def test_what_is_the_same_is_not_touched_though_it_stands_in_another_line(site: Site) -> None:
    site.write(ONE + '[triggers.heard]\non.tap.label = "heard"\njob = "work"\n')
    async with site.running() as operations:
        before = await tapped("heard")
        change = await site.reload(
            "# one line more\n" + ONE + '[triggers.heard]\non.tap.label = "heard"\njob = "work"\n'
        )
        assert change.said() == "nothing differs"
        assert await tapped("heard") is before
        assert operations.trigger_view("heard")["defined_in"].endswith(":12")


async def test_a_bad_file_changes_nothing_and_says_why(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.write(ONE)
    async with site.running() as operations:
        with pytest.raises(ConfigError):
            await site.reload(ONE + '[triggers.odd]\non.cron = "99 * * * *"\njob = "wrok"\n')
        assert operations.trigger_names() == ["by-hand"]
        view = operations.definitions.view()["reload"]
        assert (view["ok"], view["who"], len(view["errors"])) == (False, "a test", 2)
        check = next(check for check in operations.health()["checks"] if check["name"] == "configuration")
        assert not check["ok"]
        assert "config.toml:" in check["detail"]
        [record] = [record for record in caplog.records if getattr(record, "action", "") == "config_rejected"]
        assert "\n" not in record.getMessage(), "it is one line, however many mistakes there are"
        assert record.getMessage().count("config.toml:") == 2
        assert await site.ended(await site.fire("by-hand")) is RunState.SUCCEEDED
        await site.reload(ONE)
        assert operations.health()["status"] == "ok"


async def test_triggers_can_listen_for_reloads(site: Site) -> None:
    text = ONE + '[triggers.told]\non.event = "engine.config.*"\njob = "work"\n'
    site.write(text)
    async with site.running() as operations:
        with pytest.raises(ConfigError):
            await site.reload(text + "odd = 1\n")
        await site.reload(text + 'tags = ["x"]\n')
        kinds = [one.event.type for one in await operations.store.events(EventFilter(), limit=10)]
        assert {"engine.config.rejected", "engine.config.reloaded"} <= set(kinds)


async def test_what_only_a_restart_changes_is_named_and_left(site: Site) -> None:
    site.write(ONE)
    async with site.running() as operations:
        port = free_port()
        head = f'http.listen = "127.0.0.1:{port}"\n[engine]\nwatch = false\nageing = "2m"\nconcurrency = 3\n'
        change = await site.reload(ONE + '[store]\nmin_free = "1MiB"\nkeep.runs = "5d"\n', head=head)
        assert change.restart == ("engine.ageing", "http.listen", "store.min_free")
        assert operations.definitions.view()["restart_needed"] == list(change.restart)
        assert (await operations.status())["concurrency"] == 3
        assert operations.config.http.port != port
        assert operations.config.store.keep.runs == timedelta(days=5).total_seconds()
        again = await site.reload(ONE + '[store]\nmin_free = "1MiB"\nkeep.runs = "5d"\n', head=head)
        assert again.restart == change.restart


async def test_a_run_that_runs_ends_as_it_began_and_the_next_one_is_the_new_job(site: Site) -> None:
    site.write(GATE.format(gate="first"))
    async with site.running() as operations:
        run_id = await site.fire("by-hand")
        await until(lambda: Gate.begun)
        await site.reload(GATE.format(gate="second"))
        Gate.open.add("second")
        assert await site.ended(await site.fire("by-hand")) is RunState.SUCCEEDED
        run = await operations.store.run(run_id)
        assert run is not None
        assert run.state is RunState.RUNNING
        Gate.open.add("first")
        assert await site.ended(run_id) is RunState.SUCCEEDED


async def test_runs_that_wait_are_run_though_their_trigger_and_job_are_gone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.definitions.organ.AGAIN_S", 0.0)
    head = HEAD + "concurrency = 1\n"
    site.write(GATE.format(gate="first"), head=head)
    async with site.running() as operations:
        running, waiting = await site.fire("by-hand"), await site.fire("by-hand")
        await until(lambda: Gate.begun)
        change = await site.reload("", head=head)
        assert (change.triggers.removed, change.jobs.removed) == (("by-hand",), ("work",))
        assert change.left == ("job work is kept for its runs that wait or run",)
        Gate.open.add("first")
        assert await site.ended(running) is RunState.SUCCEEDED
        assert await site.ended(waiting) is RunState.SUCCEEDED
        await until(lambda: "work" not in operations.jobs)
        assert operations.definitions.view()["left"] == []


async def test_an_open_window_closes_with_the_events_of_before_and_after(site: Site) -> None:
    text = ONE + '[triggers.many]\non.tap.label = "many"\njob = "work"\ndebounce = "{wait}"\n'
    site.write(text.format(wait="60s"))
    async with site.running(clock=(clock := VirtualClock())) as operations:
        context = await tapped("many")
        (first,) = await context.emit(Event(type="one"))
        await site.reload(text.format(wait="30s"))
        (second,) = await context.emit(Event(type="two"))
        assert second.runs == first.runs
        await clock.advance(61)
        run = await operations.ended(first.runs[0])
        assert run is not None
        assert (run.state, run.event_count) == (RunState.SUCCEEDED, 2)


async def test_pauses_stay(site: Site) -> None:
    site.write(ONE)
    async with site.running() as operations:
        await operations.pause(PauseScope.TRIGGER, "by-hand", reason="we move")
        await site.reload(ONE + 'tags = ["moved"]\n')
        assert operations.trigger_view("by-hand")["state"] == "paused"


HOURLY = """
[jobs.work.run.gate]
gate = "open"
[triggers.clock]
on.cron = "{cron}"
job = "work"
{more}
"""


async def test_a_timer_goes_on_from_its_cursor_and_runs_no_instant_twice(site: Site) -> None:
    site.write(HOURLY.format(cron="0 * * * *", more=""))
    async with site.running(clock=(clock := VirtualClock())):
        for hour in range(4):
            await clock.advance(3601)
            await site.reload(HOURLY.format(cron="0 * * * *", more=f'tags = ["{hour}"]'))
        await until_counts(site, RunState.SUCCEEDED, 4)


async def test_another_schedule_begins_now_and_catches_up_on_nothing(site: Site) -> None:
    site.write(HOURLY.format(cron="0 0 * * *", more=""))
    async with site.running(clock=(clock := VirtualClock())) as operations:
        await clock.advance(5 * 3600)
        await site.reload(HOURLY.format(cron="30 * * * *", more=""))
        await clock.advance(60)
        assert not await site.counts()
        assert operations.next_at("clock") is not None
    async with site.running(clock=VirtualClock()):
        # It is durable: a restart does not catch up either.
        assert not await site.counts()


async def until_counts(site: Site, state: RunState, count: int) -> None:
    with anyio.fail_after(10):
        while (await site.counts()).get(state, 0) != count:  # noqa: ASYNC110 - the store tells nobody
            await anyio.sleep(0.01)


async def test_a_store_that_can_not_take_it_leaves_all_as_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write(HOURLY.format(cron="0 * * * *", more=""))
    async with site.running() as operations:
        journal: Any = operations._journal

        async def refuse(*_: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(journal, "submit", refuse)
            with pytest.raises(StoreUnavailable):
                await site.reload(HOURLY.format(cron="30 * * * *", more=""))
        assert operations.trigger_view("clock")["on"]["cron"]["expression"] == "0 * * * *"
        change = await site.reload(HOURLY.format(cron="30 * * * *", more=""))
        assert change.triggers.changed == ("clock",)


async def test_no_event_is_lost_while_reloads_go_on(site: Site) -> None:
    text = ONE + '[triggers.heard]\non.tap.label = "heard"\njob = "work"\ntags = ["{tag}"]\n'
    site.write(text.format(tag=0))
    accepted = []
    async with site.running() as operations:
        context = await tapped("heard")
        over = False

        async def send() -> None:
            number = 0
            while not over:
                number += 1
                accepted.extend(await context.emit(Event(type="tick", key=str(number))))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            for tag in range(1, 12):
                await site.reload(text.format(tag=tag))
            over = True
        assert len(accepted) > 11
        assert all(len(one.runs) == 1 for one in accepted)
        for one in accepted:
            assert await site.ended(one.runs[0]) is RunState.SUCCEEDED
        assert operations.trigger_view("heard")["tags"] == ["11"]


async def test_a_source_whose_settings_change_is_started_anew_under_its_id(site: Site) -> None:
    text = ONE + '[sources.shared.tap]\nlabel = "{label}"\n[triggers.heard]\non.source = "shared"\njob = "work"\n'
    site.write(text.format(label="a"))
    async with site.running() as operations:
        before = await tapped("a")
        await before.emit(Event(type="one", key="1"), cursor="here")
        change = await site.reload(text.format(label="b"))
        assert change.sources == ("tap:shared",)
        context = await tapped("b")
        assert await context.cursor() == "here"
        (again,) = await context.emit(Event(type="one", key="1"))
        assert again.duplicate
        assert [one["name"] for one in operations.source_views()].count("tap:shared") == 1


async def test_conditions_pools_windows_and_receivers_come_and_go(site: Site) -> None:
    site.write(ONE)
    async with site.running() as operations:
        more = (
            'conditions = ["there"]\notherwise = {{ hold = "1h" }}\n'
            '[conditions.there]\ncheck.file = "{file}"\nevery = "100ms"\n'
            '[pools]\nfew = 1\n[maintenance.night]\ndays = ["sunday"]\nstart = "01:00"\nend = "02:00"\n'
            '[notify.ops]\nurl = "json://127.0.0.1:9/"\n'
        )
        text = ONE + more
        change = await site.reload(text.format(file=site.file.parent / "no"))
        assert (change.conditions.added, change.maintenance.added) == (("there",), ("night",))
        run_id = await site.fire("by-hand")
        with anyio.fail_after(10):
            while (await operations.store.run(run_id)).state is not RunState.HELD:  # type: ignore[union-attr]  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert [one["name"] for one in await operations.pools.views()] == ["engine", "few"]
        assert [one["name"] for one in operations.maintenance.views()] == ["night"]
        assert "ops" in operations.config.receivers
        change = await site.reload(ONE)
        assert change.conditions.removed == ("there",)
        assert await site.ended(run_id) is RunState.SUCCEEDED
        assert [one["name"] for one in await operations.pools.views()] == ["engine"]
        assert operations.maintenance.views() == []
        assert "ops" not in operations.config.receivers


async def test_a_job_that_is_disabled_and_a_trigger_too(site: Site) -> None:
    site.write(HOURLY.format(cron="0 * * * *", more=""))
    async with site.running(clock=(clock := VirtualClock())) as operations:
        await site.reload(HOURLY.format(cron="0 * * * *", more="enabled = false"))
        await clock.advance(3 * 3600)
        assert operations.trigger_view("clock")["state"] == "disabled"
        assert not await site.counts()
        await site.reload(HOURLY.format(cron="0 * * * *", more=""))
        await clock.advance(3601)
        await until_counts(site, RunState.SUCCEEDED, 1)


async def test_files_that_change_are_read_when_whoever_writes_has_ended(site: Site) -> None:
    head = HEAD.replace("watch = false", "watch = true")
    site.write(ONE, head=head)
    async with site.running() as operations:
        site.write(ONE + 'tags = ["seen"]\n', head=head)
        await until(lambda: operations.trigger_view("by-hand")["tags"] == ["seen"])
        reload = operations.definitions.view()["reload"]
        assert (reload["who"], reload["ok"]) == ("its files have changed", True)


async def test_a_secret_that_comes_with_a_reload_is_masked(site: Site) -> None:
    site.write(ONE)
    secret = site.file.parent / "secret"
    secret.write_text("json://sesame-open-wide:9/\n")
    async with site.running() as operations:
        await site.reload(ONE + '[notify.ops]\nurl = { file = "secret" }\n')
        assert operations._mask("it said json://sesame-open-wide:9/") == "it said ***"


async def test_a_program_without_files_has_none_to_read(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(ONE)
    async with site.running() as operations:
        operations.definitions._read = None
        with pytest.raises(Conflict, match="no files"):
            await operations.definitions.reload("ann")


ADAPTIVE = """
[jobs.work.run]
gate = "open"
[triggers.polled]
on.polled = {{ label = "{label}" }}
job = "work"
adaptive = {{ min = "30s", max = "10m", success_rate_min = 0.9 }}
"""


async def test_a_source_that_is_started_anew_keeps_the_interval_that_was_learnt(site: Site) -> None:
    site.registry.add(Polled)
    text = ADAPTIVE.replace("on.polled", "on.source", 1).replace('{{ label = "{label}" }}', '"shared"')
    text = '[sources.shared.polled]\nlabel = "{label}"\n' + text
    site.write(text.format(label="a"))
    async with site.running() as operations:
        await tapped("a")
        adaptation: Any = operations._adaptation
        case = adaptation._cases["polled"]
        decision = Decision(pace=Pace(interval_s=300.0), rule="success_rate", why="a test")
        await adaptation._change(case, decision)
        assert operations.adaptive_view("polled")["interval_s"] == 300.0
        await site.reload(text.format(label="b"))
        await tapped("b")
        assert operations.adaptive_view("polled")["interval_s"] == 300.0
        state = operations._sources.state("polled:shared")
        assert state is not None
        assert state.factor == 5.0
