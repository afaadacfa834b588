"""The files source with what only a whole process shows: kills, overflows, mounts, limits of the system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.crash.process import ROOT, end_marked, started, wait_for
from tests.crash.site import Job, Site

ALL = '[triggers.dropped]\non.files = { path = "inbox", complete = "rename" }\njob = "work"\nfilter = "false"\n'
CLAIM = '[triggers.dropped]\non.files = { path = "inbox", settle = "100ms", claim = true }\njob = "work"\n'
MANY_S = 45.0


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(triggers: str, job: Job | None = None) -> Site:
        sites.append(Site(tmp_path / "site", jobs={"work": job or Job()}, triggers=triggers))
        return sites[-1]

    yield make
    for site in sites:
        end_marked({run for (run,) in site.rows("select id from runs")})


def drop_all(site: Site, names: Sequence[str]) -> None:
    """Write files elsewhere and rename each into the inbox."""
    made = site.path / "made"
    made.mkdir(exist_ok=True)
    for name in names:
        (made / name).write_text("content")
    for name in names:
        os.rename(made / name, site.inbox / name)


def count(site: Site) -> int:
    return int(site.rows("select count(*) from events")[0][0])


def subjects(site: Site) -> list[str]:
    """Return the names that events tell of, each as often as it is told."""
    return [os.path.basename(subject) for (subject,) in site.rows("select subject from events")]


@pytest.mark.timeout(150)
def test_each_of_ten_thousand_files_is_one_event_when_the_engine_is_killed_in_their_midst(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(ALL)
    names = [f"{number}.csv" for number in range(10_000)]
    dropping = threading.Thread(target=drop_all, args=(site, names))
    with started(site) as engine:
        dropping.start()
        for enough in (500, 4_000):
            wait_for(lambda: count(site) >= enough, "some events are stored", MANY_S)  # noqa: B023
            engine.kill()
            engine = started(site)
        with engine:
            dropping.join()
            wait_for(lambda: count(site) >= 10_000, lambda: f"all events are stored: {count(site)}", MANY_S)
            assert engine.stop() == 0
    assert sorted(subjects(site)) == sorted(names)
    assert site.rows("select count(*) from memory") == [(10_000,)]


@pytest.mark.timeout(150)
def test_no_file_is_lost_when_the_kernels_queue_overflows(make_site: Callable[..., Site]) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 20_000:
        pytest.skip(f"the queue holds {most}")
    site = make_site(ALL)
    names = [f"{number}" for number in range(30_000)]
    with started(site) as engine:
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            for name in names:
                os.close(os.open(site.inbox / name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        wait_for(lambda: count(site) >= 30_000, lambda: f"all events are stored: {count(site)}", MANY_S)
        # It goes on to be watched.
        drop_all(site, ["later"])
        wait_for(lambda: "later" in subjects(site), "the next file is an event")
        assert engine.stop() == 0
    assert sorted(subjects(site)) == sorted([*names, "later"])


def test_a_missing_directory_degrades_the_engines_health_and_nothing_else(make_site: Callable[..., Site]) -> None:
    site = make_site(ALL)

    def health() -> tuple[str, str]:
        body = site.ask("GET", "/health").body
        return body["status"], next(check["detail"] for check in body["checks"] if check["name"] == "sources")

    with started(site) as engine:
        assert health() == ("ok", "all run")
        site.inbox.rmdir()
        wait_for(lambda: health()[0] == "degraded", "health tells of it")
        assert f"{site.inbox} can't be read: No such file or directory" in health()[1]
        assert site.ask("GET", "/ready").status == 200
        (source,) = site.ask("GET", "/api/v1/status").body["sources"]
        assert (source["state"], source["error"]) == ("running", None)
        assert "can't be read" in source["warning"]
        site.inbox.mkdir()
        wait_for(lambda: health()[0] == "ok", "health tells that it is over")
        drop_all(site, ["a"])
        wait_for(lambda: subjects(site) == ["a"], "the file is an event")
        assert engine.stop() == 0


def test_a_claimed_file_whose_engine_is_killed_is_one_event_and_comes_to_its_end(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(CLAIM, Job(seconds=1.0))
    with started(site) as engine:
        drop_all(site, ["a.csv", "b.csv"])
        wait_for(lambda: len([line for line in site.witnessed() if line.what == "start"]) == 2, "both runs started")
        assert sorted(os.listdir(site.inbox / ".claimed")) == ["a.csv", "b.csv"]
        engine.kill()
    with started(site) as engine:
        done = site.inbox / "done"
        wait_for(lambda: done.is_dir() and len(os.listdir(done)) == 2, "both are done")
        wait_for(lambda: site.rows("select count(*) from memory") == [(0,)], "they are forgotten")
        assert engine.stop() == 0
    assert sorted(subjects(site)) == ["a.csv", "b.csv"]
    assert os.listdir(site.inbox / ".claimed") == []


def test_a_claimed_file_whose_run_fails_is_moved_beside_the_reason(make_site: Callable[..., Site]) -> None:
    site = make_site(CLAIM, Job(failing=1))
    with started(site) as engine:
        drop_all(site, ["a.csv"])
        failed = site.inbox / "failed"
        wait_for(lambda: (failed / "a.csv").exists(), "it has failed")
        assert "run.exec" not in (text := (failed / "a.csv.error").read_text())
        assert "the job work (trigger dropped): failed: " in text
        assert engine.stop() == 0


# In namespaces of their own

PRELUDE = """
import os, subprocess, sys
from pathlib import Path
import anyio
from plugins.sources.files import Files
from tests.fakes import FakeSourceContext, until

base = Path(sys.argv[1])
inbox = base / "in"
inbox.mkdir()
context = FakeSourceContext(base)

def told():
    return sorted((event.type.removeprefix("file."), event.data["name"]) for event in context.emitted)

def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)
"""


def run_apart(folder: Path, unshare: Sequence[str], program: str) -> None:
    """Run a program on a source in namespaces of its own; skip where that may not be."""
    if subprocess.run(["unshare", *unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("there are no namespaces for us")
    folder.mkdir()
    text = PRELUDE + "\nasync def main():\n" + textwrap.indent(textwrap.dedent(program), "    ") + "\nanyio.run(main)\n"
    done = subprocess.run(
        ["unshare", *unshare, sys.executable, "-c", text, folder],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_mount_that_takes_the_directorys_place_is_noticed_and_so_is_its_end(tmp_path: Path) -> None:
    run_apart(
        tmp_path / "base",
        ["-m", "--propagation", "private"],
        """
        (inbox / "below").write_text("x")
        async with context.running(Files(path=Path("in"), complete="rename")):
            await until(lambda: told() == [("created", "below")])
            mount("-t", "tmpfs", "none", inbox)
            await until(lambda: ("deleted", "below") in told())
            (inbox / "above").write_text("x")
            await until(lambda: ("created", "above") in told())
            subprocess.run(["umount", "--lazy", inbox], check=True)  # the watch keeps its directory open
            await until(lambda: ("deleted", "above") in told())
            (inbox / "again").write_text("x")
            await until(lambda: ("created", "again") in told())
        """,
    )


def test_without_inotify_watches_it_polls_and_says_so(tmp_path: Path) -> None:
    run_apart(
        tmp_path / "base",
        ["-Ur"],
        """
        Path("/proc/sys/user/max_inotify_watches").write_text("0")
        async with context.running(Files(path=Path("in"), complete="rename", poll_every=0.2)):
            await until(lambda: context.warning is not None)
            assert "is polled, as it can't be watched" in context.warning, context.warning
            (inbox / "a").write_text("x")
            await until(lambda: told() == [("created", "a")])
        """,
    )


def test_without_inotify_instances_it_polls_and_says_so(tmp_path: Path) -> None:
    run_apart(
        tmp_path / "base",
        ["-Ur"],
        """
        Path("/proc/sys/user/max_inotify_instances").write_text("0")
        async with context.running(Files(path=Path("in"), complete="rename", poll_every=0.2)):
            await until(lambda: context.warning is not None)
            assert "is polled, as it can't be watched" in context.warning, context.warning
            (inbox / "a").write_text("x")
            await until(lambda: told() == [("created", "a")])
        """,
    )


def test_an_overlay_whose_lower_layer_changes_is_polled(tmp_path: Path) -> None:
    run_apart(
        tmp_path / "base",
        ["-m", "--propagation", "private"],
        """
        mount("-t", "tmpfs", "none", base)
        for name in ("in", "lower", "upper", "work"):
            (base / name).mkdir()
        layers = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        mount("-t", "overlay", "overlay", "-o", layers, inbox)
        async with context.running(Files(path=Path("in"), complete="rename", poll_every=0.2)):
            (base / "upper" / "a").write_text("x")  # no one is told of it
            await until(lambda: told() == [("created", "a")])
        """,
    )


def test_a_full_disk_of_the_senders_loses_nothing(tmp_path: Path) -> None:
    run_apart(
        tmp_path / "base",
        ["-m", "--propagation", "private"],
        """
        mount("-t", "tmpfs", "-o", "size=64k", "none", inbox)
        async with context.running(Files(path=Path("in"), settle=0.1, claim=True)):
            (inbox / "a").write_bytes(b"x" * 50_000)
            try:
                (inbox / "b").write_bytes(b"x" * 50_000)
            except OSError:
                pass
            await until(lambda: ("created", "a") in told())
            await until(lambda: os.listdir(inbox / ".claimed"))
        """,
    )
