"""SIM inventory: identities out of the brand's ranges, keys that are encrypted at rest, activation codes."""

from __future__ import annotations

import io
import json
import secrets
import uuid
from dataclasses import dataclass
from typing import Any

import segno
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mvnobox.bss.context import Context, Exhausted, TmfError
from mvnobox.spec import BrandSpec

INDUSTRY = "89"
# Ranges, as counters and errors name them.
NUMBERS = "numbers"
IDENTITIES = "subscriber identities"


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


async def next_of(connection: Any, name: str, first: int, last: int, count: int = 1) -> int:
    """The first of `count` new numbers of a range, without races or gaps; rolled back with its transaction.

    Raises Exhausted.
    """
    # A range that was moved upwards goes on at its new beginning.
    value: int = await connection.fetchval(
        """INSERT INTO counter AS c VALUES ($1, $2::bigint + $3 - 1)
           ON CONFLICT (name) DO UPDATE SET value = greatest(c.value, $2::bigint - 1) + $3 RETURNING value""",
        name,
        first,
        count,
    )
    if value > last:
        raise Exhausted(name)
    return value - count + 1


async def take_number(context: Context, connection: Any, product: uuid.UUID) -> str:
    """A telephone number (E.164 without +) for a product: a new one, else one that has rested. Raises Exhausted."""
    numbers = context.brand.number_range
    try:
        async with connection.transaction():
            number = str(await next_of(connection, NUMBERS, int(numbers.first), int(numbers.last)))
            await connection.execute("INSERT INTO number (msisdn, product) VALUES ($1, $2)", number, product)
            return number
    except Exhausted:
        rested: str | None = await connection.fetchval(
            """UPDATE number SET product = $1, released_at = NULL WHERE msisdn = (
                   SELECT msisdn FROM number WHERE released_at <= now() - make_interval(days => $2)
                   AND length(msisdn) = length($3::text) AND msisdn BETWEEN $3 AND $4::text
                   -- Until the OCS knows that its last line has ended, the number is not free there.
                   AND NOT EXISTS (SELECT FROM product p JOIN outbox o ON o.product = p.id
                                   WHERE p.msisdn = number.msisdn AND o.done_at IS NULL)
                   ORDER BY released_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING msisdn""",
            product,
            context.number_rest_days,
            numbers.first.lstrip("+"),
            numbers.last.lstrip("+"),
        )
        if rested is None:
            raise
        return rested


@dataclass(frozen=True)
class Keys:
    """A SIM's secrets before it has an identity."""

    plain: dict[str, str]
    sealed: bytes
    matching_id: str

    @staticmethod
    def make(context: Context) -> Keys:
        """Fresh keys: Ki and OPc of 128 bits (TS 33.102, TS 35.206), sealed for the directory alone."""
        plain = {"ki": secrets.token_hex(16), "opc": secrets.token_hex(16)}
        document = {"k": plain["ki"], "opc": plain["opc"], "amf": "8000"}
        return Keys(plain, context.sealed_box.encrypt(json.dumps(document).encode()), secrets.token_hex(8).upper())


def identity_of(brand: BrandSpec, msin: int) -> tuple[str, str]:
    """(ICCID, IMSI) of a subscriber number."""
    imsi = f"{brand.plmn.mcc}{brand.plmn.mnc}{msin:0{len(brand.msin_range.first)}d}"
    return iccid_of(brand.pack.calling_code, brand.plmn.mnc, msin), imsi


async def make_sim(context: Context, connection: Any, product: uuid.UUID) -> dict[str, Any]:
    """A SIM with fresh keys for a product: {iccid, imsi, sealed}. Raises Exhausted."""
    msins = context.brand.msin_range
    msin = await next_of(connection, IDENTITIES, int(msins.first), int(msins.last))
    iccid, imsi = identity_of(context.brand, msin)
    keys = Keys.make(context)
    await connection.execute(
        """INSERT INTO sim (iccid, imsi, keys, sealed, matching_id, product, state)
           VALUES ($1, $2, $3, $4, $5, $6, 'assigned')""",
        iccid,
        imsi,
        encrypt_keys(context.sim_key, iccid, keys.plain),
        keys.sealed,
        keys.matching_id,
        product,
    )
    return {"iccid": iccid, "imsi": imsi, "sealed": keys.sealed}


async def give_back(connection: Any, product: uuid.UUID) -> None:
    """Take a line back out of the directory, the SIM inventory and the numbers in use; its product has ended."""
    row = await connection.fetchrow("SELECT iccid, msisdn FROM product WHERE id = $1", product)
    for sim in await connection.fetch("SELECT imsi FROM sim WHERE product = $1 AND state = 'assigned'", product):
        await connection.execute("SELECT directory.remove_subscriber($1)", sim["imsi"])
    await connection.execute("UPDATE sim SET state = 'retired' WHERE product = $1", product)
    await connection.execute(
        "UPDATE number SET product = NULL, released_at = now() WHERE msisdn = $1 AND product = $2",
        row["msisdn"],
        product,
    )
    await connection.execute("UPDATE product SET status = 'terminated', ended_at = now() WHERE id = $1", product)


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
    code = activation_code(context.brand, row["matching_id"])
    return {"iccid": iccid, "activationCode": code, "smdpAddress": context.brand.esim.smdp_address}


def activation_code(brand: BrandSpec, matching_id: str) -> str:
    """The activation code of a profile (GSMA SGP.22 clause 4.1)."""
    return f"LPA:1${brand.esim.smdp_address}${matching_id}"


def qr_svg(text: str) -> bytes:
    """A QR code as SVG."""
    buffer = io.BytesIO()
    segno.make(text, error="m").save(buffer, kind="svg", scale=5, border=4)
    return buffer.getvalue()
