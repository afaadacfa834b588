"""Webhooks: events that others send by HTTP.

`source` is the plugin: its settings and its route. `verify` holds what the settings say of proofs, `schemes` how each
sender signs, and `proofs` tries it on a request; `guard` lets that in or refuses it, and `diagnosis` says to the owner
what was wrong, by trying `likenesses`. `vendors` knows what each sender calls its events. `receiver` does the rest:
reads, emits, answers.
"""

from __future__ import annotations

from plugins.sources.webhook.respond import Respond
from plugins.sources.webhook.source import Webhook
from plugins.sources.webhook.verify import Basic, Hmac, Verify

__all__ = ["Basic", "Hmac", "Respond", "Verify", "Webhook"]
