"""Who is told of the ends of runs, as the configuration has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from engine.deliveries import RECOVERED, Receiver
from engine.errors import PluginError
from engine.jobs import Callback, Notify
from engine.plugin import Channel, Duration, RunState, Secret
from engine.registry import Registry

NotifyName = Annotated[str, Meta(extra={"kind": "notify"})]
"""The name of a `[notify.NAME]`; unknown ones are refused."""

End = Literal["succeeded", "failed", "timed_out", "cancelled", "skipped", "expired"]
Told = End | Literal["recovered"]

NOTIFY_CHANNEL, CALLBACK_CHANNEL = "apprise", "callback"
"""The plugins by which it is told, by their names."""


class NotifyTable(Struct, frozen=True, kw_only=True):
    """Somebody who is told of runs, on a channel of theirs."""

    url: Annotated[
        Secret, Meta(description="A URL of Apprise, such as `mailtos://…` or `slack://…`; several with blanks between.")
    ]
    timeout: Annotated[Duration, Meta(gt=0, description="Bound of one try.")] = 60.0
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it is told anything.")] = True

    def receiver(self, name: str, registry: Registry, defined_in: str) -> Receiver:
        """Return it as the engine knows it; raise BadSetting, and PluginError where there is no such channel."""
        channel = _channel(registry, NOTIFY_CHANNEL)(url=self.url, timeout=self.timeout)
        return Receiver(
            name=name, channel=channel, description=self.description, tags=self.tags, enabled=self.enabled,
            defined_in=defined_in,
        )  # fmt: skip


class JobNotifyTable(Struct, frozen=True, kw_only=True):
    """Who is told of a job's runs, and of which of them."""

    to: Annotated[tuple[NotifyName, ...], Meta(min_length=1, description="Names of `[notify.NAME]`.")]
    on: Annotated[
        tuple[Told, ...],
        Meta(
            min_length=1,
            description="The ends that are told; `failed` is also said of `timed_out`. `recovered`: a run succeeded "
            "after others had failed.",
        ),
    ] = ("failed", "recovered")


class CallbackTable(Struct, frozen=True, kw_only=True):
    """A URL that is told of the ends of a job's runs, signed by Standard Webhooks."""

    url: Annotated[
        Secret | str,
        Meta(description="Where to, http or https; of one that stands elsewhere only scheme, host and port are shown."),
    ]
    secret: Annotated[
        Secret,
        Meta(description="What it is signed with: `whsec_…` is the key in base64, any other text the key itself."),
    ]
    on: Annotated[
        tuple[End, ...],
        Meta(min_length=1, description="The ends that are told; `failed` is also said of `timed_out`. Default: all."),
    ] = ("succeeded", "failed", "timed_out", "cancelled", "skipped", "expired")
    timeout: Annotated[Duration, Meta(gt=0, description="Bound of one try.")] = 20.0
    allow_private: Annotated[
        bool | tuple[str, ...],
        Meta(
            description="`true` opens loopback and private networks, a list the networks in it. By default the public "
            "internet alone."
        ),
    ] = False

    def callback(self, registry: Registry) -> Callback:
        """Return it as the jobs know it; raise BadSetting, and PluginError where there is no such channel."""
        channel = _channel(registry, CALLBACK_CHANNEL)(
            url=self.url, secret=self.secret, timeout=self.timeout, allow_private=self.allow_private
        )
        return Callback(channel=channel, on=_told(self.on))


def notify_of(table: JobNotifyTable | tuple[str, ...] | None) -> Notify | None:
    """Return who is told of a job's runs, as the jobs know it."""
    if not table:
        return None
    if isinstance(table, tuple):
        return Notify(to=tuple(dict.fromkeys(table)), on=_told(("failed", RECOVERED)))
    return Notify(to=tuple(dict.fromkeys(table.to)), on=_told(table.on))


def _told(ends: Iterable[str]) -> frozenset[str]:
    """Return what is told: a run that was timed out has failed, too."""
    told = frozenset(ends)
    return told | {RunState.TIMED_OUT.value} if RunState.FAILED.value in told else told


def _channel(registry: Registry, name: str) -> type[Any]:
    channel: type[Channel] | None = registry.channels.get(name)
    if channel is None:
        broken = registry.broken(name, "channel")
        why = "is not installed" if broken is None else f"can't be used: {broken.error}"
        raise PluginError(f"the channel {name} {why}")
    return channel
