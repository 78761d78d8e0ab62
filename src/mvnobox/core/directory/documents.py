"""Open5GS's subscriber documents in BSON out of rows, with the types that it expects: int32 throughout, `sqn` int64.

A document is put together from parts that are already encoded: what the brand provisioned (the same for all
subscribers of a plan, hence remembered), who the subscriber is, the opened keys, and what the core wrote itself.
Types and layout: https://bsonspec.org/spec.html; fields: Open5GS, lib/dbi.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
import struct
from typing import Any

import bson
import nacl.exceptions
from nacl.public import PrivateKey, SealedBox

# The one field of `security` besides `sqn` that a core may write (older HSSs do).
RAND = "security.rand"
_INT32 = struct.Struct("<i")
_SQN = struct.Struct("<q")
_KEY = re.compile(r"[0-9A-Fa-f]{32}")
_AMF = re.compile(r"[0-9A-Fa-f]{4}")


class Sealed(Exception):
    """The keys of a subscriber that cannot be opened."""


def text(name: bytes, value: str) -> bytes:
    """A string element."""
    data = value.encode()
    return b"\x02" + name + b"\0" + _INT32.pack(len(data) + 1) + data + b"\0"


def embedded(kind: int, name: bytes, elements: bytes) -> bytes:
    """An element that is a document (3) or an array (4) of encoded elements."""
    return bytes((kind,)) + name + b"\0" + _INT32.pack(len(elements) + 5) + elements + b"\0"


def _number(literal: str) -> int | float:
    """A number of JSON with a point or an exponent: 1.0 is the integer that PostgreSQL took it for."""
    value = float(literal)
    return int(value) if value.is_integer() else value


def whole(elements: bytes) -> bytes:
    """A document of encoded elements."""
    return _INT32.pack(len(elements) + 5) + elements + b"\0"


@functools.lru_cache(maxsize=2048)
def _provisioned(document: str) -> bytes:
    return bytes(bson.encode({"schema_version": 1, **json.loads(document, parse_float=_number)})[4:-1])


@functools.lru_cache(maxsize=2048)
def barred(document: str) -> bool:
    """Suspended or terminated: `subscriber_status` 1, operator determined barring (TS 29.272 clause 7.3.29)."""
    return bool(json.loads(document).get("subscriber_status"))


class Assembler:
    """Documents out of rows; holds the key that opens what is sealed."""

    def __init__(self, private_key: bytes) -> None:
        key = PrivateKey(private_key)
        self._box, self.public_key = SealedBox(key), bytes(key.public_key)

    def opened(self, sealed: bytes) -> tuple[str, str, str]:
        """(Ki, OPc, AMF) in hexadecimal. Raises Sealed."""
        try:
            keys = json.loads(self._box.decrypt(sealed))
            k, opc, amf = keys["k"], keys["opc"], keys.get("amf", "8000")
            right = _KEY.fullmatch(k) and _KEY.fullmatch(opc) and _AMF.fullmatch(amf)
        except (nacl.exceptions.CryptoError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Sealed(f"a subscriber's keys cannot be opened: {type(error).__name__}") from None
        if not right:
            raise Sealed("a subscriber's keys are not hexadecimal digits of the right length")
        return k, opc, amf

    def _security(self, sealed: bytes, sqn: int, rand: bytes) -> bytes:
        k, opc, amf = self.opened(sealed)
        return (
            text(b"k", k) + b"\x0aop\0" + text(b"opc", opc) + text(b"amf", amf) + rand + b"\x12sqn\0" + _SQN.pack(sqn)
        )

    def encode(self, row: Any, *, keys: bool = True) -> bytes:
        """The document of a row (`imsi, msisdn, sealed, sqn, document, written`) in BSON. Raises Sealed.

        Keys of a barred subscriber are given to nobody. Open5GS's 5G core reads no barring from the document: without
        keys it makes no authentication vector, and the UE is refused.
        """
        imsi: str = row["imsi"]
        numbers = b"".join([text(str(i).encode(), number) for i, number in enumerate(row["msisdn"])])
        rand, others = b"", b""
        if row["written"] != "{}":
            rand, others = _written(row["written"])
        return whole(
            text(b"_id", imsi)
            + text(b"imsi", imsi)
            + embedded(4, b"msisdn", numbers)
            + (
                b""
                if not keys or barred(row["document"])
                else embedded(3, b"security", self._security(row["sealed"], row["sqn"], rand))
            )
            + _provisioned(row["document"])
            + others
        )


def worthless() -> str:
    """A key that opens nothing, in hexadecimal: nobody has it."""
    return secrets.token_hex(16)


def leaving(imsi: str, row: Any, written: str) -> bytes:
    """The document of a subscriber whom the AMF is letting go of, with keys that open nothing.

    While it deregisters a UE, Open5GS's UDR looks for the keys (authentication-status, TS 29.505 clause 5.2.2), and its
    UDM drops the subscriber where there are none, before the SMF has said goodbye: the session would stay for ever.
    """
    nothing = [text(name, worthless()) for name in (b"k", b"opc")]
    security = nothing[0] + b"\x0aop\0" + nothing[1] + text(b"amf", "8000") + b"\x12sqn\0" + _SQN.pack(0)
    return whole(
        text(b"_id", imsi)
        + text(b"imsi", imsi)
        + embedded(3, b"security", security)
        + (_provisioned(row["document"]) if row is not None else b"")
        + _written(written)[1]
    )


def _written(stored: str) -> tuple[bytes, bytes]:
    """(security.rand, the other elements) that the core wrote."""
    rand, others = b"", b""
    for name, value in json.loads(stored).items():
        data = bytes.fromhex(value)
        if name == RAND:
            rand = data[:1] + b"rand\0" + data[1:]
        else:
            others += data[:1] + name.encode() + b"\0" + data[1:]
    return rand, others


def keep(value: Any) -> str:
    """How a value that the core writes is stored: the hexadecimal of BSON's type octet and value."""
    data = bytes(bson.encode({"": value})[4:-1])
    return (data[:1] + data[2:]).hex()


def cursor(
    space: str, documents: list[bytes], identity: int = 0, batch: bytes = b"firstBatch", more: bytes = b""
) -> bytes:
    """The answer of find, getMore and the like, of encoded documents; `more` are encoded elements of the cursor."""
    if len(documents) == 1:
        array = b"\x030\0" + documents[0]
    else:
        array = b"".join([b"\x03" + str(i).encode() + b"\0" + one for i, one in enumerate(documents)])
    inner = embedded(4, batch, array) + b"\x12id\0" + _SQN.pack(identity) + text(b"ns", space) + more
    return whole(embedded(3, b"cursor", inner) + b"\x01ok\0\0\0\0\0\0\0\xf0\x3f")
