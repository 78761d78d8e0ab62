"""Nchf_ConvergedCharging v3 (TS 32.291 clause 6.1), straight on the server: the path that has to be quick."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram
from pydantic import ValidationError

from mvnobox.charging.ledger import Call, Engine, Operation, Reply, Units, create_key, new_ref
from mvnobox.charging.problems import RETRY, Problem, database_problem, invalid
from mvnobox.charging.rating.book import Ratings
from mvnobox.charging.rating.scene import Circumstances
from mvnobox.charging.schemas import LARGEST_AMOUNT, ChargingDataRequest
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
            units, scene = self._units(request), None
            if (scenery := await self._ratings.get(brand)) is not None:
                seen = Circumstances(request.visited, request.called)
                scene = scenery.told_now(seen, [one.unit for one in units])
            reply = await self._engine.charge(self._call(operation, brand, ref, request, units, scene))
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
        return _answer(operation, reply)

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

    def _units(self, request: ChargingDataRequest) -> list[Units]:
        """Per rating group the use and the wish, the wish capped; a group that comes twice is one."""
        found: dict[int, Units] = {}
        for usage in request.multiple_unit_usage:
            group = usage.rating_group
            unit = self._settings.rating_groups.get(group)
            if unit is None:
                found[group] = Units(group, None, 0, None)
                continue
            before = found.get(group)
            used = sum(container.of(unit) for container in usage.used_unit_container) + (before.used if before else 0)
            if used > LARGEST_AMOUNT:
                raise Problem(
                    400,
                    "OPTIONAL_IE_INCORRECT",
                    invalidParams=[{"param": "multipleUnitUsage", "reason": f"use is over {LARGEST_AMOUNT} in sum"}],
                )
            wanted = usage.wanted(unit)
            if wanted is None:
                wanted = before.wanted if before else None
            else:
                wanted = min(wanted or self._slices[group], self._slices[group])
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


def _answer(operation: Operation, reply: Reply) -> Response:
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
    return Response(201, [*_JSON, ("location", f"{NCHF}/{reply.ref}")], body)
