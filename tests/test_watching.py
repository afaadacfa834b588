from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync
from watchfiles._rust_notify import RustNotify

from engine.mounts import filesystem_of, mounted_at
from plugins.watching import hints
from plugins.watching.filesystems import keeps_inodes, tells_of_changes
from plugins.watching.hints import Watch, WatchBroken
from plugins.watching.names import shown, valid_text, variant
from plugins.watching.opening import below, move, opened
from tests.fakes import until

MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:27 / /srv/in\040box rw,relatime shared:9 - nfs4 server:/in rw,vers=4.2
31 22 0:28 / /srv rw - tmpfs none rw
32 22 0:29 / /srv/data rw - ext4 /dev/vdb rw
33 32 0:30 / /srv/data rw - fuse.sshfs host:/data rw
nonsense
""".lstrip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"), ("/srv", "tmpfs"), ("/srv/in box", "nfs4"), ("/srv/in box/deep/er", "nfs4"),
        ("/srv/in boxes", "tmpfs"), ("/srv/data/x", "fuse.sshfs"),
    ],
)  # fmt: skip
def test_a_path_is_on_the_file_system_that_was_mounted_last_next_to_it(path: str, kind: str) -> None:
    assert mounted_at(MOUNTS, Path(path)) == kind


def test_the_file_system_of_a_real_path_is_known_here(tmp_path: Path) -> None:
    assert filesystem_of(Path("/proc/self")) == "proc"
    assert filesystem_of(tmp_path / "missing") == filesystem_of(tmp_path) != ""


def test_what_is_not_known_to_tell_of_changes_is_taken_not_to() -> None:
    assert all(tells_of_changes(kind) for kind in ("ext4", "xfs", "btrfs", "tmpfs", "zfs", ""))
    assert not any(
        tells_of_changes(kind)
        for kind in ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuseblk", "9p", "overlay", "new")
    )
    assert keeps_inodes("ext4")
    assert keeps_inodes("nfs4")
    assert not any(keeps_inodes(kind) for kind in ("fuse.sshfs", "fuseblk", "vfat", "9p"))


class Told:
    """What a watch tells."""

    def __init__(self) -> None:
        self.times = 0
        self.paths: set[str] = set()

    def __call__(self, paths: Collection[str]) -> None:
        self.times += 1
        self.paths.update(paths)


def watch(path: Path, *, recursive: bool = False) -> Watch:
    return Watch(path, wants=lambda _, path: not path.endswith(".no"), step_s=0.005, recursive=recursive)


async def test_a_watch_first_tells_that_it_stands_and_then_what_changed(tmp_path: Path) -> None:
    told = Told()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch(tmp_path).run, told)
        await until(lambda: told.times)
        assert told.paths == set()
        (tmp_path / "a").touch()
        (tmp_path / "b.no").touch()
        await until(lambda: told.paths == {str(tmp_path / "a")})
        tasks.cancel_scope.cancel()


async def test_a_watch_ends_when_its_directory_is_gone_or_another(tmp_path: Path) -> None:
    path = tmp_path / "in"
    for end in (path.rmdir, lambda: path.rename(tmp_path / "was")):
        path.mkdir()
        told = Told()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch(path).run, told)
                await until(lambda: told.times)  # noqa: B023
                await run_sync(end)
    with pytest.raises(FileNotFoundError):
        await watch(path).run(told)
    path.touch()
    with pytest.raises(NotADirectoryError):
        await watch(path).run(told)


@pytest.mark.parametrize("back", ["while it is made", "once it stands"])
async def test_a_watch_that_was_made_on_another_directory_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    """It would be deaf for ever, once the directory is back that it is told to be on."""
    watched, other = tmp_path / "in", tmp_path / "other"
    watched.mkdir()
    other.mkdir()

    def swap() -> None:
        watched.rename(tmp_path / "aside")
        other.rename(watched)
        (tmp_path / "aside").rename(other)

    def notify_of_the_other(*arguments: Any) -> RustNotify:
        swap()
        made = RustNotify(*arguments)
        if back == "while it is made":
            swap()
        return made

    def tell(_: Collection[str]) -> None:
        if back == "once it stands":
            swap()

    monkeypatch.setattr(hints, "RustNotify", notify_of_the_other)
    with anyio.fail_after(10):
        await watch(watched).run(tell)


async def test_a_name_that_is_not_utf_8_breaks_a_watch_and_that_is_told(tmp_path: Path) -> None:
    told = Told()

    async def run() -> None:
        with pytest.raises(WatchBroken):
            await watch(tmp_path).run(told)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: told.times)
            os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT | os.O_WRONLY))


async def test_more_watches_than_threads_are_shared_stand_side_by_side(tmp_path: Path) -> None:
    told = Told()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                (tmp_path / f"{number}").mkdir()
                tasks.start_soon(watch(tmp_path / f"{number}").run, told)
            await until(lambda: told.times == 60)
            await run_sync(lambda: None)
            tasks.cancel_scope.cancel()


async def test_directories_that_may_not_be_read_keep_no_other_from_being_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> RustNotify:
        if not arguments[-1]:
            raise PermissionError(13, "Permission denied")
        return RustNotify(*arguments)

    monkeypatch.setattr(hints, "RustNotify", refuse)
    told = Told()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch(tmp_path, recursive=True).run, told)
        await until(lambda: told.times)
        tasks.cancel_scope.cancel()


def test_directories_are_opened_name_by_name_and_never_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with opened(tmp_path) as root:
        with below(root, ["a", "b"]) as inner:
            assert os.path.samestat(os.fstat(inner), os.stat(tmp_path / "a" / "b"))
        with pytest.raises(NotADirectoryError), below(root, ["link", "b"]):
            pass
        with below(root, ["link", "b"], follow=True) as inner:
            assert os.path.samestat(os.fstat(inner), os.stat(tmp_path / "a" / "b"))
        with below(root, ["x", "y"], mode=0o700):
            assert (tmp_path / "x" / "y").is_dir()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(FileNotFoundError), below(root, ["a", "missing"]):
                pass
        assert len(os.listdir("/proc/self/fd")) <= before


def test_moving_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "a.csv").write_text("there")
    (tmp_path / "from" / "a.csv").write_text("new")
    with opened(tmp_path / "from") as source, opened(tmp_path / "to") as target:
        assert move(source, "a.csv", target, "a.csv") == "a~1.csv"
        assert move(source, "a.csv", target, "a.csv") is None
    assert (tmp_path / "to" / "a.csv").read_text() == "there"
    assert (tmp_path / "to" / "a~1.csv").read_text() == "new"


def test_names_are_shown_as_text_and_varied_within_their_limit() -> None:
    odd = os.fsdecode(b"\xff\n.csv")
    assert shown(odd) == "\\xff\\n.csv"
    assert valid_text(odd) == "\\xff\n.csv"
    assert valid_text("né\n") == "né\n"
    assert variant("a.csv", 0, room_bytes=0) == "a.csv"
    assert variant("a.csv", 3, room_bytes=0) == "a~3.csv"
    assert len(os.fsencode(variant("é" * 127, 12, room_bytes=6))) <= 249
