"""Senders as the world has them: each keeps what was not acknowledged, and sends it again by the same key."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any

from msgspec import Struct

from tests.crash.folders import ClaimedFolder, TriggerFiles, WatchedFolder
from tests.crash.outside import Outside, always
from tests.crash.polled import Feed, Orders, Stock
from tests.crash.site import Site, ask

RESEND_S = 0.05
REPEATS = 0.1
"""How often a sender sends again what was acknowledged, as senders do whose connection broke too early."""

FINISH_S = 60.0


class Offer(Struct, frozen=True, kw_only=True):
    """What is sent: `headers` hold the key where the body does not; `keyed` tells whether there is one."""

    path: str
    body: Any
    headers: dict[str, str] = {}
    keyed: bool = True


class Receipt(Struct, frozen=True, kw_only=True):
    """An acknowledgement: the ids that were answered."""

    event: str
    runs: tuple[str, ...]
    duplicate: bool


class Feeder(threading.Thread):
    """Sends offers in their order, `per_second` of them, `most` at most.

    `receipts` are the answers by the number of the offer; `sent` how many offers there were; `unsure` how
    many without a key had no answer and may or may not be stored; `problems` what must not happen.
    """

    def __init__(
        self,
        name: str,
        site: Site,
        make: Callable[[int], Offer],
        *,
        per_second: float,
        most: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.receipts: dict[int, Receipt] = {}
        self.sent = 0
        self.unsure = 0
        self.duplicates = 0
        self.problems: list[str] = []
        self._site = site
        self._make = make
        self._pause_s = 1.0 / per_second
        self._most = most
        self._random = random.Random(f"{seed}/{name}")
        self.may_go = always()
        self._enough = threading.Event()
        self._give_up = threading.Event()
        self._connection: HTTPConnection | None = None

    def run(self) -> None:
        while not self._enough.is_set() and self.sent != self._most:
            self.may_go.wait()
            self.sent += 1
            self._deliver(self.sent)
            if self.receipts and self._random.random() < REPEATS:
                number = self._random.choice(list(self.receipts))
                if self._make(number).keyed:
                    self._deliver(number)
            self._enough.wait(self._pause_s * self._random.uniform(0.2, 1.8))
        self._close()

    def enough(self) -> None:
        """Make no new offers, but for those up to `most`."""
        if self._most is None:
            self._enough.set()

    def finish(self) -> None:
        """Return when all offers are made and acknowledged."""
        self.join(FINISH_S)
        if self.is_alive():
            self._give_up.set()
            self.problems.append(f"{self.name}: offer {self.sent} was not taken within {FINISH_S:g} s")

    def _deliver(self, number: int) -> None:
        offer = self._make(number)
        while not self._give_up.is_set():
            answer = self._try(offer)
            if answer is None:
                if not offer.keyed:
                    self.unsure += 1
                    return
                time.sleep(RESEND_S)
                continue
            self._note(number, answer)
            return

    def _try(self, offer: Offer) -> Receipt | None:
        """Send once; None where nothing, or a refusal for now, came back."""
        try:
            if self._connection is None:
                self._connection = HTTPConnection("127.0.0.1", self._site.port, timeout=10.0)
            answer = ask(self._connection, "POST", offer.path, offer.body, offer.headers)
        except (OSError, HTTPException, json.JSONDecodeError):
            self._close()
            return None
        if answer.status == 202:
            body = answer.body
            return Receipt(event=body["event"], runs=tuple(body["runs"]), duplicate=body["duplicate"])
        # The same key may be on its way by another connection just now.
        if answer.status != 503 and not (answer.status == 409 and offer.keyed):
            self.problems.append(f"{self.name}: {offer.path} answered {answer.status}: {answer.body}")
        return None

    def _note(self, number: int, receipt: Receipt) -> None:
        self.duplicates += receipt.duplicate
        before = self.receipts.setdefault(number, receipt)
        if before is receipt:
            return
        if not receipt.duplicate:
            self.problems.append(f"{self.name}: offer {number} was stored again as event {receipt.event}")
        if (before.event, before.runs) != (receipt.event, receipt.runs):
            self.problems.append(f"{self.name}: offer {number} got other ids: {before}, then {receipt}")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Load:
    """All feeders of a site; `rate` multiplies how much they do, `most` bounds the offers and changes of each."""

    def __init__(self, site: Site, *, rate: float = 1.0, most: int | None = None, seed: int = 0) -> None:
        def feeder(name: str, make: Callable[[int], Offer], per_second: float) -> Feeder:
            return Feeder(name, site, make, per_second=per_second * rate, most=most, seed=seed)

        def outside(kind: type[Outside], per_second: float) -> Outside:
            # Changes follow each other: a few are needed until there was one of each kind.
            return kind(site, per_second=per_second * rate, most=most and 2 * most, seed=seed)

        self._may_go = always()
        self.http: Sequence[Feeder] = (
            feeder("hook", _hook, 8.0),
            feeder("unkeyed", _unkeyed, 3.0),
            # Two senders of the same deliveries, at nearly the same times.
            feeder("twin", _twin, 2.0),
            feeder("twin", _twin, 2.0),
            feeder("gather", _gather, 8.0),
            feeder("keyed", _to("keyed"), 3.0),
            feeder("heavy", _to("heavy"), 1.5),
            feeder("light", _to("light"), 3.0),
            feeder("kept", _to("kept"), 0.7),
            feeder("api", _api, 4.0),
            feeder("fire", _fire, 1.0),
        )
        self.outside: Sequence[Outside] = (
            outside(TriggerFiles, 4.0),
            outside(WatchedFolder, 5.0),
            outside(ClaimedFolder, 1.5),
            outside(Orders, 2.0),
            outside(Stock, 2.0),
            outside(Feed, 1.0),
        )

    def _every(self) -> Sequence[Feeder | Outside]:
        return (*self.http, *self.outside)

    def start(self) -> None:
        """Begin to send, and to change what is outside."""
        for feeder in self._every():
            feeder.may_go = self._may_go
            feeder.start()

    def rest(self, *, for_now: bool) -> None:
        """Send and change nothing for now, as more waits than a busy machine gets done; or go on."""
        (self._may_go.clear if for_now else self._may_go.set)()

    def finish(self) -> None:
        """Send and change nothing new, and return when all is acknowledged and told."""
        for one in self._every():
            one.enough()
        self.rest(for_now=False)
        for one in self._every():
            one.finish()

    def is_done(self) -> bool:
        """Tell whether all that there was to send is acknowledged, and all that there was to tell told."""
        return not any(feeder.is_alive() for feeder in self.http) and all(one.is_done() for one in self.outside)

    def close(self) -> None:
        """Let go of what the engine was given to look at."""
        for one in self.outside:
            one.close()


def _hook(number: int) -> Offer:
    return Offer(
        path="/hooks/hook",
        body={"feeder": "hook", "n": number},
        headers={"Idempotency-Key": f"hook-{number}"},
    )


def _to(name: str) -> Callable[[int], Offer]:
    """Return what makes offers for the hook of a name."""

    def make(number: int) -> Offer:
        key = f"{name}-{number}"
        return Offer(path=f"/hooks/{name}", body={"feeder": name, "n": number}, headers={"Idempotency-Key": key})

    return make


def _twin(number: int) -> Offer:
    return Offer(
        path="/hooks/hook",
        body={"feeder": "twin", "n": number},
        headers={"Idempotency-Key": f"twin-{number}"},
    )


def _unkeyed(number: int) -> Offer:
    return Offer(path="/hooks/hook", body={"feeder": "unkeyed", "n": number}, keyed=False)


def _gather(number: int) -> Offer:
    body = {"feeder": "gather", "n": number, "group": number % 3}
    return Offer(path="/hooks/gather", body=body, headers={"Idempotency-Key": f"gather-{number}"})


def _api(number: int) -> Offer:
    data = {"feeder": "api", "n": number}
    return Offer(path="/api/v1/events", body={"type": "crash.test", "id": f"api-{number}", "data": data})


def _fire(number: int) -> Offer:
    return Offer(
        path="/api/v1/triggers/by-hand/fire",
        body={"data": {"feeder": "fire", "n": number}},
        headers={"Idempotency-Key": f"fire-{number}"},
    )
