"""Where requests may go, and what follows them on a redirect."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import anyio
import pytest
from yarl import URL

from engine.plugin import BadSetting, SystemClock
from plugins.outgoing.client import Answer, Call, CallFailed, open_client
from plugins.outgoing.masking import Masker
from plugins.outgoing.networks import Reach, read_reach
from tests.evil_server import Received, answer, saying, serving

LOOPBACK = read_reach(("127.0.0.1",))


async def ask(url: str, reach: Reach, *, method: str = "GET", **settings: Any) -> Answer:
    call = Call(method, URL(url), settings.pop("headers", {}), settings.pop("body", None), frozenset({"x-key"}))
    with anyio.fail_after(20):
        async with open_client(reach, SystemClock(), keep_alive=False) as client:
            return await client.send(call, timeout_s=15, max_body_bytes=1000, **settings)


class Names:
    """The system's resolver as a test wants it: names to addresses, which may be others each time."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append(host)
        answers = self.names.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (address, port) if kind == socket.AF_INET else (address, port, 0, 0))
            for kind, address in zip(kinds, found, strict=True)
        ]


def resolving(monkeypatch: pytest.MonkeyPatch, **names: list[list[str]]) -> Names:
    made = Names(**names)
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


# Addresses


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("1.1.1.1", True), ("172.15.0.1", True), ("172.32.0.1", True), ("100.128.0.1", True),
        ("2606:4700:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::8.8.8.8", True),
        ("127.0.0.1", False), ("127.255.255.254", False), ("10.0.0.1", False), ("172.31.0.1", False),
        ("192.168.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False),
        ("192.0.0.192", False), ("198.18.0.1", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("168.63.129.16", False), ("::", False), ("::1", False), ("::7f00:1", False), ("fe80::1%eth0", False),
        ("fc00::1", False), ("fd00:ec2::254", False), ("ff02::1", False), ("fec0::1", False), ("2001:db8::1", False),
        ("2001::1", False), ("2002:7f00:1::", False), ("::ffff:127.0.0.1", False), ("64:ff9b::10.0.0.1", False),
        ("64:ff9b:1::1", False), ("100::1", False), ("nonsense", False),
    ],
)  # fmt: skip
def test_what_is_not_the_public_internet_is_refused(address: str, public: bool) -> None:
    assert (Reach().refusal(address) is None) == public


def test_a_list_opens_what_stands_in_it_and_nothing_else() -> None:
    reach = read_reach(("10.1.0.0/16", "169.254.169.254", "fd00::/8"))
    opened = {"10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "169.254.169.254", "fd00:ec2::254"}
    assert all(reach.refusal(address) is None for address in opened)
    assert all(reach.refusal(address) for address in ("10.2.0.1", "127.0.0.1", "169.254.169.253", "::1"))


def test_what_opens_private_networks_leaves_the_rest_closed() -> None:
    reach = read_reach(True)
    assert all(reach.refusal(address) is None for address in ("127.0.0.1", "::1", "10.0.0.1", "fd12::1", "8.8.8.8"))
    closed = ("169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::", "224.0.0.1")
    assert all(reach.refusal(address) for address in closed)


def test_what_is_no_network_is_refused_with_its_place() -> None:
    with pytest.raises(BadSetting) as refused:
        read_reach(("10.0.0.0/8", "10.0.0.0/99"))
    assert refused.value.field == "allow_private[1]"


# Connections


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "0.0.0.0", "[::]", "169.254.169.254"]
)
async def test_an_address_written_as_the_host_is_guarded_when_the_socket_is_made(host: str) -> None:
    async with serving(saying(answer())) as server:
        with pytest.raises(CallFailed) as failed:
            await ask(server.url(host=host), Reach())
    assert failed.value.code == "address_refused", failed.value
    assert server.connections == 0


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0x7f.1"])
async def test_odd_forms_of_addresses_reach_nothing(host: str) -> None:
    async with serving(saying(answer())) as server:
        with pytest.raises(CallFailed) as failed:
            await ask(server.url(host=host), Reach())
    assert failed.value.code in ("address_refused", "http_unreachable")
    assert server.connections == 0


async def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, inner_example=[["127.0.0.1", "169.254.169.254"]])
    async with serving(saying(answer())) as server:
        with pytest.raises(CallFailed, match=r"127\.0\.0\.1 is a loopback address") as failed:
            await ask(server.url(host="inner.example"), Reach())
    assert failed.value.code == "address_refused"
    assert server.connections == 0


async def test_of_several_addresses_only_those_that_are_allowed_are_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, mixed_example=[["127.0.0.2", "::1", "127.0.0.1"]])
    async with serving(saying(answer())) as server:
        assert (await ask(server.url(host="mixed.example"), LOOPBACK)).status == 200


async def test_a_name_is_resolved_once_and_a_second_answer_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    names = resolving(monkeypatch, rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
    async with serving(saying(answer())) as server:
        assert (await ask(server.url(host="rebinding.example"), LOOPBACK)).status == 200
        assert names.asked == ["rebinding.example"]
        with pytest.raises(CallFailed) as failed:
            await ask(server.url(host="rebinding.example"), LOOPBACK)
    assert failed.value.code == "address_refused"


async def test_a_name_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch)
    with pytest.raises(CallFailed, match="its name can't be resolved: Name or service not known") as failed:
        await ask("http://nowhere.example/", Reach())
    assert failed.value.code == "http_unreachable"


async def test_the_environment_chooses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(saying(answer())) as proxy, serving(saying(answer("204 No Content"))) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        monkeypatch.setenv("http_proxy", proxy.url())
        assert (await ask(server.url(), LOOPBACK)).status == 204
    assert proxy.connections == 0


# Redirects


def redirect(to: str, status: str = "302 Found") -> bytes:
    return answer(status, "", f"Location: {to}")


async def test_redirects_are_not_followed_by_themselves() -> None:
    async with serving(saying(redirect("/elsewhere"), answer())) as server:
        found = await ask(server.url(), LOOPBACK)
    assert found.status == 302
    assert len(server.requests) == 1


async def test_a_thousand_redirects_are_not_followed() -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(redirect(f"/{len(server.requests)}"))

    async with serving(act) as server:
        with pytest.raises(CallFailed, match="redirects more than 5 times") as failed:
            await ask(server.url(), LOOPBACK, redirects=5)
    assert failed.value.code == "redirect_refused"
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.2:{port}/", "redirect_refused"),
        ("http://[::1]:{port}/", "redirect_refused"),
        ("http://[::ffff:127.0.0.2]:{port}/", "redirect_refused"),
        ("http://169.254.169.254/latest/meta-data/", "redirect_refused"),
        ("http://0x7f000001:{port}/", "redirect_refused"),
        ("http://inner.example:{port}/", "address_refused"),
        ("file:///etc/passwd", "redirect_refused"),
        ("http://", "redirect_refused"),
        ("http://[", "redirect_refused"),
    ],
)
async def test_a_redirect_leads_to_no_place_that_is_closed(
    monkeypatch: pytest.MonkeyPatch, location: str, code: str
) -> None:
    resolving(monkeypatch, inner_example=[["10.0.0.1"]])
    async with serving(saying(answer())) as inner:
        async with serving(saying(redirect(location.format(port=inner.port)))) as server:
            with pytest.raises(CallFailed) as failed:
                await ask(server.url(), read_reach(("127.0.0.1/32",)), redirects=3)
    assert failed.value.code == code, failed.value
    assert inner.connections == 0


async def test_secrets_stay_with_their_origin() -> None:
    headers = {"Authorization": "Bearer t", "Cookie": "c=1", "X-Key": "k", "X-Open": "o"}
    async with serving(saying(answer())) as other:
        async with serving(saying(redirect("/next"), redirect(other.url("/there")))) as server:
            found = await ask(server.url(), LOOPBACK, headers=headers, redirects=3)
    assert (found.status, str(found.url)) == (200, other.url("/there"))
    same, there = server.requests[1], other.requests[0]
    assert {name: same.headers[name.lower()] for name in headers} == headers
    assert there.headers["x-open"] == "o"
    assert not there.headers.keys() & {"authorization", "cookie", "x-key"}


async def test_credentials_in_a_redirect_are_not_taken_over() -> None:
    async with serving(saying(answer())) as other:
        async with serving(saying(redirect(f"http://me:pw@127.0.0.1:{other.port}/"))) as server:
            await ask(server.url(), LOOPBACK, redirects=1)
    assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        ("301 Moved", "POST", "GET", b""),
        ("302 Found", "POST", "GET", b""),
        ("303 See Other", "PUT", "GET", b""),
        ("303 See Other", "HEAD", "HEAD", b""),
        ("302 Found", "PUT", "PUT", b"x"),
        ("307 Temporary", "POST", "POST", b"x"),
        ("308 Permanent", "POST", "POST", b"x"),
    ],
)
async def test_a_redirect_keeps_or_changes_the_method_as_http_says(
    status: str, method: str, then: str, body: bytes
) -> None:
    content = None if method == "HEAD" else b"x"
    async with serving(saying(redirect("/next", status), answer())) as server:
        await ask(
            server.url(), LOOPBACK, method=method, body=content, headers={"Content-Type": "text/plain"}, redirects=1
        )
    assert [request.method for request in server.requests] == [method, then]
    assert server.requests[1].body == body
    assert ("content-type" in server.requests[1].headers) == (then == method)


async def test_a_redirect_leads_from_https_to_no_http() -> None:
    async with open_client(LOOPBACK, SystemClock(), keep_alive=False) as client:
        call = Call("GET", URL("https://example.com/"), {})
        with pytest.raises(CallFailed, match=r"from https to http://example\.com"):
            client._redirected(call, 302, "http://example.com/")
        assert client._redirected(call, 302, "/next").url == URL("https://example.com/next")


# Masking


def test_what_is_too_short_for_a_secret_masks_nothing() -> None:
    assert Masker(["", "a", "abc"]).text("a abc and more") == "a abc and more"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    assert Masker(["hunter", "hunter22"]).text("hunter22 hunter") == "*** ***"
