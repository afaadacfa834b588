"""The contract of a store as a suite: one case or more for each sentence of `engine.store.base`.

For a store of your own, subclass `StoreContract` in a test module and fill in what `Place` asks for:

    class TestMyStore(StoreContract):
        def make_store(self) -> Store: ...

The cases are async and run with anyio's pytest plugin. This module needs pytest; `engine.testing` does not.
"""

from __future__ import annotations

import pytest

from engine.testing.store_contract.accepting import AcceptingCases
from engine.testing.store_contract.access import AccessCases
from engine.testing.store_contract.backfilling import BackfillCases
from engine.testing.store_contract.delivering import DeliveringCases
from engine.testing.store_contract.following import FollowingCases
from engine.testing.store_contract.hindsight import HindsightCases
from engine.testing.store_contract.joining import JoiningCases
from engine.testing.store_contract.marking import MarkingCases
from engine.testing.store_contract.moving import MovingCases
from engine.testing.store_contract.opening import OpeningCases
from engine.testing.store_contract.owning import OwningCases
from engine.testing.store_contract.promises import promise, sentences_kept_by, sentences_of_contract
from engine.testing.store_contract.purging import PurgingCases
from engine.testing.store_contract.queueing import QueueingCases
from engine.testing.store_contract.reading import ReadingCases
from engine.testing.store_contract.receiving import ReceivingCases

__all__ = ["StoreContract", "promise", "sentences_kept_by", "sentences_of_contract"]


class StoreContract(
    OpeningCases,
    AcceptingCases,
    MovingCases,
    FollowingCases,
    ReadingCases,
    QueueingCases,
    BackfillCases,
    MarkingCases,
    HindsightCases,
    OwningCases,
    DeliveringCases,
    PurgingCases,
    ReceivingCases,
    JoiningCases,
    AccessCases,
):
    """All cases; a new sentence in the contract without a case fails too."""

    pytestmark = pytest.mark.anyio

    def test_each_sentence_of_the_contract_has_a_case_and_each_case_a_sentence(self) -> None:
        sentences, kept = set(sentences_of_contract()), sentences_kept_by(type(self))
        assert not sentences - kept, "sentences without a case"  # noqa: S101 - a suite is assertions
        assert not kept - sentences, "cases for sentences that the contract does not hold"  # noqa: S101
