"""What a store's author tells the suite: how stores are made at one place, and how to do them harm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from engine.store.base import Store


class Place(ABC):
    """One place where stores keep what they keep; each case begins with an empty one."""

    @abstractmethod
    def make_store(self) -> Store:
        """Return a store on this place, not yet open; each call returns another one on the same place."""

    @abstractmethod
    def contents(self) -> object:
        """Return what is kept at the place, byte for byte, in a form that `==` compares."""

    @abstractmethod
    def copies(self) -> int:
        """Return how many copies of the store lie beside it."""

    @abstractmethod
    def damage(self) -> None:
        """Overwrite part of what a closed store keeps, where it matters."""

    @abstractmethod
    def age(self, *, migration_fails: bool = False) -> None:
        """Let what a closed store keeps be older than what the stores made from now on want.

        With `migration_fails` the migration breaks off when it has done part of its work.
        """

    @abstractmethod
    def outdate(self) -> None:
        """Let what a closed store keeps be newer than what the stores made from now on know."""

    @abstractmethod
    def lose_power(self) -> None:
        """Let the stores made from now on find what the machine finds whose power failed this instant."""

    @abstractmethod
    def refuse_writes(self, store: Store) -> AbstractAsyncContextManager[None]:
        """Let an open store find, while the context lasts, that it can't be written: another holds it."""

    @abstractmethod
    def looked_into(self) -> AbstractAsyncContextManager[Store]:
        """Open a store that may be damaged as far as `check` needs it, as `doctor` does."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        """Open a store on the place for as long as the context lasts."""
        store = self.make_store()
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """An open store."""
        async with self.opened() as store:
            yield store
