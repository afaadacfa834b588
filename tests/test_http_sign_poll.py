"""The http runner's signatures, and long jobs whose status it asks for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.expressions import JOB_NAMES
from engine.plugin import BadSetting, Outcome, Secret
from engine.runs import RunState
from plugins.outgoing.signing import Signer
from plugins.runners.http import Http
from plugins.runners.polling import Poll
from tests.evil_server import Received, answer, json_answer, saying, serving
from tests.exec_runs import Context, FastClock, context

LOOPBACK = ("127.0.0.1",)
KEY = bytes(range(32))
SECRET = Secret(f"whsec_{base64.b64encode(KEY).decode()}")


async def send(base: Path, url: str | Secret, data: Any = None, **settings: Any) -> tuple[Outcome, Context]:
    made = context(base, data)
    made.clock = FastClock()
    return await go_on(made, url, **settings), made


async def go_on(made: Context, url: str | Secret, **settings: Any) -> Outcome:
    runner = Http(url=url, **{"allow_private": LOOPBACK, "timeout": 200.0, **settings})
    runner.check(JOB_NAMES)
    with anyio.fail_after(20):
        return await runner.run(made)


def poll(**settings: Any) -> Poll:
    return Poll(**{"every": 0.5, **settings})


# Signatures


def test_the_signature_is_that_of_the_specification() -> None:
    signer = Signer(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "sign")
    at = datetime.fromtimestamp(1614265330, UTC)
    assert signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}') == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


async def test_a_signed_request_can_be_verified_and_another_attempt_is_the_same_message(tmp_path: Path) -> None:
    async with serving(saying(answer())) as server:
        _, made = await send(tmp_path, server.url(), {"n": 1}, json="{{ data }}", sign=SECRET)
        made.attempt = 2
        await go_on(made, server.url(), json="{{ data }}", sign=SECRET)
    for request in server.requests:
        headers = request.headers
        assert headers["webhook-id"] == made.run_id
        content = f"{made.run_id}.{headers['webhook-timestamp']}.".encode() + request.body
        mac = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{mac}"
        assert abs(datetime.now(UTC).timestamp() - int(headers["webhook-timestamp"])) < 60


async def test_a_request_without_a_body_is_signed_too_and_the_secret_shows_nowhere(tmp_path: Path) -> None:
    plain = Secret("a plain text of more than 24 bytes")
    echo = f"you said {plain.reveal()}"
    async with serving(saying(answer("200 OK", echo))) as server:
        outcome, made = await send(tmp_path, server.url(), method="GET", sign=plain)
    assert server.requests[0].headers["webhook-signature"].startswith("v1,")
    assert plain.reveal() not in made.logged() + str(outcome)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"sign": Secret("whsec_short")}, "sign"),
        ({"sign": Secret("whsec_%%%%")}, "sign"),
        ({"sign": Secret("too short")}, "sign"),
        ({"sign": SECRET, "headers": {"Webhook-Id": "1"}}, "headers.Webhook-Id"),
        ({"poll": poll(url="{{ body.url }}/more")}, "poll.url"),
        ({"poll": poll(url="https://{{ body.host }}/")}, "poll.url"),
        ({"poll": poll(url="http://127.0.0.1/{{ body.id }}")}, "poll.url"),
        ({"poll": poll(url="https://example.com/{{ nope }}")}, "poll.url"),
        ({"poll": poll(done="nope")}, "poll.done"),
        ({"poll": poll(success="status ==")}, "poll.success"),
    ],
)
def test_what_can_not_be_is_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as refused:
        Http(url="https://example.com/", **settings).check(JOB_NAMES)
    assert refused.value.field == field


# Long jobs


async def test_a_long_job_is_followed_to_its_end_at_the_location_that_its_answer_names(tmp_path: Path) -> None:
    begun = answer("202 Accepted", "", "Location: /jobs/7?x=a%2Fb")
    waits, done = answer("202 Accepted"), json_answer('{"rows": 12}')
    async with serving(saying(begun, waits, waits, done)) as server:
        outcome, made = await send(tmp_path, server.url("/export"), bearer=Secret("a-token-of-mine"), poll=poll())
    assert [(one.method, one.target) for one in server.requests] == [("POST", "/export")] + [
        ("GET", "/jobs/7?x=a%2Fb")
    ] * 3
    assert server.requests[1].headers["authorization"] == "Bearer a-token-of-mine"
    assert "idempotency-key" not in server.requests[1].headers
    assert outcome.state is RunState.SUCCEEDED
    assert outcome.outputs is not None
    assert outcome.outputs["body"] == {"rows": 12}
    # What stays the same is told once.
    assert made.logged().count("< 202 Accepted") == 2
    assert made.noted == {"url": server.url("/jobs/7?x=a%2Fb")}


async def test_expressions_say_where_the_status_is_when_it_is_over_and_whether_it_is_good(tmp_path: Path) -> None:
    settings = poll(url="{{ body.status_url }}", done="body.state != 'busy'", success="body.state == 'good'")
    for state, expected in (("good", "succeeded"), ("bad", "success_false")):
        begun = json_answer('{"status_url": "/s/1"}')
        answers = [json_answer('{"state": "busy"}'), json_answer(json.dumps({"state": state}))]
        async with serving(saying(begun, *answers)) as server:
            outcome, _ = await send(tmp_path, server.url("/go"), poll=settings)
        assert outcome.code == expected, outcome
        assert [one.target for one in server.requests] == ["/go", "/s/1", "/s/1"]


@pytest.mark.parametrize(("redirects", "code"), [(0, "http_status"), (1, "succeeded")])
async def test_a_status_that_leads_on_to_the_result_is_followed_as_far_as_the_job_says(
    tmp_path: Path, redirects: int, code: str
) -> None:
    begun, over = answer("202 Accepted", "", "Location: /jobs/7"), answer("303 See Other", "", "Location: /rows/7")
    async with serving(saying(begun, over, json_answer('{"rows": 12}'))) as server:
        outcome, _ = await send(tmp_path, server.url("/export"), redirects=redirects, poll=poll())
    assert outcome.code == code
    assert [one.target for one in server.requests] == ["/export", "/jobs/7", "/rows/7"][: 2 + redirects]


async def test_data_of_the_answer_fills_the_path_of_a_status_url_that_is_written_out(tmp_path: Path) -> None:
    async with serving(saying(json_answer('{"id": "a/b"}'), answer())) as server:
        settings = poll(url=server.url("/jobs/{{ body.id }}"))
        outcome, _ = await send(tmp_path, server.url("/go"), poll=settings)
    assert outcome.code == "succeeded", outcome
    assert server.requests[1].target == "/jobs/a%2Fb"


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/x", "https://evil.example/", "//evil.example/x", "file:///x"])
async def test_an_answer_does_not_choose_another_target(tmp_path: Path, location: str) -> None:
    async with serving(saying(answer("202 Accepted", "", f"Location: {location}"))) as server:
        outcome, _ = await send(tmp_path, server.url("/go"), poll=poll())
    assert outcome.code == "poll_refused", outcome
    assert len(server.requests) == 1


async def test_an_answer_without_a_status_url_fails_the_attempt(tmp_path: Path) -> None:
    async with serving(saying(answer("202 Accepted"))) as server:
        outcome, _ = await send(tmp_path, server.url("/go"), poll=poll())
    assert (outcome.code, len(server.requests)) == ("poll_refused", 1)


async def test_a_server_that_can_not_answer_now_is_asked_again(tmp_path: Path) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        number = len(server.requests)
        if number == 1:
            writer.write(answer("202 Accepted", "", "Location: /s"))
        elif number == 2:
            writer.close()
        elif number == 3:
            writer.write(answer("503 Service Unavailable", "", "Retry-After: 1"))
        elif number == 4:
            writer.write(answer("429 Too Many Requests"))
        else:
            writer.write(answer("200 OK", "done"))

    async with serving(act) as server:
        outcome, made = await send(tmp_path, server.url("/go"), poll=poll())
    assert (outcome.code, len(server.requests)) == ("succeeded", 5)
    assert "503 Service Unavailable" in made.logged()


async def test_a_status_that_is_gone_fails_the_attempt(tmp_path: Path) -> None:
    async with serving(saying(answer("202 Accepted", "", "Location: /s"), answer("404 Not Found"))) as server:
        outcome, _ = await send(tmp_path, server.url("/go"), poll=poll(done="body.state == 'x'"))
    assert (outcome.state, outcome.code) == (RunState.FAILED, "http_status")


async def test_what_can_not_be_told_of_a_status_fails_the_attempt(tmp_path: Path) -> None:
    async with serving(saying(answer("202 Accepted", "", "Location: /s"), json_answer("{}"))) as server:
        outcome, _ = await send(tmp_path, server.url("/go"), poll=poll(done="body.state == 'x'"))
    assert (outcome.state, outcome.code) == (RunState.FAILED, "poll_error")


async def test_an_attempt_that_is_made_again_goes_on_asking_and_begins_nothing(tmp_path: Path) -> None:
    async with serving(saying(answer("200 OK", "done"))) as server:
        made = context(tmp_path)
        made.clock = FastClock()
        made.noted = {"url": server.url("/s/7")}
        outcome = await go_on(made, server.url("/go"), poll=poll())
    assert [(one.method, one.target) for one in server.requests] == [("GET", "/s/7")]
    assert outcome.state is RunState.SUCCEEDED
    assert "goes on" in made.logged()


async def test_a_status_url_that_repeats_a_secret_is_not_noted(tmp_path: Path) -> None:
    async with serving(saying(answer("202 Accepted", "", "Location: /hush-hush-hush/s"), answer())) as server:
        outcome, made = await send(tmp_path, Secret(server.url("/hush-hush-hush/go")), poll=poll())
    assert outcome.state is RunState.SUCCEEDED
    assert made.noted is None
    assert "hush-hush" not in made.logged() + str(outcome)
