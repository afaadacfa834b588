"""Settings of the whole test suite."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from engine.http.server import HttpServer
from tests.fake_operations import FakeOperations, serving
from tests.http_client import Client, asking


def pytest_configure() -> None:
    # A shell without a terminal has what it starts in the background ignore Ctrl-C, and that is handed on to all below.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run the long tier: crash loops, seeds, soaks")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    for item in items:
        if item.get_closest_marker("full") is not None:
            item.add_marker(pytest.mark.skip(reason="long tier: runs with --full"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logs may hold half a character, which can't be sent to the process that reports."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def levels_stay() -> Iterator[None]:
    """An engine that listens sets the levels of its log, which are those of the whole process."""
    parts = [logging.getLogger(name) for name in ("engine", "plugins")]
    before = [part.level for part in parts]
    yield
    for part, level in zip(parts, before, strict=True):
        part.setLevel(level)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def operations(tmp_path: Path) -> FakeOperations:
    """What the server is given in place of an engine."""
    return FakeOperations(tmp_path)


@pytest.fixture
async def server(operations: FakeOperations) -> AsyncIterator[HttpServer]:
    async with serving(operations) as started:
        yield started


@pytest.fixture
async def client(server: HttpServer) -> AsyncIterator[Client]:
    async with asking(server) as connected:
        yield connected
