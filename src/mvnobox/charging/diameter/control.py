"""Credit control (RFC 8506 section 5 and 6): what a request means for the ledger, and its reply for the peer."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import NamedTuple

from mvnobox.charging.diameter.calls import Answer, Calls, Sender, check, infos, make_call, rating_group, session_ref
from mvnobox.charging.diameter.credit import RESULTS, CreditRequest, Service, service_answer, terms
from mvnobox.charging.diameter.events import USED_TOO_MUCH, Events
from mvnobox.charging.diameter.ports import Book
from mvnobox.charging.diameter.settings import DiameterSettings
from mvnobox.charging.ledger import Call, Operation, PromptEngine, Reply, Units
from mvnobox.charging.schemas import LARGEST_AMOUNT, Unit
from mvnobox.charging.settings import FAILURE_HANDLING, OcsSettings
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError
from mvnobox.diameter.codes import Avp, RequestType, Result

# A peer may send what it is owed for at another replica (RFC 8506 section 8.4): no replica keeps anything.
_FAILOVER = codec.u32(Avp.CC_SESSION_FAILOVER, 1)
_OPERATIONS: dict[int | None, Operation] = {1: "create", 2: "update", 3: "release"}
_FREE = "QUOTA_MANAGEMENT_NOT_APPLICABLE"


class Asked(NamedTuple):
    """One rating group of a request: what the peer called it, and what the ledger is asked."""

    service: Service
    units: Units
    failed: bytes = b""
    """The AVP by which it cannot be rated (RFC 8506 section 9.2, DIAMETER_RATING_FAILED)."""


class Prompt(NamedTuple):
    """A request that takes one call of the ledger."""

    asked: list[Asked]
    free: list[Service]
    call: Call


class CreditControl:
    """Answers credit-control requests; keeps nothing between two of them."""

    def __init__(self, engine: PromptEngine, book: Book, ocs: OcsSettings, settings: DiameterSettings) -> None:
        self.engine = engine
        self._settings = settings
        self._groups: dict[int, Unit] = ocs.rating_groups
        self._slices = {group: ocs.quota.of(unit) for group, unit in ocs.rating_groups.items()}
        self._free = frozenset(settings.free_rating_groups)
        self._calls = Calls(engine, book)
        self._events = Events(self._calls, book, self._groups, self._free)
        handling = codec.u32(Avp.CREDIT_CONTROL_FAILURE_HANDLING, FAILURE_HANDLING.index(ocs.failure_handling))
        self._first = [_FAILOVER, handling]

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

    def prompt(self, request: CreditRequest, sender: Sender) -> Prompt | None:
        """A session's request that takes one call of the ledger; `told` has its answer. None: it takes `answer`. Raises
        DiameterError."""
        operation = _OPERATIONS.get(request.type)
        if operation is None or sender.brand is None or (operation == "create" and sender.refusal_delay):
            return None
        scenery = self._calls.at_hand(operation, request, sender)
        if scenery is None:
            return None
        asked, free = self._asked(request, self._default_group(request.context), sender.whole_quota)
        call = make_call(
            operation, request, sender, [one.units for one in asked], scenery[0],
            sender.brand, request.subscribers[0] if request.subscribers else None, session_ref(request.session_id),
        )  # fmt: skip
        return Prompt(asked, free, call)

    def told(self, request: CreditRequest, sender: Sender, prompt: Prompt, reply: Reply) -> Answer | None:
        """The answer to a request by its reply; None: it takes `answer`, for which the ledger has the same reply again.
        Raises DiameterError."""
        if _refused_whole(request, sender, prompt.call.operation, prompt.asked, prompt.free, reply) is not None:
            return None
        check(request, reply)
        return self._told(request, sender, prompt.call.operation, prompt.asked, prompt.free, reply)

    async def _answer(self, request: CreditRequest, sender: Sender) -> Answer:
        default = self._default_group(request.context)
        if request.type == RequestType.EVENT:
            return await self._events.answer(request, sender, default)
        asked, free = self._asked(request, default, sender.whole_quota)
        operation = _OPERATIONS[request.type]
        reply = await self._calls.charge(operation, request, sender, [one.units for one in asked])
        if (code := _refused_whole(request, sender, operation, asked, free, reply)) is not None:
            # The peer sends no termination for what was never opened.
            await self._calls.charge("release", request, sender, [], step=1)
            return RESULTS[code], self._first
        return self._told(request, sender, operation, asked, free, reply)

    def _told(
        self, request: CreditRequest, sender: Sender, operation: Operation, asked: list[Asked], free: list[Service],
        reply: Reply,
    ) -> Answer:  # fmt: skip
        if reply.outcome == "unknown":
            if operation == "create":
                raise DiameterError(Result.USER_UNKNOWN, "no account has this subscriber")
            raise DiameterError(Result.UNKNOWN_SESSION_ID, "there is no such charging session")
        found = infos(reply)
        more = [*self._first] if operation == "create" else []
        if request.grouped:
            for one in asked:
                if (info := found.get(one.units.rating)) is None:
                    continue
                if one.failed:
                    more.append(service_answer(one.service, info, sender.final_units, one.failed))
                else:
                    more.append(info.answer(one.service, sender.final_units, sender.whole_quota))
            more += [service_answer(one, {"resultCode": _FREE}) for one in free]
            return Result.SUCCESS, more
        result = Result.CREDIT_CONTROL_NOT_APPLICABLE if free else Result.SUCCESS
        if asked and (info := found.get(asked[0].units.rating)) is not None:
            result = RESULTS[info["resultCode"]]
            more += terms(info.whole() if sender.whole_quota else info, sender.final_units)
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
            failed = b"" if unit else rating_group(group)
            if unit and (failed := _misfit(service, unit)):
                # Read over, such use would be free: the service is refused, the others of the request are served.
                unit = None
            used, wanted = self._amounts(service, unit, group, whole) if unit else (0, None)
            if (before := found.get(group)) is not None:
                # One quota a rating group (TS 32.299 clause 5.3.1.2): services of a group share it.
                identifiers = [*before.service.identifiers, *service.identifiers]
                used += before.units.used
                wanted = before.units.wanted if wanted is None else wanted
                service = dataclasses.replace(before.service, identifiers=identifiers)
                failed = before.failed or failed
                if failed:
                    unit, used, wanted = None, 0, None
            if used > LARGEST_AMOUNT:
                raise DiameterError(Result.INVALID_AVP_VALUE, "more was used than can be", USED_TOO_MUCH)
            found[group] = Asked(service, Units(group, unit, used, wanted), failed)
        return list(found.values()), free

    def _amounts(self, service: Service, unit: Unit, group: int, whole: bool) -> tuple[int, int | None]:
        used = sum(one.get(unit, 0) for one in service.used)
        wanted = None if service.wanted is None else service.wanted.get(unit, 0)
        if wanted is not None:
            wanted = min((not whole and wanted) or self._slices[group], self._slices[group])
        return used, wanted


def _refused_whole(
    request: CreditRequest, sender: Sender, operation: Operation, asked: list[Asked], free: list[Service], reply: Reply
) -> str | None:
    """The first service's result code, if a first request is refused as a whole: nothing of it was granted, and its sender
    wants to hear that of the request."""
    if operation != "create" or not sender.refuses_whole or not request.grouped or free:
        return None
    found = infos(reply)
    codes = [found[one.units.rating]["resultCode"] for one in asked if one.units.rating in found]
    return codes[0] if codes and "SUCCESS" not in codes else None


def _misfit(service: Service, unit: Unit) -> bytes:
    """The first service unit that cannot be counted in a unit: it says others only, or money, which is for events."""
    for one in service.used:
        if not one.fits(unit):
            return one.raw
    return b"" if service.wanted is None or service.wanted.fits(unit) else service.wanted.raw
