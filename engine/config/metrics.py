"""What is told to Prometheus, and to whom."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class MetricsTable(Struct, frozen=True, kw_only=True):
    """What `GET /metrics` tells, and to whom: see docs/metrics.md."""

    public: Annotated[
        bool,
        Meta(
            description="Whether anybody who reaches the listener may read them; else a token with the role viewer is "
            "needed, on this machine too."
        ),
    ] = False
    aliases: Annotated[
        bool, Meta(description="Whether the names of the scheduler service that went before are given beside the own.")
    ] = False
    most_names: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="So many triggers, jobs and sources each have figures of their own; those of the others are "
            "added up as `(other)`, or left out where that has no sense.",
        ),
    ] = 1_000
