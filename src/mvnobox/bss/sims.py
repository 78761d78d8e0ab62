"""SIM inventory: identities out of the brand's ranges, keys that are encrypted at rest, activation codes."""

from __future__ import annotations

import io
import json
import secrets
import uuid
from typing import Any

import segno
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mvnobox.bss.context import Context, TmfError

# A number that was given back rests before somebody else gets it.
NUMBER_REST = "interval '30 days'"
INDUSTRY = "89"


def luhn_digit(digits: str) -> str:
    """The check digit of ISO/IEC 7812-1 annex B."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def iccid_of(calling_code: int, mnc: str, number: int) -> str:
    """An ICCID of 19 digits and its check digit (ITU-T E.118): industry, country, issuer, account."""
    issuer = f"{INDUSTRY}{calling_code:02d}{mnc}"
    body = f"{issuer}{number:0{19 - len(issuer) - 1}d}"
    return body + luhn_digit(body)


def encrypt_keys(key: bytes, iccid: str, keys: dict[str, str]) -> bytes:
    """Keys at rest."""
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(key).encrypt(nonce, json.dumps(keys).encode(), iccid.encode())


def decrypt_keys(key: bytes, iccid: str, data: bytes) -> dict[str, str]:
    """Keys in use."""
    plain: dict[str, str] = json.loads(AESGCM(key).decrypt(data[:12], data[12:], iccid.encode()))
    return plain


async def next_of(connection: Any, name: str, first: int, last: int) -> int:
    """The next number of a range, without races or gaps; rolled back with its transaction. Raises TmfError."""
    value: int = await connection.fetchval(
        """INSERT INTO counter VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = counter.value + 1
           RETURNING value""",
        name,
        first,
    )
    if value > last:
        raise TmfError(409, f"the brand's range of {name} is used up", "extend the range in the brand's file")
    return value


async def take_number(context: Context, connection: Any, product: uuid.UUID) -> str:
    """A telephone number (E.164 without +) for a product: one that has rested, else the next new one."""
    rested: str | None = await connection.fetchval(
        f"""UPDATE number SET product = $1, released_at = NULL WHERE msisdn = (
                SELECT msisdn FROM number WHERE released_at < now() - {NUMBER_REST}
                ORDER BY released_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING msisdn""",
        product,
    )
    if rested is not None:
        return rested
    numbers = context.brand.number_range
    number = str(await next_of(connection, "numbers", int(numbers.first), int(numbers.last)))
    await connection.execute("INSERT INTO number (msisdn, product) VALUES ($1, $2)", number, product)
    return number


async def make_sim(context: Context, connection: Any, product: uuid.UUID) -> dict[str, Any]:
    """A SIM with fresh keys for a product: {iccid, imsi, sealed}."""
    brand = context.brand
    first = int(brand.msin_range.first)
    msin = await next_of(connection, "subscriber identities", first, int(brand.msin_range.last))
    imsi = f"{brand.plmn.mcc}{brand.plmn.mnc}{msin:0{len(brand.msin_range.first)}d}"
    iccid = iccid_of(brand.pack.calling_code, brand.plmn.mnc, msin)
    keys = {"ki": secrets.token_hex(16), "opc": secrets.token_hex(16)}
    sealed = context.sealed_box.encrypt(json.dumps({"k": keys["ki"], "opc": keys["opc"], "amf": "8000"}).encode())
    await connection.execute(
        """INSERT INTO sim (iccid, imsi, keys, sealed, matching_id, product, state)
           VALUES ($1, $2, $3, $4, $5, $6, 'assigned')""",
        iccid,
        imsi,
        encrypt_keys(context.sim_key, iccid, keys),
        sealed,
        secrets.token_hex(8).upper(),
        product,
    )
    return {"iccid": iccid, "imsi": imsi, "sealed": sealed}


async def _row(context: Context, iccid: str) -> Any:
    row = await context.pool.fetchrow("SELECT * FROM sim WHERE iccid = $1", iccid)
    if row is None:
        raise TmfError(404, "there is no such SIM")
    return row


async def sim(context: Context, iccid: str) -> dict[str, Any]:
    """What may be seen of a SIM."""
    row = await _row(context, iccid)
    return {"iccid": iccid, "imsi": row["imsi"], "state": row["state"], "createdAt": row["created_at"]}


async def profile(context: Context, iccid: str) -> dict[str, Any]:
    """The whole profile with its keys, for the SM-DP+ and the lab; every reading is noted."""
    row = await _row(context, iccid)
    await context.pool.execute("INSERT INTO sim_audit (iccid, what) VALUES ($1, 'profile read')", iccid)
    keys = decrypt_keys(context.sim_key, iccid, row["keys"])
    return {"iccid": iccid, "imsi": row["imsi"], **keys}


async def activation(context: Context, iccid: str) -> dict[str, Any]:
    """The activation code (GSMA SGP.22 clause 4.1)."""
    row = await _row(context, iccid)
    code = f"LPA:1${context.brand.esim.smdp_address}${row['matching_id']}"
    return {"iccid": iccid, "activationCode": code, "smdpAddress": context.brand.esim.smdp_address}


def qr_svg(text: str) -> bytes:
    """A QR code as SVG."""
    buffer = io.BytesIO()
    segno.make(text, error="m").save(buffer, kind="svg", scale=5, border=4)
    return buffer.getvalue()
