"""What the log says of accepted events, where somebody wants to see each of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from engine.events import Accepted
from engine.intake.draft import Admitted

log = logging.getLogger("engine.intake")


def tell_accepted(events: Sequence[Admitted], answers: Sequence[Accepted]) -> None:
    """Tell of events that are durable, one by one."""
    for admitted, answer in zip(events, answers, strict=True):
        event = admitted[0]
        came = "came before" if answer.duplicate else "is accepted"
        log.debug(
            "An event %s from %s %s; runs: %d", event.type, event.source, came, len(answer.runs),
            extra={"action": "event_accepted", "event": answer.event, "key": event.key},
        )  # fmt: skip
