"""Tracing in the configuration: where spans go."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from engine.plugin.settings import BadSetting, Secret

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class TracingTable(Struct, frozen=True, kw_only=True):
    """Where traces go, by OpenTelemetry (`pip install 'trigger-engine[otel]'`). See docs/tracing.md."""

    endpoint: Annotated[
        str | None,
        Meta(
            description="A receiver of OTLP over HTTP, such as `http://localhost:4318/v1/traces`. Default: nothing is "
            "traced."
        ),
    ] = None
    headers: Annotated[
        dict[str, Secret | str], Meta(description="Headers for it, by name; those that stand elsewhere are secrets.")
    ] = field(default_factory=dict)
    sample: Annotated[
        float,
        Meta(ge=0, le=1, description="The part of the traces that begin here. Of others, what their senders say."),
    ] = 1.0
    service: Annotated[str, Meta(min_length=1, description="What this engine is called there.")] = "trigger-engine"

    def __post_init__(self) -> None:
        if self.endpoint is None:
            return
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadSetting("endpoint", "is no URL of http or https", "such as http://localhost:4318/v1/traces")
        if not all(map(_is_there, NEEDED)):
            raise BadSetting("endpoint", "needs OpenTelemetry, which is not installed", "install trigger-engine[otel]")

    def plain_headers(self) -> dict[str, str]:
        """Return the headers as they are sent."""
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in self.headers.items()}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
