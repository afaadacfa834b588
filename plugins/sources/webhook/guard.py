"""Who is let in: by where a request comes from, and by what proves who sends it."""

from __future__ import annotations

from functools import partial
from typing import Literal

from msgspec.structs import replace

from engine.plugin import Clock, Explanation, Networks, Refusal, Request
from plugins.sources.webhook.diagnosis import explain, explain_network
from plugins.sources.webhook.proofs import BasicProof, Proof, proof_of
from plugins.sources.webhook.verify import Verify

MOST_KEPT_BYTES = 64 * 1024
"""Of a larger body nothing is kept for those who ask what was wrong with it."""

MOST_SENDERS = 256


class Guard:
    """Lets requests in, or refuses them: with one and the same answer, whatever was wrong."""

    __slots__ = ("_allow", "_challenge", "_clock", "_known", "_proof")

    def __init__(self, proof: Proof | None, allow: Networks | None, clock: Clock) -> None:
        self._proof = proof
        self._allow = allow
        self._clock = clock
        self._known: set[str] = set()
        """Where requests came from that were let in, for those who ask about one that was not."""
        basic = isinstance(proof, BasicProof)
        self._challenge = {"WWW-Authenticate": 'Basic realm="webhooks", charset="UTF-8"' if basic else "Bearer"}

    def check(self, request: Request) -> None:
        """Raise Refusal for a request that is not let in. Odd input is 401 as well."""
        now_s = self._clock.now().timestamp()
        flaw = None if self._proof is None else self._proof.flaw(request, now_s)
        if self._allow is not None and request.remote not in self._allow:
            raise self._refusal(
                f"it comes from {request.remote}, which is in none of the networks of `allow`",
                partial(explain_network, request.remote, self._allow.texts),
            )
        if flaw is not None:
            raise self._refusal(flaw, self._explainer(request, now_s, flaw))
        if request.remote not in self._known:
            if len(self._known) >= MOST_SENDERS:
                self._known.clear()
            self._known.add(request.remote)

    def _refusal(self, reason: str, explainer: partial[Explanation]) -> Refusal:
        if self._proof is None:
            return Refusal(403, "Forbidden", "The request is not let in.", reason=reason, explain=explainer)
        # One text for all: which part was missing or wrong is the owner's business alone.
        detail = "The request does not prove that it comes from the sender."
        return Refusal(401, "Unauthorized", detail, self._challenge, reason=reason, explain=explainer)

    def _explainer(self, request: Request, now_s: float, flaw: str) -> partial[Explanation]:
        whole = len(request.body) <= MOST_KEPT_BYTES
        kept = request if whole else replace(request, body=b"")
        known = request.remote in self._known
        return partial(explain, self._proof, kept, now_s, flaw, known=known, whole=whole)


def guard_of(verify: Literal["none"] | Verify, allow: tuple[str, ...], clock: Clock) -> Guard | None:
    """Return what lets requests in; None where everybody is."""
    proof = proof_of(verify) if isinstance(verify, Verify) else None
    networks = Networks(allow) if allow else None
    return None if proof is None and networks is None else Guard(proof, networks, clock)


def headers_of(verify: Literal["none"] | Verify) -> frozenset[str]:
    """Return the headers, in small letters, that prove who sends, beside those that always do."""
    if not isinstance(verify, Verify):
        return frozenset()
    chosen = (verify.hmac.header if verify.hmac is not None else None, verify.header)
    return frozenset(name.lower() for name in chosen if name is not None)
