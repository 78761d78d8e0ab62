"""TMF632: customers."""

from __future__ import annotations

import uuid
from typing import Any

from mvnobox.bss import listing
from mvnobox.bss.context import Context, TmfError

BASE = "/tmf-api/partyManagement/v4/individual"
ATTRIBUTES = {
    "id": "i.id",
    "givenName": "i.given_name",
    "familyName": "i.family_name",
    "status": "CASE WHEN i.verified_at IS NULL THEN 'initialized' ELSE 'validated' END",
}


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


async def page(context: Context, wanted: listing.Wish) -> tuple[list[dict[str, Any]], int]:
    """A page of customers, newest first, and how many there are."""
    select, order = "SELECT i.* FROM individual i", "created_at DESC, id"
    return await listing.rows(context, wanted, select, ATTRIBUTES, order, _document)
