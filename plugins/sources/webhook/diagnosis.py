"""What was wrong with a request that proved nothing: said to the hook's owner, long after it was refused.

A signature that is wrong tells nothing by itself. So the usual mistakes are tried one by one: where one of them makes
it right, that was it. Else a body that the sender gave a digest of, or a sender who was let in before, tells which of
the two that are left is the likelier one: another secret, or a body that was altered on its way. No sentence holds a
secret, a right signature, or what was sent in its place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable

from engine.plugin import Explanation, Request
from plugins.sources.webhook.likenesses import (
    Offer,
    bodies_like,
    decoded,
    digests_in,
    from_base64,
    from_percent,
    keys_like,
    offers_in,
)
from plugins.sources.webhook.proofs import BasicProof, EitherProof, Proof, SignatureProof, TokenProof, skew
from plugins.sources.webhook.schemes import Claim, Scheme, seconds_of
from plugins.sources.webhook.texts import to_bytes

CLOCK_SKEW = "clock_skew"
WRONG_SECRET = "wrong_secret"  # noqa: S105 - the name of a cause
ALTERED_BODY = "altered_body"
WRONG_HEADER = "wrong_header"
WRONG_ENCODING = "wrong_encoding"
WRONG_NETWORK = "wrong_network"
UNKNOWN = "unknown"

ALGORITHMS = ("sha256", "sha1", "sha512", "sha384", "md5")
MOST_HEADERS = 64

_SIGNERS = frozenset(
    "x-hub-signature x-hub-signature-256 x-signature x-signature-256 x-webhook-signature webhook-signature "
    "svix-signature stripe-signature x-slack-signature x-twilio-signature x-shopify-hmac-sha256 x-gitlab-token "
    "x-webhook-token x-gitea-signature x-hook-signature signature authorization x-api-key x-auth-token".split()
)
"""Headers in which senders prove who they are."""


def explain_network(remote: str, networks: tuple[str, ...]) -> Explanation:
    """Say that a request came from elsewhere."""
    return Explanation(
        cause=WRONG_NETWORK,
        text=f"it came from {remote}, which is in none of {', '.join(networks)}; where a proxy stands between, name it "
        "in [http] trusted_proxies",
    )  # fmt: skip


def explain(proof: Proof | None, request: Request, now_s: float, flaw: str, *, known: bool, whole: bool) -> Explanation:
    """Say what was wrong.

    `now_s` is when it came, `flaw` what was said of it then. `known` tells whether requests from the same address were
    let in before, `whole` whether its body was kept.
    """
    if isinstance(proof, EitherProof):
        found = [explain(one, request, now_s, flaw, known=known, whole=whole) for one in proof.proofs]
        # Who sent one of the two proofs meant that one.
        return next((one for one in found if one.cause != WRONG_HEADER), found[0])
    if isinstance(proof, TokenProof):
        return _of_token(proof, request)
    if isinstance(proof, BasicProof):
        return _of_basic(proof, request)
    if isinstance(proof, SignatureProof):
        return _OfSignature(proof.scheme, request, now_s, whole=whole).explanation(flaw, known=known)
    return Explanation(cause=UNKNOWN, text=flaw, certain=False)


class _OfSignature:
    """Looks for the mistake of one request that should have been signed."""

    def __init__(self, scheme: Scheme, request: Request, now_s: float, *, whole: bool) -> None:
        self._scheme = scheme
        self._request = request
        self._now_s = now_s
        self._whole = whole
        self._claim: Claim = scheme.claim(request)
        self._header_name = self._claim.header or scheme.header
        self._offers = offers_in(request.headers.get(self._header_name, ""))

    def explanation(self, flaw: str, *, known: bool) -> Explanation:
        if not self._whole:
            if self._claim.fault is not None:
                return Explanation(cause=WRONG_HEADER, text=self._claim.fault)
            text = f"{flaw}; its body was too large to be kept, so that no more can be said"
            return Explanation(cause=UNKNOWN, text=text, certain=False)
        searches = (
            self._time, self._header, self._encoding, self._form, self._parts, self._secret, self._body, self._digest,
        )  # fmt: skip
        for search in searches:
            if (found := search()) is not None:
                return found
        return self._likeliest(known=known)

    def _time(self) -> Explanation | None:
        """Where the signature is right, its time is not."""
        scheme, claim = self._scheme, self._claim
        written = [Offer(one, "") for text in claim.signatures for one in decoded(text, scheme.encoding)]
        if scheme.tolerance_s is None or not _meet(written, self._digests(self._request.body)):
            return None
        said = None if claim.timestamp is None else skew(claim.timestamp, self._now_s, scheme.tolerance_s)
        if said is None:
            return None
        if seconds_of(claim.timestamp or "") is None:
            return Explanation(cause=WRONG_ENCODING, text=f"the signature is right, but {said}")
        return Explanation(
            cause=CLOCK_SKEW,
            text=f"the signature is right, but {said}: a clock is wrong, or it was held up, or somebody repeats it",
        )

    def _header(self) -> Explanation | None:
        """The header is missing: another has the signature, or looks as if it had."""
        headers, wanted = self._request.headers, self._header_name
        if wanted in headers:
            return None
        right = self._digests(self._request.body)
        for name, value in list(headers.items())[:MOST_HEADERS]:
            if _meet(offers_in(value), right):
                return Explanation(
                    cause=WRONG_HEADER, text=f"the right signature is in {name}, and {wanted} should have it"
                )
        there = sorted({name for name in headers if name.lower() in _SIGNERS})
        text = f"it has no header {wanted}, where its signature should be"
        if there:
            text += f"; it has {', '.join(there)}, which another kind of `verify` goes by"
        else:
            text += ": the sender has no secret, or something on the way takes the header out"
        return Explanation(cause=WRONG_HEADER, text=text)

    def _encoding(self) -> Explanation | None:
        """The digest is right, and written in another way or made with another algorithm."""
        scheme = self._scheme
        for algorithm in ALGORITHMS:
            right = self._digests(self._request.body, algorithm=algorithm)
            for offer in self._offers:
                if not _meet([offer], right):
                    continue
                if algorithm != scheme.algorithm:
                    said = f"made with {algorithm}, and {scheme.algorithm} is expected"
                elif offer.encoding != scheme.encoding:
                    said = f"written in {offer.encoding}, and {scheme.encoding} is expected"
                else:
                    prefix = f" after {scheme.prefix!r}" if scheme.prefix else ""
                    said = f"not written as it should be: bare{prefix}, without quotes or spaces"
                return Explanation(cause=WRONG_ENCODING, text=f"the signature is right, but {said}")
        return None

    def _form(self) -> Explanation | None:
        """Nothing in the header is as long as a signature."""
        size = hashlib.new(self._scheme.algorithm).digest_size
        if any(len(offer.digest) == size for offer in self._offers):
            return None
        length = 2 * size if self._scheme.encoding == "hex" else len(base64.b64encode(bytes(size)))
        return Explanation(
            cause=WRONG_ENCODING,
            text=f"its header {self._header_name} holds no signature: one of {self._scheme.algorithm}, in "
            f"{self._scheme.encoding}, has {length} characters",
        )  # fmt: skip

    def _parts(self) -> Explanation | None:
        """Of the body something else was signed than should have been."""
        claim, body = self._claim, self._request.body
        if claim.before or claim.after:
            if _meet(self._offers, self._digests(body, before=b"", after=b"")):
                text = "the signature is of the body alone, and should be of the id or time of sending as well"
                return Explanation(cause=WRONG_ENCODING, text=text)
            if claim.fault is not None:
                return Explanation(cause=WRONG_HEADER, text=claim.fault)
        return None

    def _secret(self) -> Explanation | None:
        for key, said in keys_like(self._scheme.texts):
            if _meet(self._offers, self._digests(self._request.body, keys=(key,))):
                return Explanation(cause=WRONG_SECRET, text=f"the sender's secret is that of the configuration {said}")
        return None

    def _body(self) -> Explanation | None:
        for body, said in bodies_like(self._request):
            if _meet(self._offers, self._digests(body)):
                text = f"the signature is of the body {said}: something on its way alters it, such as a proxy"
                return Explanation(cause=ALTERED_BODY, text=text)
        return None

    def _digest(self) -> Explanation | None:
        """The sender told a digest of the body that it has not."""
        for name, algorithm, encoded in digests_in(self._request):
            try:
                right = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                continue
            if hashlib.new(algorithm, self._request.body, usedforsecurity=False).digest() != right:
                text = f"its body is not the one that {name} is of: something on its way alters it, such as a proxy"
                return Explanation(cause=ALTERED_BODY, text=text)
        return None

    def _likeliest(self, *, known: bool) -> Explanation:
        late = ""
        if self._scheme.tolerance_s is not None and self._claim.timestamp is not None:
            said = skew(self._claim.timestamp, self._now_s, self._scheme.tolerance_s)
            late = "" if said is None else f"; besides, {said}"
        if known:
            return Explanation(
                cause=ALTERED_BODY, certain=False,
                text="most likely its body was altered: requests from the same address were let in before, so that the "
                f"sender has the secret{late}",
            )  # fmt: skip
        many = len(self._scheme.keys)
        whose = "the one configured" if many == 1 else f"any of the {many} configured"
        return Explanation(
            cause=WRONG_SECRET, certain=False,
            text=f"most likely the sender has another secret than {whose}: nothing from that address was let in since "
            f"the engine started, and none of the usual alterations of a body explains it{late}",
        )  # fmt: skip

    def _digests(
        self, body: bytes, *, algorithm: str | None = None, keys: tuple[bytes, ...] | None = None,
        before: bytes | None = None, after: bytes | None = None,
    ) -> list[bytes]:  # fmt: skip
        """Return the digests that each key gives for a body, with what is signed around it, as configured or else."""
        claim, scheme = self._claim, self._scheme
        signed = (claim.before if before is None else before) + body + (claim.after if after is None else after)
        chosen = algorithm or scheme.algorithm
        return [hmac.digest(key, signed, chosen) for key in (scheme.keys if keys is None else keys)]


def _of_token(proof: TokenProof, request: Request) -> Explanation:
    offered = proof.offered(request)
    where = proof.header or "X-Webhook-Token, X-Gitlab-Token or Authorization: Bearer"
    if offered is None:
        for name, value in list(request.headers.items())[:MOST_HEADERS]:
            if any(_equal(text, value.rpartition(" ")[2].strip()) for text in proof.texts):
                return Explanation(cause=WRONG_HEADER, text=f"the right token is in {name}, and should be in {where}")
        return Explanation(cause=WRONG_HEADER, text=f"it has no token in {where}")
    return _of_text(proof.texts, offered, "token")


def _of_basic(proof: BasicProof, request: Request) -> Explanation:
    offered = proof.offered(request)
    if offered is None:
        scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
        has = "a bearer token" if scheme == "bearer" else "no user and password"
        return Explanation(cause=WRONG_HEADER, text=f"it has {has} in Authorization, and should have Basic")
    user, colon, password = offered.decode("utf-8", "replace").partition(":")
    if not colon:
        return Explanation(cause=WRONG_ENCODING, text="what follows Basic is no base64 of user:password")
    if user != proof.user:
        return Explanation(cause=WRONG_SECRET, text="its user is another than the one configured")
    return _of_text(proof.texts, password, "password")


def _of_text(texts: tuple[str, ...], offered: str, what: str) -> Explanation:
    alike: tuple[tuple[Callable[[str], str], str], ...] = (
        (lambda text: text.strip().strip("\"'"), "in quotes, or with spaces around it"),
        (lambda text: text.strip().removeprefix("Bearer").strip(), "with a word before it"),
        (from_base64, "in base64"),
        (from_percent, "percent-encoded"),
    )
    for read, said in alike:
        if any(_equal(text, read(offered)) for text in texts):
            return Explanation(cause=WRONG_ENCODING, text=f"its {what} is the right one, {said}")
    if any(_equal(text.casefold(), offered.strip().casefold()) for text in texts):
        return Explanation(cause=WRONG_SECRET, text=f"its {what} is the right one but for capital letters")
    return Explanation(cause=WRONG_SECRET, text=f"its {what} is another than the one configured")


def _meet(offers: list[Offer], right: list[bytes]) -> bool:
    """Tell whether one of what was offered is one of the right digests."""
    return any(hmac.compare_digest(offer.digest, digest) for offer in offers for digest in right)


def _equal(one: str, other: str) -> bool:
    return bool(one) and hmac.compare_digest(to_bytes(one), to_bytes(other))
