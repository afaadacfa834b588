"""Pages of other sites: what browsers send for them is no sender's request.

A form, or a script without permission, may post to any address that the browser reaches, this machine's own among them.
Browsers say so in headers that no page can change.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from engine.plugin import Headers


def is_from_another_site(headers: Headers) -> bool:
    """Tell whether a browser sent this for a page of another site (Fetch Metadata; or Origin, from older ones)."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site.lower() not in ("same-origin", "none")
    origin = headers.get("Origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("Host", "").lower()
    except ValueError:
        return True
