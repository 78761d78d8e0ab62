"""Where a session's notifications go: an address that names the peer, the client and the session."""

from __future__ import annotations

import string
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

SCHEME = "aaa"
# Unreserved (RFC 3986 section 2.3); and semicolons, which every Session-Id has and which may stand in a query (section 3.4).
_PLAIN = (string.ascii_letters + string.digits + "-._~;").encode()


class Target(NamedTuple):
    """The connected peer, the client behind it (often the same) and its session."""

    peer: str
    host: str
    realm: str
    session_id: bytes


def notify_uri(peer: str, host: str, realm: str, session_id: bytes) -> str:
    """`aaa://PEER?host=…&realm=…&session=…`"""
    told = quote(session_id, safe=";") if session_id.translate(None, _PLAIN) else session_id.decode("ascii")
    return _client(peer, host, realm) + told


@lru_cache(maxsize=256)
def _client(peer: str, host: str, realm: str) -> str:
    return f"{SCHEME}://{quote(peer)}?host={quote(host)}&realm={quote(realm)}&session="


def read_uri(uri: str) -> Target:
    """The target of such an address. Raises ValueError."""
    found = urlsplit(uri)
    query = {name: unquote_to_bytes(value) for name, _, value in (one.partition("=") for one in found.query.split("&"))}
    try:
        return Target(unquote(found.netloc), query["host"].decode(), query["realm"].decode(), query["session"])
    except KeyError as error:
        raise ValueError(f"{uri!r} does not name a {error.args[0]}") from None
