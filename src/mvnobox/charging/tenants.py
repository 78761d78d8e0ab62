"""Who may ask: a brand's bearer token is its name and the HMAC-SHA256 of it under the platform's key."""

from __future__ import annotations

import hmac

from mvnobox.charging.problems import Problem


class Tenants:
    """Checks bearer tokens `<brand>.<hex HMAC-SHA256(key, brand)>`; nothing is stored a brand."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def brand(self, authorization: str) -> str:
        """The brand of an `Authorization` field. Raises Problem 401."""
        scheme, _, token = authorization.partition(" ")
        brand, _, given = token.strip().rpartition(".")
        expected = hmac.digest(self._key, brand.encode("utf-8", "surrogateescape"), "sha256").hex()
        right = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
        if scheme.lower() != "bearer" or not brand or not right:
            raise Problem(
                401, None, "a bearer token of a brand is needed", headers={"www-authenticate": 'Bearer realm="ocs"'}
            )
        return brand
