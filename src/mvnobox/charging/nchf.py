"""Nchf_ConvergedCharging v3 (TS 32.291 clause 6.1), straight on the server: the path that has to be quick."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram
from pydantic import ValidationError

from mvnobox.charging.ledger import Call, Engine, Operation, Reply, Units, create_key, new_ref
from mvnobox.charging.one_time import charge_event
from mvnobox.charging.problems import RETRY, Problem, database_problem, invalid
from mvnobox.charging.rating.book import Ratings
from mvnobox.charging.rating.scene import Circumstances, told_of
from mvnobox.charging.schemas import LARGEST_AMOUNT, ChargingDataRequest, WrongUnit
from mvnobox.charging.settings import OcsSettings
from mvnobox.charging.tenants import Tenants
from mvnobox.service.database import TROUBLE
from mvnobox.service.exchange import Response

log = logging.getLogger(__name__)
NCHF = "/nchf-convergedcharging/v3/chargingdata"
REQUESTS = Counter("ocs_charging_requests_total", "Charging requests", ["operation", "result"])
SECONDS = Histogram(
    "ocs_charging_seconds",
    "Time of a charging request",
    ["operation"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1),
)
OVERRUN = Counter("ocs_overrun_requests_total", "Requests that reported more than any balance could pay")
DENIED = Counter("ocs_denied_total", "Rating groups that were refused quota")
RUNNING = Gauge("ocs_charging_requests_running", "Charging requests under way")
_OPERATIONS: tuple[Operation, ...] = ("create", "update", "release")
_SECONDS = {name: SECONDS.labels(name) for name in _OPERATIONS}

_JSON = [("content-type", "application/json")]


class Fields(Protocol):
    """A request's header fields by their names in lower case."""

    def get(self, name: str) -> str | None: ...


class Nchf:
    """Answers one request: method, path below the API root, Authorization, content type and body → response."""

    def __init__(self, engine: Engine, settings: OcsSettings, tenants: Tenants, ratings: Ratings) -> None:
        self._engine, self._settings, self._tenants, self._ratings = engine, settings, tenants, ratings
        self._slices = {group: settings.quota.of(unit) for group, unit in settings.rating_groups.items()}
        self._running = 0
        # Told with a session's first answer: every replica knows it, and what to do if none of them is heard.
        self._first = (
            f'{{"invocationResult":{{"failureHandling":"{settings.failure_handling}"}},'
            '"sessionFailover":"FAILOVER_SUPPORTED",'
        ).encode()

    async def answer(self, method: str, path: str, fields: Fields, body: bytes) -> Response:
        """Raises Problem for every request that is not answered with success."""
        operation, ref = _operation(path)
        if method != "POST":
            raise Problem(405, headers={"allow": "POST"})
        brand = self._tenants.brand(fields.get("authorization") or "")
        content = fields.get("content-type")
        if content is not None and content.partition(";")[0].strip().lower() != "application/json":
            raise Problem(415, None, "the body has to be application/json")
        if self._running >= self._settings.requests_at_once:
            REQUESTS.labels(operation, "congestion").inc()
            raise Problem(503, "NF_CONGESTION", "too many requests at once; repeat this one", headers=RETRY)
        started = time.perf_counter()
        self._running += 1
        RUNNING.set(self._running)
        try:
            request = ChargingDataRequest.model_validate_json(body)
            event = operation == "create" and request.one_time_event
            units = self._units(request, event)
            seen = Circumstances(request.visited, request.called)
            scene = told_of(await self._ratings.get(brand), seen, [one.unit for one in units])
            call = self._call(operation, brand, ref, request, units, scene)
            if event:
                reply = await charge_event(self._engine, call, request.one_time_event_type == "PEC")
            else:
                reply = await self._engine.charge(call)
        except ValidationError as error:
            raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None
        except TROUBLE as error:
            REQUESTS.labels(operation, "failed").inc()
            raise database_problem(error) from None
        finally:
            self._running -= 1
            RUNNING.set(self._running)
        _SECONDS[operation].observe(time.perf_counter() - started)
        REQUESTS.labels(operation, reply.outcome).inc()
        if reply.overrun:
            OVERRUN.inc()
        if reply.denied:
            DENIED.inc(reply.denied)
        return _answer(operation, reply, self._first)

    def _call(
        self, operation: Operation, brand: str, ref: uuid.UUID | None, request: ChargingDataRequest,
        units: list[Units], scene: str | None,
    ) -> Call:  # fmt: skip
        sequence = request.invocation_sequence_number
        if operation != "create":
            return Call(operation, brand, sequence, units, request.notify_uri, ref, scene=scene)
        if request.subscriber_identifier is None:
            raise Problem(
                400,
                "MANDATORY_IE_MISSING",
                invalidParams=[{"param": "subscriberIdentifier", "reason": "Field required"}],
            )
        consumer, stamp = request.nf_consumer_identification, request.invocation_time_stamp
        # Without a charging id only the time stamp tells a repeat from a second session.
        identity: object = stamp.isoformat() if request.charging_id is None else request.charging_id
        key = create_key(
            brand,
            consumer.node_functionality,
            consumer.n_f_name or "",
            request.subscriber_identifier,
            identity,
            sequence,
        )
        return Call(
            operation, brand, sequence, units, request.notify_uri, new_ref(), request.subscriber_identifier, key,
            stamp, request.retransmission_indicator, scene,
        )  # fmt: skip

    def _units(self, request: ChargingDataRequest, event: bool) -> list[Units]:
        """Per rating group the use and the wish, the wish of a session capped; a group that comes twice is one."""
        found: dict[int, Units] = {}
        for number, usage in enumerate(request.multiple_unit_usage):
            group = usage.rating_group
            unit = self._settings.rating_groups.get(group)
            if unit is None:
                found[group] = Units(group, None, 0, None)
                continue
            before = found.get(group)
            try:
                used, wanted = usage.used(unit) + (before.used if before else 0), usage.wanted(unit)
            except WrongUnit as error:
                # Read over, it would be free: nothing of it is charged, and nothing of the request is.
                raise Problem(
                    400,
                    "OPTIONAL_IE_INCORRECT",
                    invalidParams=[
                        {
                            "param": f"multipleUnitUsage.{number}.{error}",
                            "reason": f"rating group {group} is rated in {unit}, of which it says nothing",
                        }
                    ],
                ) from None
            if used > LARGEST_AMOUNT:
                raise Problem(
                    400,
                    "OPTIONAL_IE_INCORRECT",
                    invalidParams=[{"param": "multipleUnitUsage", "reason": f"use is over {LARGEST_AMOUNT} in sum"}],
                )
            if wanted is None:
                wanted = before.wanted if before else None
            else:
                # What an event asks for it gets whole or not at all.
                slice_ = max(wanted, self._slices[group]) if event else self._slices[group]
                wanted = min(wanted or self._slices[group], slice_)
            found[group] = Units(group, unit, used, wanted)
        return list(found.values())


def _operation(path: str) -> tuple[Operation, uuid.UUID | None]:
    """What a path below the API root asks for. Raises Problem 404."""
    if path in ("", "/"):
        return "create", None
    _, ref, *rest = path.split("/")
    if rest not in (["update"], ["release"]):
        raise Problem(404, "RESOURCE_URI_STRUCTURE_NOT_FOUND")
    try:
        return ("update" if rest == ["update"] else "release"), uuid.UUID(ref)
    except ValueError:
        raise Problem(404, "CONTEXT_NOT_FOUND", "there is no such charging session") from None


def _answer(operation: Operation, reply: Reply, first: bytes) -> Response:
    if reply.outcome == "unknown":
        if operation == "create":
            raise Problem(404, "USER_UNKNOWN", "no account of this brand has this subscriber")
        raise Problem(404, "CONTEXT_NOT_FOUND", "there is no such charging session")
    if reply.outcome == "mismatch":
        raise Problem(
            400,
            "MANDATORY_IE_INCORRECT",
            invalidParams=[{"param": "invocationSequenceNumber", "reason": "was used for another operation"}],
        )
    if operation == "release":
        return Response(204)
    body = (reply.body or "").encode()
    if operation == "update":
        return Response(200, _JSON, body)
    # A path: a relative reference, which the consumer resolves (RFC 9110 section 10.2.2). TS 29.501 clause 4.4.1 knows
    # relative resource URIs, and the OCS does not know by which name it is reached.
    return Response(201, [*_JSON, ("location", f"{NCHF}/{reply.ref}")], first + body[1:])
