"""The OCS over HTTP: Nchf_ConvergedCharging v3 (TS 32.291 clause 6.1) and the management of accounts."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
import uuid
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException

from mvnobox.charging.ledger import Conflict, Ledger, SubscriberTaken
from mvnobox.charging.schemas import AccountPatch, AccountPut, ChargingDataRequest, Grant
from mvnobox.charging.settings import OcsSettings
from mvnobox.service.web import health_routes

log = logging.getLogger(__name__)
NCHF = "/nchf-convergedcharging/v3/chargingdata"
LARGEST_BODY = 65_536
REQUESTS = Counter("ocs_charging_requests_total", "Charging requests", ["operation", "result"])
SECONDS = Histogram(
    "ocs_charging_seconds",
    "Time of a charging request",
    ["operation"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1),
)


def problem(status: int, title: str, cause: str | None = None, detail: str | None = None, **more: Any) -> JSONResponse:
    """ProblemDetails (RFC 9457, TS 29.571 clause 5.2.4.1)."""
    body = {"status": status, "title": title, "cause": cause, "detail": detail, **more}
    return JSONResponse(
        {key: value for key, value in body.items() if value is not None},
        status_code=status,
        media_type="application/problem+json",
    )


async def brand_of(request: Request, authorization: Annotated[str, Header()] = "") -> str:
    """The brand that a bearer token stands for: its name and the HMAC-SHA256 of it under the platform's key."""
    scheme, _, token = authorization.partition(" ")
    brand, _, given = token.strip().rpartition(".")
    expected = hmac.new(request.app.state.tenant_key, brand.encode(), hashlib.sha256).hexdigest()
    right = hmac.compare_digest(given.encode(), expected.encode())
    if scheme.lower() != "bearer" or not brand or not right:
        raise HTTPException(401, "a bearer token of a brand is needed")
    return brand


Brand = Annotated[str, Depends(brand_of)]


def make_app(ledger: Ledger, settings: OcsSettings, tenant_key: bytes) -> FastAPI:
    """The ASGI application over a ledger."""
    app = FastAPI(title="MVNO in a box OCS", version="1", docs_url=None, redoc_url=None)
    app.state.tenant_key = tenant_key

    @app.middleware("http")
    async def bounded(request: Request, call_next: Any) -> Response:
        try:
            length = int(request.headers.get("content-length", "0"))
        except ValueError:
            return problem(400, "Bad Request", "INVALID_MSG_FORMAT", "the content length is not a number")
        if length > LARGEST_BODY:
            return problem(413, "Content Too Large", detail=f"a body has at most {LARGEST_BODY} octets")
        response: Response = await call_next(request)
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        params = [
            {"param": ".".join(str(part) for part in one["loc"][1:]) or "body", "reason": one["msg"]}
            for one in error.errors()
        ]
        missing = any(one["type"] == "missing" for one in error.errors())
        cause = "MANDATORY_IE_MISSING" if missing else "MANDATORY_IE_INCORRECT"
        return problem(400, "Bad Request", cause, invalidParams=params)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(SubscriberTaken)
    async def taken(request: Request, error: SubscriberTaken) -> Response:
        return problem(409, "Conflict", detail="a subscriber identifier belongs to another account")

    @app.exception_handler(Conflict)
    async def conflict(request: Request, error: Conflict) -> Response:
        return problem(409, "Conflict", detail=str(error))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        log.error("request failed", extra={"path": request.url.path, "error": type(error).__name__})
        return problem(503, "Service Unavailable", "SYSTEM_FAILURE")

    def units_of(body: ChargingDataRequest) -> list[dict[str, Any]]:
        """What the ledger needs of a request: per rating group the use and the wish, the wish capped."""
        units = []
        for usage in body.multiple_unit_usage:
            unit = settings.rating_groups.get(usage.rating_group)
            entry: dict[str, Any] = {
                "rating": usage.rating_group,
                "unit": unit,
                "used": sum(container.octets for container in usage.used_unit_container),
            }
            if usage.requested_unit is not None:
                asked = usage.requested_unit.total_volume
                cap = settings.quota.octets
                entry["want"] = cap if not asked else min(asked, cap)
            units.append(entry)
        return units

    def answer_of(body: ChargingDataRequest, units: list[dict[str, Any]]) -> dict[str, Any]:
        """ChargingDataResponse (TS 32.291 clause 6.1.6.2.1.2)."""
        informations = []
        for unit in units:
            information: dict[str, Any] = {"ratingGroup": unit["rating"], "resultCode": unit["result"]}
            if "granted" in unit:
                granted = unit["granted"]
                information["grantedUnit"] = {"totalVolume": granted}
                information["validityTime"] = settings.validity_seconds
                information["volumeQuotaThreshold"] = granted * settings.quota_threshold_percent // 100
                if unit["final"]:
                    information["finalUnitIndication"] = {"finalUnitAction": "TERMINATE"}
            informations.append(information)
        return {
            "invocationTimeStamp": dt.datetime.now(dt.UTC).isoformat(),
            "invocationSequenceNumber": body.invocation_sequence_number,
            "multipleUnitInformation": informations,
        }

    @app.post(NCHF, status_code=201)
    async def create(body: ChargingDataRequest, brand: Brand) -> Response:
        """Create: a new charging session; a repeat gets the first one again."""
        with SECONDS.labels("create").time():
            if body.subscriber_identifier is None:
                return problem(400, "Bad Request", "MANDATORY_IE_MISSING", "subscriberIdentifier is missing")
            consumer = body.nf_consumer_identification
            # Without a charging id nothing tells a repeat from a second session.
            charging_id = body.charging_id if body.charging_id is not None else uuid.uuid4().hex
            key = "|".join(
                str(part)
                for part in (
                    brand,
                    consumer.node_functionality,
                    consumer.n_f_name or "",
                    body.subscriber_identifier,
                    charging_id,
                    body.invocation_sequence_number,
                )
            )
            made = await ledger.create(
                brand,
                body.subscriber_identifier,
                key,
                body.invocation_sequence_number,
                units_of(body),
                body.notify_uri,
                settings.session_seconds,
            )
        REQUESTS.labels("create", "unknown" if made is None else "repeated" if made["repeated"] else "done").inc()
        if made is None:
            return problem(404, "Not Found", "USER_UNKNOWN", "no account of this brand has this subscriber")
        return JSONResponse(
            answer_of(body, made["units"]), status_code=201, headers={"Location": f"{NCHF}/{made['ref']}"}
        )

    async def further(ref: uuid.UUID, body: ChargingDataRequest, brand: str, *, release: bool) -> Any:
        operation = "release" if release else "update"
        units = units_of(body)
        if release:
            for unit in units:
                unit.pop("want", None)
        with SECONDS.labels(operation).time():
            made = await ledger.further(
                brand,
                ref,
                body.invocation_sequence_number,
                units,
                body.notify_uri,
                settings.session_seconds,
                release=release,
            )
        REQUESTS.labels(operation, "unknown" if made is None else "repeated" if made["repeated"] else "done").inc()
        return made

    @app.post(NCHF + "/{ref}/update")
    async def update(ref: uuid.UUID, body: ChargingDataRequest, brand: Brand) -> Response:
        """Update: usage in, quota out; a repeat gets the first answer again."""
        made = await further(ref, body, brand, release=False)
        if made is None:
            return problem(404, "Not Found", "CONTEXT_NOT_FOUND", "there is no such charging session")
        return JSONResponse(answer_of(body, made["units"]))

    @app.post(NCHF + "/{ref}/release", status_code=204)
    async def release(ref: uuid.UUID, body: ChargingDataRequest, brand: Brand) -> Response:
        """Release: the last usage in; what is held goes back."""
        made = await further(ref, body, brand, release=True)
        if made is None:
            return problem(404, "Not Found", "CONTEXT_NOT_FOUND", "there is no such charging session")
        return Response(status_code=204)

    def unknown() -> JSONResponse:
        return problem(404, "Not Found", detail="there is no such account")

    def found(document: dict[str, Any] | None) -> Response:
        if document is None:
            return unknown()
        return Response(json.dumps(document, default=_plain), media_type="application/json")

    @app.put("/ocs/v1/accounts/{account_id}")
    async def put_account(account_id: str, body: AccountPut, brand: Brand) -> Response:
        """Make or replace an account."""
        document, new = await ledger.put_account(brand, account_id, body)
        return JSONResponse(document, status_code=201 if new else 200)

    @app.patch("/ocs/v1/accounts/{account_id}")
    async def patch_account(account_id: str, body: AccountPatch, brand: Brand) -> Response:
        """Suspend, resume or terminate; running sessions are told."""
        if not await ledger.set_status(brand, account_id, body.status):
            return unknown()
        return JSONResponse({"accountId": account_id, "status": body.status})

    @app.post("/ocs/v1/accounts/{account_id}/grants")
    async def grant(account_id: str, body: Grant, brand: Brand) -> Response:
        """Add buckets, once a requestId."""
        return found(await ledger.grant(brand, account_id, body))

    @app.get("/ocs/v1/accounts/{account_id}/balances")
    async def balances(account_id: str, brand: Brand) -> Response:
        """Buckets and totals."""
        return found(await ledger.balances(brand, account_id))

    @app.get("/ocs/v1/accounts/{account_id}/usage")
    async def usage(account_id: str, brand: Brand) -> Response:
        """Sessions and total use."""
        return found(await ledger.usage(brand, account_id))

    app.router.routes.extend(health_routes(ledger.ready))
    return app


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
