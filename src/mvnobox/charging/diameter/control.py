"""Credit control (RFC 8506 section 5 and 6): what a request means for the ledger, and its reply for the peer."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from mvnobox.charging.diameter.credit import (
    RESULTS,
    Amounts,
    CreditRequest,
    Service,
    cost,
    granted,
    service_answer,
    terms,
)
from mvnobox.charging.diameter.currencies import minor_units
from mvnobox.charging.diameter.notify import notify_uri
from mvnobox.charging.diameter.ports import Book, Customer
from mvnobox.charging.diameter.settings import DiameterPeer, DiameterSettings
from mvnobox.charging.ledger import Call, Engine, Operation, Reply, Units, create_key
from mvnobox.charging.schemas import LARGEST_AMOUNT, Unit
from mvnobox.charging.settings import OcsSettings
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError
from mvnobox.diameter.codes import Action, Avp, RequestType, Result

# A peer may send what it is owed for at another replica (RFC 8506 section 8.4): no replica keeps anything.
_FAILOVER = codec.u32(Avp.CC_SESSION_FAILOVER, 1)
_FIELDS = {"octets": "totalVolume", "seconds": "time", "messages": "serviceSpecificUnits"}
_OPERATIONS: dict[int | None, Operation] = {1: "create", 2: "update", 3: "release"}
_FREE = "QUOTA_MANAGEMENT_NOT_APPLICABLE"

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


class Asked(NamedTuple):
    """One rating group of a request: what the peer called it, and what the ledger is asked."""

    service: Service
    units: Units
    failed: bytes = b""
    """The AVP by which it cannot be rated (RFC 8506 section 9.2, DIAMETER_RATING_FAILED)."""


def session_ref(session_id: bytes) -> uuid.UUID:
    """The charging session of a Session-Id: a UUID version 8 (RFC 9562 section 5.8) that anyone can compute.

    RFC 6733 section 8.8 makes the Session-Id of two counted numbers; they lead, so that new sessions of a peer are
    neighbours in the ledger's indexes. A hash of the whole follows.
    """
    digest = int.from_bytes(hashlib.sha256(session_id).digest()[:16])
    parts = session_id.split(b";")
    if len(parts) >= 3 and parts[1].isdigit() and parts[2].isdigit() and len(parts[1]) <= 20 and len(parts[2]) <= 20:
        counted = (int(parts[1]) << 32 | int(parts[2]) & 0xFFFFFFFF) & (1 << 48) - 1
        digest = counted << 80 | digest & (1 << 80) - 1
    return uuid.UUID(int=digest & ~(0xF << 76) & ~(0x3 << 62) | 8 << 76 | 2 << 62)


class CreditControl:
    """Answers credit-control requests; keeps nothing between two of them."""

    def __init__(self, engine: Engine, book: Book, ocs: OcsSettings, settings: DiameterSettings) -> None:
        self._engine, self._book, self._settings = engine, book, settings
        self._groups: dict[int, Unit] = ocs.rating_groups
        self._slices = {group: ocs.quota.of(unit) for group, unit in ocs.rating_groups.items()}
        self._free = frozenset(settings.free_rating_groups)

    async def answer(self, request: CreditRequest, sender: Sender) -> Answer:
        """Result-Code and further AVPs. Raises DiameterError, and what the engine raises."""
        if request.type != RequestType.INITIAL or not sender.refusal_delay:
            return await self._answer(request, sender)
        try:
            result, more = await self._answer(request, sender)
        except Exception:
            await asyncio.sleep(sender.refusal_delay)
            raise
        if result != Result.SUCCESS:
            await asyncio.sleep(sender.refusal_delay)
        return result, more

    async def _answer(self, request: CreditRequest, sender: Sender) -> Answer:
        default = self._default_group(request.context)
        if request.type == RequestType.EVENT:
            return await self._event(request, sender, default)
        asked, free = self._asked(request, default, sender.whole_quota)
        operation = _OPERATIONS[request.type]
        reply = await self._charge(operation, request, sender, [one.units for one in asked])
        if reply.outcome == "unknown":
            if operation == "create":
                raise DiameterError(Result.USER_UNKNOWN, "no account has this subscriber")
            raise DiameterError(Result.UNKNOWN_SESSION_ID, "there is no such charging session")
        if reply.outcome == "mismatch":
            raise DiameterError(
                Result.INVALID_AVP_VALUE,
                "CC-Request-Number was used for another CC-Request-Type",
                codec.u32(Avp.CC_REQUEST_NUMBER, request.number or 0),
            )
        infos = _infos(reply)
        if operation == "create" and sender.refuses_whole and request.grouped and not free:
            codes = [infos[one.units.rating]["resultCode"] for one in asked if one.units.rating in infos]
            if codes and "SUCCESS" not in codes:
                # The peer sends no termination for what was never opened.
                await self._charge("release", request, sender, [], step=1)
                return RESULTS[codes[0]], [_FAILOVER]
        more = [_FAILOVER] if operation == "create" else []
        if request.grouped:
            for one in asked:
                if (info := infos.get(one.units.rating)) is not None:
                    more.append(service_answer(one.service, _for(sender, info), sender.final_units, one.failed))
            more += [service_answer(one, {"resultCode": _FREE}) for one in free]
            return Result.SUCCESS, more
        result = Result.CREDIT_CONTROL_NOT_APPLICABLE if free else Result.SUCCESS
        if asked and (info := infos.get(asked[0].units.rating)) is not None:
            result = RESULTS[info["resultCode"]]
            more += terms(_for(sender, info), sender.final_units)
            if asked[0].failed:
                more.append(codec.octets(Avp.FAILED_AVP, asked[0].failed))
        return result, more

    def _default_group(self, context: str) -> int:
        contexts = self._settings.service_contexts
        if contexts is None:
            return self._settings.default_rating_group
        # extensions.MNC.MCC.Release."service-context"@"domain" (TS 32.299 clause 7.1.12)
        name, _, domain = context.rpartition("@")
        found = contexts.get(f"{name.rpartition('.')[2]}@{domain}")
        if found is None:
            raise DiameterError(
                Result.AUTHORIZATION_REJECTED,
                "this Service-Context-Id is not served",
                codec.utf8(Avp.SERVICE_CONTEXT_ID, context),
            )
        return found

    def _asked(self, request: CreditRequest, default: int, whole: bool) -> tuple[list[Asked], list[Service]]:
        """What the ledger is asked a rating group, and the services that cost nothing; `whole`: whole quotas."""
        found: dict[int, Asked] = {}
        free: list[Service] = []
        for service in request.services:
            group = default if service.rating_group is None else service.rating_group
            if group in self._free:
                free.append(service)
                continue
            # Money is a matter of events: in a session, a rating group of money cannot be rated.
            unit = None if self._groups.get(group) == "minor" else self._groups.get(group)
            failed = b"" if unit else _rating_group(group)
            if unit and (failed := _misfit(service, unit)):
                # Read over, such use would be free: the service is refused, the others of the request are served.
                unit = None
            used, wanted = self._amounts(service, unit, group, whole) if unit else (0, None)
            if (before := found.get(group)) is not None:
                # One quota a rating group (TS 32.299 clause 5.3.1.2): services of a group share it.
                before.service.identifiers.extend(service.identifiers)
                used += before.units.used
                wanted = before.units.wanted if wanted is None else wanted
                service, failed = before.service, before.failed or failed
                if failed:
                    unit, used, wanted = None, 0, None
            if used > LARGEST_AMOUNT:
                raise DiameterError(Result.INVALID_AVP_VALUE, "more was used than can be", _USED_TOO_MUCH)
            found[group] = Asked(service, Units(group, unit, used, wanted), failed)
        return list(found.values()), free

    def _amounts(self, service: Service, unit: Unit, group: int, whole: bool) -> tuple[int, int | None]:
        used = sum(one.get(unit, 0) for one in service.used)
        wanted = None if service.wanted is None else service.wanted.get(unit, 0)
        if wanted is not None:
            wanted = min((not whole and wanted) or self._slices[group], self._slices[group])
        return used, wanted

    async def _charge(
        self, operation: Operation, request: CreditRequest, sender: Sender, units: list[Units], step: int = 0
    ) -> Reply:
        """One call of the ledger. Where the sender stands for no brand, the subscriber says which."""
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
            scene = None
            if scenery is not None:
                scene = scenery.told_now(request.circumstances, [one.unit for one in units])
            reply = await self._engine.charge(
                Call(
                    operation,
                    brand,
                    (request.number or 0) + step,
                    units,
                    notify_uri(sender.host, request.origin_host, request.origin_realm, request.session_id),
                    ref,
                    subscriber,
                    create_key("diameter", request.session_id.hex()) if operation == "create" else None,
                    dt.datetime.now(dt.UTC) if operation == "create" else None,
                    # A Session-Id is never used twice (RFC 6733 section 8.8): the same initial request is a repeat.
                    True,
                    scene,
                )
            )
            if reply.outcome != "unknown":
                break
        assert reply is not None
        return reply

    async def _event(self, request: CreditRequest, sender: Sender, default: int) -> Answer:
        """One-time events (RFC 8506 section 6)."""
        if request.action == Action.DIRECT_DEBITING:
            return await self._debit(request, sender, default)
        customer = await self._book.find(request.subscribers)
        if customer is None or sender.brand not in (None, customer.brand):
            raise DiameterError(Result.USER_UNKNOWN, "no account has this subscriber")
        wishes = [self._wish(service, default, customer) for service in request.services]
        if request.action == Action.CHECK_BALANCE:
            if not wishes:
                group = default
                wishes = [(Service(), group, self._unit(group), 0)]
            enough = True
            for _, _, unit, amount in wishes:
                enough = enough and await self._book.available(customer, unit) >= max(amount, 1)
            return Result.SUCCESS, [codec.u32(Avp.CHECK_BALANCE_RESULT, 0 if enough else 1)]
        if not wishes:
            raise codec.missing(Avp.REQUESTED_SERVICE_UNIT)
        if request.action == Action.REFUND_ACCOUNT:
            base = session_ref(request.session_id)
            for number, (_, _, unit, amount) in enumerate(wishes):
                if amount == 0:
                    raise codec.missing(Avp.REQUESTED_SERVICE_UNIT)
                once = uuid.uuid5(base, f"refund {request.number} {number}")
                await self._book.refund(customer, once, unit, amount)
            return Result.SUCCESS, self._units_back(request, wishes, customer)
        prices = [
            await self._book.price(customer, request.circumstances, unit, amount) for _, _, unit, amount in wishes
        ]
        if any(price is None for price in prices):
            raise DiameterError(Result.RATING_FAILED, "no tariff says what this costs")
        return Result.SUCCESS, [cost(Avp.COST_INFORMATION, *price) for price in prices if price is not None]

    async def _debit(self, request: CreditRequest, sender: Sender, default: int) -> Answer:
        """Direct debiting (RFC 8506 section 6.3): all or nothing, as a session that is opened and ended at once.

        A peer that repeats it, or a replica that dies in between, gets the first outcome: opening and ending are each
        stored once, and what was opened decides how it ends.
        """
        customer = await self._book.find(request.subscribers)
        if customer is None or sender.brand not in (None, customer.brand):
            raise DiameterError(Result.USER_UNKNOWN, "no account has this subscriber")
        wishes = []
        for service, group, unit, amount in (self._wish(service, default, customer) for service in request.services):
            if group in self._free:
                continue
            if amount == 0 and unit != "messages":
                raise codec.missing(Avp.REQUESTED_SERVICE_UNIT)
            wishes.append((service, group, unit, amount or 1))
        if not request.services:
            raise codec.missing(Avp.REQUESTED_SERVICE_UNIT)
        if not wishes:
            return Result.CREDIT_CONTROL_NOT_APPLICABLE, []
        if len({group for _, group, _, _ in wishes}) < len(wishes):
            raise DiameterError(Result.INVALID_AVP_VALUE, "a rating group comes twice in an event")
        opening = [Units(group, unit, 0, amount) for _, group, unit, amount in wishes]
        opened = await self._charge("create", request, sender, opening)
        if opened.outcome == "unknown":
            raise DiameterError(Result.USER_UNKNOWN, "no account has this subscriber")
        infos = _infos(opened)
        whole = all(_granted(infos.get(one.rating)) == one.wanted for one in opening)
        ending = [Units(one.rating, one.unit, (one.wanted or 0) if whole else 0, None) for one in opening]
        await self._charge("release", request, sender, ending, step=1)
        if not whole:
            codes = [infos[one.rating]["resultCode"] for one in opening if one.rating in infos]
            return RESULTS[next((code for code in codes if code != "SUCCESS"), "QUOTA_LIMIT_REACHED")], []
        return Result.SUCCESS, self._units_back(request, wishes, customer)

    def _unit(self, group: int) -> Unit:
        unit = self._groups.get(group)
        if unit is None:
            raise DiameterError(Result.RATING_FAILED, "this Rating-Group is not rated", _rating_group(group))
        return unit

    def _wish(self, service: Service, default: int, customer: Customer) -> tuple[Service, int, Unit, int]:
        """Rating group, unit and amount (0: none is said) of an event."""
        group = default if service.rating_group is None else service.rating_group
        asked = Amounts() if service.wanted is None else service.wanted
        if asked.money is not None:
            amount = minor_units(*asked.money, customer.currency)
            if amount is None:
                raise DiameterError(
                    Result.INVALID_AVP_VALUE, f"the account is kept in whole minor units of {customer.currency}"
                )
            unit: Unit = "minor"
        else:
            unit = self._unit(group)
            if not asked.fits(unit):
                raise DiameterError(Result.RATING_FAILED, f"this Rating-Group is rated in {unit}", asked.raw)
            amount = asked.get(unit, 0)
        if amount > LARGEST_AMOUNT:
            raise DiameterError(Result.INVALID_AVP_VALUE, "more is asked than can be", _USED_TOO_MUCH)
        return service, group, unit, amount

    def _units_back(
        self, request: CreditRequest, wishes: list[tuple[Service, int, Unit, int]], customer: Customer
    ) -> list[bytes]:
        """What was debited or refunded, as Granted-Service-Units."""
        parts = []
        for service, _, unit, amount in wishes:
            money = None if service.wanted is None else service.wanted.money
            unit_back: dict[str, Any] = (
                {"money": (money.digits, money.exponent, money.currency or 0)} if money else {_FIELDS[unit]: amount}
            )
            if request.grouped:
                parts.append(service_answer(service, {"resultCode": "SUCCESS", "grantedUnit": unit_back}))
            else:
                parts.append(granted(unit_back))
        return parts


_USED_TOO_MUCH = codec.u64(Avp.CC_TOTAL_OCTETS, LARGEST_AMOUNT)
_NO_SUBSCRIPTION = codec.group(
    Avp.SUBSCRIPTION_ID, [codec.u32(Avp.SUBSCRIPTION_ID_TYPE, 1), codec.utf8(Avp.SUBSCRIPTION_ID_DATA, "")]
)


def _rating_group(group: int) -> bytes:
    return codec.u32(Avp.RATING_GROUP, group)


def _misfit(service: Service, unit: Unit) -> bytes:
    """The first service unit that cannot be counted in a unit: it says others only, or money, which is for events."""
    for one in service.used:
        if not one.fits(unit):
            return one.raw
    return b"" if service.wanted is None or service.wanted.fits(unit) else service.wanted.raw


def _for(sender: Sender, info: dict[str, Any]) -> dict[str, Any]:
    """What a peer is told of a grant: the last one is used up before more is asked, not asked for in ever smaller rests."""
    final = info.get("finalUnitIndication")
    if sender.whole_quota and final is not None and final["finalUnitAction"] == "TERMINATE":
        return {name: value for name, value in info.items() if not name.endswith("QuotaThreshold")}
    return info


def _infos(reply: Reply) -> dict[int, dict[str, Any]]:
    """A reply's MultipleUnitInformation by rating group."""
    if not reply.body:
        return {}
    found: Iterable[dict[str, Any]] = json.loads(reply.body)["multipleUnitInformation"]
    return {one["ratingGroup"]: one for one in found}


def _granted(info: dict[str, Any] | None) -> int:
    unit = (info or {}).get("grantedUnit") or {}
    return int(next((amount for name, amount in unit.items() if name != "tariffTimeChange"), 0))
