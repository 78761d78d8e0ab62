"""Subscribers as Open5GS's UDR reads and writes them: one MongoDB collection, found by IMSI."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pymongo
import pymongo.errors
from bson.int64 import Int64

from mvnobox.core.sim import aka
from mvnobox.core.sim.milenage import derive_opc
from mvnobox.core.sim.n4_messages import Subscription

# Units of an AMBR in the document: bit/s, kbit/s, … (Open5GS's WebUI).
_UNITS = (1, 1000, 1000**2, 1000**3, 1000**4)


class DirectoryUnavailable(Exception):
    """The directory does not answer."""


class Malformed(Exception):
    """A subscriber's document is not what Open5GS would take."""


@dataclass(frozen=True)
class Keys:
    """What authentication needs of a subscriber."""

    k: bytes
    opc: bytes
    amf: bytes
    sqn: int


@dataclass(frozen=True)
class Subscriber:
    """A document as it was read."""

    imsi: str
    document: dict[str, Any]

    @property
    def barred(self) -> bool:
        """Suspended or terminated: `subscriber_status` 1, operator determined barring (TS 29.272 clause 7.3.29)."""
        return bool(self.document.get("subscriber_status", 0))

    def keys(self) -> Keys:
        """Raises Malformed."""
        try:
            security = self.document["security"]
            k = bytes.fromhex(security["k"])
            opc = (
                bytes.fromhex(security["opc"]) if security.get("opc") else derive_opc(k, bytes.fromhex(security["op"]))
            )
            amf, sqn = bytes.fromhex(security["amf"]), int(security.get("sqn", 0))
        except (KeyError, TypeError, ValueError):
            raise Malformed("the subscriber has no usable security data") from None
        if len(k) != 16 or len(opc) != 16 or len(amf) != 2:
            raise Malformed("the subscriber's keys do not have the right length")
        return Keys(k, opc, amf, sqn)

    def subscription(self, dnn: str, sst: int, sd: str | None) -> Subscription | None:
        """What is subscribed of a DNN in a slice; None where it is not."""
        for slice_ in self._list(self.document.get("slice")):
            if slice_.get("sst") != sst or _sd(slice_.get("sd")) != _sd(sd):
                continue
            for session in self._list(slice_.get("session")):
                if session.get("name") == dnn:
                    ambr = session.get("ambr") or self.document.get("ambr") or {}
                    numbers = self.document.get("msisdn") or []
                    return Subscription(
                        imsi=self.imsi, msisdn=str(numbers[0]) if numbers else None, dnn=dnn, sst=sst, sd=_sd(sd),
                        uplink=_rate(ambr, "uplink"), downlink=_rate(ambr, "downlink"), type=_type(session.get("type")),
                    )  # fmt: skip
        return None

    @staticmethod
    def _list(value: Any) -> list[dict[str, Any]]:
        return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _sd(value: Any) -> str | None:
    """A slice differentiator to compare; ffffff means that there is none (TS 23.003 clause 28.4.2)."""
    text = str(value).lower() if value is not None else "ffffff"
    return None if text == "ffffff" else text


def _type(value: Any) -> int:
    """The PDU session's type; of what Open5GS would not know, IPv4."""
    return value if value in (2, 3) and not isinstance(value, bool) else 1


def _rate(ambr: Any, direction: str) -> int:
    try:
        return int(ambr[direction]["value"]) * _UNITS[int(ambr[direction]["unit"])]
    except (KeyError, TypeError, ValueError, IndexError):
        return 0


class Subscribers:
    """The collection. Every method raises DirectoryUnavailable."""

    def __init__(self, uri: str) -> None:
        self._collection: Any = pymongo.MongoClient(
            uri, serverSelectionTimeoutMS=3000, connectTimeoutMS=3000, socketTimeoutMS=5000, connect=False
        ).get_default_database("open5gs")["subscribers"]

    async def find(self, imsi: str) -> Subscriber | None:
        """The subscriber of an IMSI."""
        found = await self._ask(self._collection.find_one, {"imsi": imsi})
        return Subscriber(imsi, found) if found is not None else None

    async def advance(self, imsi: str) -> None:
        """Move the sequence number one step on, modulo 2^48, atomically."""
        where = {"imsi": imsi}
        await self._ask(self._collection.update_one, where, {"$inc": {"security.sqn": Int64(aka.SQN_STEP)}})
        mask = {"security.sqn": {"and": Int64(aka.SQN_MODULUS - 1)}}
        await self._ask(self._collection.update_one, where, {"$bit": mask})

    async def resynchronise(self, imsi: str, sqn: int) -> None:
        """Go on from the SIM's own sequence number."""
        await self._ask(self._collection.update_one, {"imsi": imsi}, {"$set": {"security.sqn": Int64(sqn)}})

    @staticmethod
    async def _ask(call: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(call, *arguments)
        except pymongo.errors.PyMongoError as error:
            raise DirectoryUnavailable(type(error).__name__) from None
