"""Each page of docs/recipes does what it says: a real engine has its configuration, and its commands are typed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.bench.processes import free_port
from tests.recipe_pages import PAGES, Reader, Told, blocks, looks, matches, prepare, steps

TOKEN = "a-token-of-the-recipes-that-is-long-enough"
WITHIN_S = 20.0
RECIPES = sorted(PAGES.glob("*.md"))
ROOT = Path(__file__).parent.parent
SECRETS = {
    "CALLBACK_SECRET": "whsec_dGhlIHNlY3JldCBvZiB0aGUgcmVjaXBlcywgbG9uZyBlbm91Z2g=",
    "PROVIDER_SECRET": "the-token-of-the-provider",
}


@contextmanager
def serving(folder: Path, port: int) -> Iterator[Path]:
    """Run an engine in a folder; give its log."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ENGINE", "NOTIFY"))}
    environment |= {"ENGINE_ADMIN_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "TZ": "UTC", **SECRETS}
    environment["ENGINE__ENGINE__SHUTDOWN_GRACE"] = "100ms"
    log = folder / "log"
    with log.open("wb") as stream:
        engine = subprocess.Popen(
            [sys.executable, "-m", "engine"], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=stream, start_new_session=True,
        )  # fmt: skip
    try:
        until_s = time.monotonic() + 40.0
        while not ready(port):
            assert engine.poll() is None, log.read_text()
            assert time.monotonic() < until_s, log.read_text()
            time.sleep(0.05)
        yield log
    finally:
        engine.terminate()
        try:
            engine.wait(30)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait(10)


def ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.parametrize("page", [page for page in RECIPES if page.name != "README.md"], ids=lambda page: page.stem)
def test_a_recipe_does_what_its_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, told = free_port(), Told()
    with told.listening() as url:
        prepare(page, tmp_path, port, url)
        for name in [name for name in os.environ if name.startswith("ENGINE")]:
            monkeypatch.delenv(name)
        for name, value in {**SECRETS, "ENGINE_URL": f"http://127.0.0.1:{port}", "ENGINE_TOKEN": TOKEN,
                            "LOGNAME": "ann"}.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        with serving(tmp_path, port) as log:
            reader = Reader(tmp_path)
            for step in steps(page):
                output = reader.type(step.command)
                until_s = time.monotonic() + WITHIN_S
                while not matches(reader.shown(step.prints), output) and time.monotonic() < until_s:
                    if not looks(step.command):
                        break
                    time.sleep(0.1)
                    output = reader.type(step.command)
                place = f"{page.name}:{step.line}: $ {step.command}"
                assert matches(reader.shown(step.prints), output), f"{place}\nprinted\n{output}\n{log.read_text()}"
        if "callback" in page.read_text("utf-8"):
            assert any(b"engine.run.succeeded" in body for _, body in told.messages)


def test_each_page_is_in_the_list_and_has_a_configuration_and_commands() -> None:
    listed = (PAGES / "README.md").read_text("utf-8")
    for page in RECIPES:
        if page.name == "README.md":
            continue
        assert f"({page.name})" in listed, f"{page.name} is not in the list"
        assert {"toml", "console"} <= {language for language, _, _ in blocks(page)}
        assert any(step.prints for step in steps(page)), "what a command prints is shown, so that it is compared"


def test_what_a_page_shows_is_compared() -> None:
    assert matches("a … b\n…\nc", "a 1 2 b  \nx\ny\nc\n")
    assert matches("…", "")
    assert not matches("a … b", "a b\n")
    assert not matches("a", "a\nb\n")
    assert not matches("a.b", "axb\n")
