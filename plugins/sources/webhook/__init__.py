"""Webhooks: events that others send by HTTP.

`source` is the plugin: its settings and its route. `verify` holds what the settings say of proofs, and `proofs` tries
them on a request. `receiver` does the rest with it: reads, emits, answers.
"""

from __future__ import annotations

from plugins.sources.webhook.source import Webhook
from plugins.sources.webhook.verify import Hmac, Verify

__all__ = ["Hmac", "Verify", "Webhook"]
