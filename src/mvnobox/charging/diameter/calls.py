"""What a credit-control request becomes: one call of the ledger, under a reference that its Session-Id gives."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mvnobox.charging.diameter.credit import CreditRequest, Info
from mvnobox.charging.diameter.notify import notify_uri
from mvnobox.charging.diameter.ports import Book
from mvnobox.charging.diameter.settings import DiameterPeer
from mvnobox.charging.ledger import Call, Engine, Operation, Reply, Units, create_key, make_uuid
from mvnobox.charging.rating.scene import Scenery, told_of
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError
from mvnobox.diameter.codes import Avp, Result

Answer = tuple[int, list[bytes]]


class Sender(NamedTuple):
    """Who a request comes from, as far as it matters for charging."""

    host: str
    brand: str | None
    final_units: bool
    refuses_whole: bool = False
    refusal_delay: float = 0
    whole_quota: bool = False

    @classmethod
    def of(cls, host: str, peer: DiameterPeer) -> Sender:
        """A peer by its settings."""
        return cls(host, peer.brand, peer.final_units, peer.refuses_whole, peer.refusal_delay_seconds, peer.whole_quota)


def session_ref(session_id: bytes) -> uuid.UUID:
    """The charging session of a Session-Id: a UUID version 8 (RFC 9562 section 5.8) that anyone can compute.

    RFC 6733 section 8.8 makes the Session-Id of two counted numbers; they lead, so that new sessions of a peer are
    neighbours in the ledger's indexes. A hash of the whole follows.
    """
    digest = hashlib.sha256(session_id).digest()[:16]
    parts = session_id.split(b";", 3)
    if len(parts) >= 3 and parts[1].isdigit() and parts[2].isdigit() and len(parts[1]) <= 20 and len(parts[2]) <= 20:
        counted = (int(parts[1]) << 32 | int(parts[2]) & 0xFFFFFFFF) & (1 << 48) - 1
        digest = counted.to_bytes(6) + digest[6:]
    return make_uuid(8, digest)


class Calls:
    """The ledger, as requests of peers call it."""

    def __init__(self, engine: Engine, book: Book) -> None:
        self._engine, self._book = engine, book

    def at_hand(self, operation: Operation, request: CreditRequest, sender: Sender) -> tuple[Scenery | None] | None:
        """What the sender's brand sells by the unit, in a tuple of one, if nothing has to be looked up for a request; None:
        it takes `charge`."""
        subscribers = request.subscribers
        if sender.brand is None or len(subscribers) > 1 or (operation == "create" and not subscribers):
            return None
        return self._book.remembered(sender.brand)

    async def charge(
        self, operation: Operation, request: CreditRequest, sender: Sender, units: list[Units], step: int = 0
    ) -> Reply:
        """One call of the ledger; outcome unknown, or an answer. Where the sender stands for no brand, the subscriber says
        which. Raises DiameterError 5004 for a Session-Id or a CC-Request-Number that stands for something else."""
        ref = session_ref(request.session_id)
        if operation == "create" and not request.subscribers:
            raise DiameterError(
                Result.MISSING_AVP, "a Subscription-Id with an IMSI or a number is missing", _NO_SUBSCRIPTION
            )
        reply = None
        for fresh in (False, True):
            brand, subscriber = sender.brand, request.subscribers[0] if request.subscribers else None
            if brand is None or len(request.subscribers) > 1:
                customer = await self._book.find(request.subscribers, fresh)
                if customer is not None and brand in (None, customer.brand):
                    brand, subscriber = customer.brand, customer.subscriber
                elif brand is None:
                    brand = await self._book.brand_of(ref) if operation != "create" else None
            if brand is None:
                return reply or Reply("unknown", None, None, 0, 0)
            scenery = await self._book.scenery(brand)
            reply = await self._engine.charge(
                make_call(operation, request, sender, units, scenery, brand, subscriber, ref, step)
            )
            if reply.outcome != "unknown":
                break
        assert reply is not None
        check(request, reply)
        return reply


def make_call(
    operation: Operation, request: CreditRequest, sender: Sender, units: list[Units], scenery: Scenery | None,
    brand: str, subscriber: str | None, ref: uuid.UUID, step: int = 0,
) -> Call:  # fmt: skip
    """The ledger's call of a request."""
    first = operation == "create"
    return Call(
        operation,
        brand,
        (request.number or 0) + step,
        units,
        notify_uri(sender.host, request.origin_host, request.origin_realm, request.session_id),
        ref,
        subscriber,
        create_key("diameter", request.session_id.hex()) if first else None,
        dt.datetime.now(dt.UTC) if first else None,
        # A Session-Id is never used twice (RFC 6733 section 8.8): the same initial request is a repeat.
        True,
        told_of(scenery, request.circumstances, [one.unit for one in units]),
    )


def check(request: CreditRequest, reply: Reply) -> None:
    """Raises DiameterError 5004 for a Session-Id or a CC-Request-Number that stands for something else."""
    if reply.outcome == "taken":
        # A Session-Id is never used twice (RFC 6733 section 8.8): no repetition would help.
        raise DiameterError(
            Result.INVALID_AVP_VALUE,
            "this Session-Id was used before, with another CC-Request-Number or long ago",
            codec.octets(Avp.SESSION_ID, request.session_id),
        )
    if reply.outcome == "mismatch":
        raise DiameterError(
            Result.INVALID_AVP_VALUE,
            "CC-Request-Number was used for another CC-Request-Type",
            codec.u32(Avp.CC_REQUEST_NUMBER, request.number or 0),
        )


_NO_SUBSCRIPTION = codec.group(
    Avp.SUBSCRIPTION_ID, [codec.u32(Avp.SUBSCRIPTION_ID_TYPE, 1), codec.utf8(Avp.SUBSCRIPTION_ID_DATA, "")]
)


def rating_group(group: int) -> bytes:
    """A Rating-Group AVP."""
    return codec.u32(Avp.RATING_GROUP, group)


_UNITS = '"multipleUnitInformation":'
# One service takes some 150 characters; what many services have in common with nobody is not worth its memory.
_REMEMBERED_LENGTH = 1000


def infos(reply: Reply) -> Mapping[int, Info]:
    """A reply's MultipleUnitInformation by rating group, not to be changed."""
    if not reply.body:
        return {}
    units = reply.body.partition(_UNITS)[2]
    return _remembered(units) if len(units) <= _REMEMBERED_LENGTH else _infos(units)


def _infos(units: str) -> Mapping[int, Info]:
    found: Iterable[dict[str, Any]] = json.loads(f"{{{_UNITS}{units}")["multipleUnitInformation"]
    return {one["ratingGroup"]: Info(one) for one in found}


_remembered = functools.lru_cache(maxsize=1024)(_infos)
