"""What the benches send: an order of 500 bytes of JSON, as a shop would."""

from __future__ import annotations

from typing import Any

import msgspec

SIZE_BYTES = 500


def order(number: int = 1) -> dict[str, Any]:
    """Return the data of one event."""
    return {
        "order": f"ord_{number:09d}",
        "customer": {"id": 48213, "name": "Ana Pereira", "email": "ana.pereira@example.org", "vip": False},
        "items": [
            {"sku": "LAMP-0042", "title": "Desk lamp, brass", "quantity": 1, "price": 59.9},
            {"sku": "BULB-0007", "title": "LED bulb, 470 lm", "quantity": 4, "price": 3.25},
        ],
        "currency": "EUR",
        "total": 72.9,
        "paid": True,
        "placed_at": "2026-11-20T14:03:27.118Z",
        "note": "Please leave the parcel with the neighbours on the second floor.",
    }


def order_json(number: int = 1) -> bytes:
    """Return an event's data as exactly `SIZE_BYTES` of JSON."""
    body = msgspec.json.encode(order(number))[:-1] + b',"fill":"'
    return body + b"x" * (SIZE_BYTES - len(body) - 2) + b'"}'
