"""Records as lines: ids stand on the line, a stack below it, and secrets nowhere."""

from __future__ import annotations

import logging

import pytest

from engine.logs import IdLogger, LineFormatter, Masker


def line(message: str, **extra: str) -> str:
    record = logging.makeLogRecord({"msg": message, "levelno": 30, "levelname": "WARNING", "created": 0.0, **extra})
    return LineFormatter(Masker({"hunter2hunter2"})).format(record)


def test_ids_stand_on_the_line_and_control_characters_are_escaped() -> None:
    assert line("one\ntwo", action="a\x1b[31m") == "1970-01-01T00:00:00.000Z warning one\\ntwo  action=a\\x1b[31m"


def test_a_stack_stands_below_the_line_and_shows_no_secret() -> None:
    stack = '  File "x.py", line 1, in run\n    login("hunter2hunter2")\x07\n'
    assert line("stuck", stack=stack).splitlines()[1:] == [
        '  File "x.py", line 1, in run',
        '    login("***")\\x07',
    ]


def test_what_a_call_gives_stands_beside_the_ids_of_its_logger(caplog: pytest.LogCaptureFixture) -> None:
    IdLogger(logging.getLogger("plugins"), {"source": "files:inbox"}).warning("odd", extra={"action": "found"})
    [record] = caplog.records
    assert (vars(record)["source"], vars(record)["action"]) == ("files:inbox", "found")
