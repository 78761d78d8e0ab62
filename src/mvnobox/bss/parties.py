"""TMF632: customers."""

from __future__ import annotations

import uuid
from typing import Any

from mvnobox.bss.context import Context, TmfError

BASE = "/tmf-api/partyManagement/v4/individual"


def _document(row: Any) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "href": f"{BASE}/{row['id']}",
        "@type": "Individual",
        "givenName": row["given_name"],
        "familyName": row["family_name"],
        "contactMedium": [{"mediumType": "email", "characteristic": {"emailAddress": row["email"]}}]
        if row["email"]
        else [],
        "languageAbility": [{"languageCode": row["locale"], "isFavouriteLanguage": True}],
        "status": "validated" if row["verified_at"] else "initialized",
    }


async def read(context: Context, identity: uuid.UUID) -> dict[str, Any]:
    """One customer. Raises TmfError."""
    row = await context.pool.fetchrow("SELECT * FROM individual WHERE id = $1", identity)
    if row is None:
        raise TmfError(404, "there is no such customer")
    return _document(row)


async def listing(context: Context, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """A page of customers, newest first, and how many there are."""
    total = await context.pool.fetchval("SELECT count(*) FROM individual")
    rows = await context.pool.fetch(
        "SELECT * FROM individual ORDER BY created_at DESC OFFSET $1 LIMIT $2", offset, limit
    )
    return [_document(row) for row in rows], int(total)
