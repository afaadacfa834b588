"""What may be defined: jobs and triggers, each by its kind and its name."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What may be defined."""

    JOB = "job"
    TRIGGER = "trigger"

    @property
    def table(self) -> str:
        """The table of the configuration that holds them."""
        return f"{self.value}s"


class Key(NamedTuple):
    """Of what a definition or an override is. Jobs sort before triggers, which name them."""

    kind: Kind
    name: str
