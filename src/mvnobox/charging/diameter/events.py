"""One-time events (RFC 8506 section 6): debits, refunds, balance checks, price enquiries."""

from __future__ import annotations

import uuid
from typing import Any

from mvnobox.charging.diameter.calls import Answer, Calls, Sender, infos, rating_group, session_ref
from mvnobox.charging.diameter.credit import RESULTS, Amounts, CreditRequest, Service, cost, granted, service_answer
from mvnobox.charging.diameter.currencies import minor_units
from mvnobox.charging.diameter.ports import Book, Customer
from mvnobox.charging.ledger import Units
from mvnobox.charging.schemas import LARGEST_AMOUNT, Unit
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError
from mvnobox.diameter.codes import Action, Avp, Result

_FIELDS = {"octets": "totalVolume", "seconds": "time", "messages": "serviceSpecificUnits"}
USED_TOO_MUCH = codec.u64(Avp.CC_TOTAL_OCTETS, LARGEST_AMOUNT)


class Events:
    """Answers event requests; keeps nothing between two of them."""

    def __init__(self, calls: Calls, book: Book, groups: dict[int, Unit], free: frozenset[int]) -> None:
        self._calls, self._book, self._groups, self._free = calls, book, groups, free

    async def answer(self, request: CreditRequest, sender: Sender, default: int) -> Answer:
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
            # Said as a first request would be answered now.
            credit = await self._book.credit(
                customer, request.circumstances, [(unit, amount) for _, _, unit, amount in wishes]
            )
            if credit == "denied":
                return Result.END_USER_SERVICE_DENIED, []
            return Result.SUCCESS, [codec.u32(Avp.CHECK_BALANCE_RESULT, 0 if credit == "enough" else 1)]
        if not wishes:
            raise codec.missing(Avp.REQUESTED_SERVICE_UNIT)
        if request.action == Action.REFUND_ACCOUNT:
            base = session_ref(request.session_id)
            for number, (_, _, unit, amount) in enumerate(wishes):
                if amount == 0:
                    raise codec.missing(Avp.REQUESTED_SERVICE_UNIT)
                once = uuid.uuid5(base, f"refund {request.number} {number}")
                if not await self._book.refund(customer, once, unit, amount):
                    return Result.END_USER_SERVICE_DENIED, []
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
        opened = await self._calls.charge("create", request, sender, opening)
        if opened.outcome == "unknown":
            raise DiameterError(Result.USER_UNKNOWN, "no account has this subscriber")
        found = infos(opened)
        whole = all(_granted(found.get(one.rating)) == one.wanted for one in opening)
        ending = [Units(one.rating, one.unit, (one.wanted or 0) if whole else 0, None) for one in opening]
        await self._calls.charge("release", request, sender, ending, step=1)
        if not whole:
            codes = [found[one.rating]["resultCode"] for one in opening if one.rating in found]
            return RESULTS[next((code for code in codes if code != "SUCCESS"), "QUOTA_LIMIT_REACHED")], []
        return Result.SUCCESS, self._units_back(request, wishes, customer)

    def _unit(self, group: int) -> Unit:
        unit = self._groups.get(group)
        if unit is None:
            raise DiameterError(Result.RATING_FAILED, "this Rating-Group is not rated", rating_group(group))
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
            raise DiameterError(Result.INVALID_AVP_VALUE, "more is asked than can be", USED_TOO_MUCH)
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


def _granted(info: dict[str, Any] | None) -> int:
    unit = (info or {}).get("grantedUnit") or {}
    return int(next((amount for name, amount in unit.items() if name != "tariffTimeChange"), 0))
