"""Cases on tokens and the audit log."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from engine.audits import FIRST, Audit, AuditFilter, AuditOutcome, linked
from engine.clock import to_microseconds
from engine.errors import Conflict
from engine.ids import new_id
from engine.store.changes import Accept
from engine.testing.store_contract.material import NOON, a_run, accept, an_entry, an_event, at, make, start
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise
from engine.tokens import Former, Role, Token, TokenUse, digest_of

_KEPT = (
    "Store: A token that an `Accept` keeps is stored in the place of that with its id; where another one has its name "
    "the change is a conflict."
)
_USED = "Store: Its last use is noted where it is there."
_WITH_ITS_CHANGE = (
    "Store: A row of the audit log is there if, and only if, the change that it came with was made."
)  # fmt: skip
_CHAINED = (
    "Store: Rows have the numbers from 1 on, in the order of the changes, and each the hash of `engine.audits.linked`; "
    "none is changed or removed."
)
_NOTES = (
    "Store.apply: `notes` are rows of the audit log, by the place of the change that each goes with: it is added in "
    "the same transaction, unless that change could not be made."
)
_PAGE = "Store.audit: Return at most `limit` rows of the audit log, the newest first; those before the number `before`."


def a_token(name: str = "baker", **fields: Any) -> Token:
    """Make a token."""
    given = {
        "id": new_id(), "name": name, "role": Role.OPERATOR, "digest": digest_of(name.encode()), "prefix": "te_baker",
        "created_at": NOON, "tags": ("bread",), "created_by": "admin token",
    }  # fmt: skip
    return Token(**{**given, **fields})


def an_audit(action: str = "POST /oven", **fields: Any) -> Audit:
    """Make a row of the audit log."""
    return Audit(
        **{"at": to_microseconds(NOON), "action": action, "outcome": AuditOutcome.DONE, "who": "baker", **fields}
    )


def keeps(*tokens: Token, **fields: Any) -> Accept:
    """Keep tokens."""
    return Accept(entries=(), keep_tokens=tokens, **fields)


class AccessCases(Place):
    """Who may ask for what, and who did."""

    @promise(_KEPT, "Store.tokens: Return all tokens, by name.")
    async def test_tokens_are_kept_changed_and_dropped(self) -> None:
        former = Former(digest=b"\x01" * 32, prefix="te_older", until=at(60))
        baker, guest = a_token(former=former, expires_at=at(3600), rotated_at=at(5)), a_token("guest", tags=())
        async with self.opened() as store:
            await make(store, keeps(guest, baker))
        async with self.opened() as store:
            assert await store.tokens() == [baker, guest]
            changed = replace(baker, digest=digest_of(b"new"), former=None)
            await make(store, keeps(changed))
            assert await store.tokens() == [changed, guest]
            refused = (await store.apply([keeps(a_token("guest"))]))[0]
            assert isinstance(refused, Conflict)
            assert await store.tokens() == [changed, guest]
            again = a_token()
            await make(store, Accept(entries=(), drop_tokens=(baker.id,)), keeps(again))
            assert await store.tokens() == [again, guest]

    @promise(_USED)
    async def test_the_last_use_of_a_token_is_noted_and_stays(self) -> None:
        token = a_token()
        use = TokenUse(token=token.id, at=at(7), address="::1")
        async with self.opened() as store:
            await make(store, keeps(token), Accept(entries=(), token_uses=(use, replace(use, token=new_id()))))
            assert await store.tokens() == [replace(token, used_at=at(7), used_from="::1")]
            await make(store, keeps(replace(token, prefix="te_other")))
            assert await store.tokens() == [replace(token, prefix="te_other", used_at=at(7), used_from="::1")]

    @promise(_WITH_ITS_CHANGE, _NOTES)
    async def test_a_row_of_the_audit_log_is_there_with_its_change_alone(self) -> None:
        event = an_event()
        run = a_run(event)
        async with self.opened() as store:
            made = accept(an_entry(event, run))
            results = await store.apply([made, start(run), start(run)], {
                0: an_audit("made"), 1: an_audit("started"), 2: an_audit("started twice")
            })  # fmt: skip
            assert isinstance(results[2], Conflict)
            assert [row.audit.action for row in await store.audit(AuditFilter(), limit=9)] == ["started", "made"]
            await make(store, keeps(a_token()))
            assert len(await store.audit(AuditFilter(), limit=9)) == 2

    @promise(_CHAINED, "Store.audit_chain: Follow the chain of the audit log.", "Store.audit_chain: Reads all of it.")
    async def test_the_rows_of_the_audit_log_are_a_chain(self) -> None:
        empty = Accept(entries=())
        audits = [an_audit(f"POST /{n}", after={"n": n, "é\x1b\r\n": None}) for n in range(5)]
        async with self.opened() as store:
            assert ((await store.audit_chain()).rows, (await store.audit_chain()).head) == (0, FIRST)
            await store.apply([empty, empty, empty], {0: audits[0], 2: audits[1]})
            await store.apply([empty], {0: audits[2]})
        async with self.opened() as store:
            await store.apply([empty, empty], {0: audits[3], 1: audits[4]})
            rows = list(reversed(await store.audit(AuditFilter(), limit=9)))
            chain = await store.audit_chain()
        assert [(row.seq, row.audit) for row in rows] == list(enumerate(audits, start=1))
        before = FIRST
        for row in rows:
            before = linked(before, row.seq, row.text)
            assert row.hash == before
        assert (chain.rows, chain.head, chain.wrong) == (5, before, None)

    @promise(_PAGE)
    async def test_the_audit_log_is_read_page_by_page_as_far_as_is_asked(self) -> None:
        audits = [
            an_audit(f"POST /{n % 2}", at=to_microseconds(at(n)), who="baker" if n % 3 else "", target=f"t{n}",
                     outcome=AuditOutcome.REFUSED if n == 4 else AuditOutcome.DONE)
            for n in range(6)
        ]  # fmt: skip
        async with self.opened() as store:
            await store.apply([Accept(entries=())] * 6, dict(enumerate(audits)))
            for which, found in (
                (AuditFilter(), [6, 5, 4, 3, 2, 1]),
                (AuditFilter(who="baker"), [6, 5, 3, 2]),
                (AuditFilter(action="POST /1"), [6, 4, 2]),
                (AuditFilter(target="t3"), [4]),
                (AuditFilter(outcome=AuditOutcome.REFUSED), [5]),
                (AuditFilter(start=at(2), end=at(4)), [4, 3]),
                (AuditFilter(who="baker", start=at(2) + timedelta(microseconds=1)), [6, 5]),
            ):
                assert [row.seq for row in await store.audit(which, limit=9)] == found
            assert [row.seq for row in await store.audit(AuditFilter(), limit=2, before=5)] == [4, 3]
