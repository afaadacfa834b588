"""Logs as readers get them: valid text, with what is no text shown, and no secret."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.logtext import LogFile, LogText

SECRET = "s3cr/t+canary=ü"


def text_of(body: bytes, *secrets: str, sizes: int | None = None) -> str:
    text, step = LogText(secrets), sizes or max(len(body), 1)
    parts = [text.feed(body[start : start + step]) for start in range(0, len(body), step)]
    return "".join(parts) + text.end()


def test_what_is_no_utf8_is_shown_byte_by_byte() -> None:
    assert text_of(b"a\xff\xfe\n\xc3\xbc\xc3") == "a\\xff\\xfe\nü\\xc3"


@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_bytes_are_valid_text_however_they_are_cut(body: bytes, sizes: int) -> None:
    assert text_of(body, sizes=sizes) == text_of(body) == body.decode("utf-8", "backslashreplace")


def test_a_megabyte_of_noise_is_valid_text() -> None:
    noise = random.Random(6).randbytes(1024 * 1024)
    assert text_of(noise, SECRET, sizes=65536).encode()


@pytest.mark.parametrize("sizes", [1, 2, 3, 7, 1000])
def test_secrets_are_masked_in_every_form_and_across_chunks(sizes: int) -> None:
    encoded = base64.b64encode(SECRET.encode()).decode()
    body = f"a {SECRET} b {quote(SECRET, safe='')} c {encoded} d {SECRET}"
    seen = text_of(body.encode(), SECRET, "short", sizes=sizes)
    assert seen.replace("=", "") == "a *** b *** c *** d ***"  # the padding of Base64 tells nothing


def test_only_what_could_be_the_beginning_of_a_secret_is_held_back() -> None:
    text = LogText(["canary-secret"])
    assert text.feed(b"a line\n") == "a line\n"
    assert text.feed(b"and a can") == "and a "
    assert text.feed(b"ary\n") == "canary\n"
    assert text.feed(b"canary-secre") == ""
    assert text.feed(b"t!") == "***!"
    assert text.end() == ""


def test_a_log_that_is_not_there_yet_is_read_once_it_is(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "log")
    file.skip_to_last(5)
    assert file.read() == b""
    (tmp_path / "log").write_bytes(b"one\n")
    assert file.read() == b"one\n"
    assert file.read() == b""
    with (tmp_path / "log").open("ab") as log:
        log.write(b"two\n")
    assert file.read() == b"two\n"
    file.close()
