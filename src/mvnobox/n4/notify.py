"""Nchf_ConvergedCharging_Notify (TS 32.291 clause 5.2.2.5): an address for each session that nobody else can name.

The OCS posts to whatever address a consumer gave it, another brand's CTF too: it knows no better. So the path carries a
tag that only this CTF can make, and without which a notification is of an unknown session.
"""

from __future__ import annotations

import hashlib
import hmac

_DIGITS = 32


class Addresses:
    """The paths that notifications come to. The key is derived from the CTF's secret, so that it outlives a restart."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.new(secret.encode(), b"mvno nchf-notify", hashlib.sha256).digest()

    def _tag(self, seid: int) -> str:
        return hmac.new(self._key, str(seid).encode(), hashlib.sha256).hexdigest()[:_DIGITS]

    def path(self, seid: int) -> str:
        """A session's path."""
        return f"/nchf-notify/{seid}/{self._tag(seid)}"

    def is_right(self, seid: int, tag: str) -> bool:
        """Whether a path's tag is the session's."""
        return hmac.compare_digest(self._tag(seid).encode(), tag.encode())
