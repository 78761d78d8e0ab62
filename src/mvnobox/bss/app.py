"""The BSS over HTTP: TM Forum's APIs for the operator, the catalogue for everybody, the portal for customers."""

from __future__ import annotations

import datetime as dt
import hmac
import json
import logging
import uuid
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from mvnobox.bss import balances, bulk, catalog, events, listing, orders, parties, portal, sims, subscriptions
from mvnobox.bss.context import Context, TmfError
from mvnobox.bss.guard import Guard
from mvnobox.bss.incoming import BatchPut, OrderCreate, StatusPatch, TopupCreate
from mvnobox.service.web import health_routes

log = logging.getLogger(__name__)


def document(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON with RFC 3339 times."""
    text = json.dumps(body, ensure_ascii=False, default=_plain)
    return Response(text, status, headers, "application/json")


def _plain(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _error(error: TmfError) -> Response:
    headers = {"WWW-Authenticate": 'Bearer realm="operator"'} if error.status == 401 else None
    return document(error.body(), error.status, headers)


def _is_operator(request: Request, authorization: str) -> bool:
    scheme, _, token = authorization.partition(" ")
    right = hmac.compare_digest(token.strip().encode(), request.app.state.context.admin_token.encode())
    return scheme.lower() == "bearer" and right


async def operator_only(request: Request, authorization: Annotated[str, Header()] = "") -> None:
    """The operator's token, or 401."""
    if not _is_operator(request, authorization):
        raise TmfError(401, "the operator's bearer token is needed")


def _page(items: list[dict[str, Any]], total: int, wanted: listing.Wish) -> Response:
    items = [listing.some_fields(item, wanted.fields) for item in items]
    headers = {"X-Total-Count": str(total), "X-Result-Count": str(len(items))}
    return document(items, 206 if len(items) < total else 200, headers)


def _one(request: Request, item: dict[str, Any]) -> Response:
    return document(listing.some_fields(item, listing.chosen(request.query_params)))


def make_app(context: Context) -> FastAPI:
    """The ASGI application of one brand."""
    app = FastAPI(title=f"{context.brand.display_name} BSS", version="1", docs_url=None, redoc_url=None)
    app.state.context = context
    operator = [Depends(operator_only)]
    app.add_middleware(Guard, https=context.public_url.startswith("https:"))

    @app.exception_handler(TmfError)
    async def said(request: Request, error: TmfError) -> Response:
        return _error(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return _error(TmfError(400, "the request is not valid", problems[:1000]))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        said = _error(TmfError(error.status_code, str(error.detail)))
        said.headers.update(error.headers or {})
        return said

    @app.exception_handler(asyncpg.DataError)
    @app.exception_handler(UnicodeError)
    async def unfit(request: Request, error: Exception) -> Response:
        return _error(TmfError(400, "the request has a value that cannot be stored", "leave out control characters"))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        log.error("request failed", extra={"path": request.url.path, "error": type(error).__name__})
        return _error(TmfError(503, "the request could not be served", "try again"))

    def locale_of(request: Request) -> str:
        return portal.choose_locale(context.brand, request.headers.get("accept-language", ""))

    @app.get(catalog.BASE)
    async def get_offerings(request: Request) -> Response:
        """TMF620: what is for sale."""
        wanted = listing.wish(request.query_params, catalog.ATTRIBUTES, "lang")
        found = catalog.matching(catalog.offerings(context, locale_of(request)), wanted.filters)
        return _page(found[wanted.offset : wanted.offset + wanted.limit], len(found), wanted)

    @app.get(catalog.BASE + "/{identity}")
    async def get_offering(identity: str, request: Request) -> Response:
        """TMF620: one offer."""
        return _one(request, catalog.offering(context, identity, locale_of(request)))

    @app.post(orders.BASE, dependencies=operator)
    async def post_order(
        body: OrderCreate, idempotency_key: Annotated[str | None, Header(min_length=1, max_length=100)] = None
    ) -> Response:
        """TMF622: place an order. A repeated externalId or Idempotency-Key gives the first order."""
        made, new = await orders.place(context, body, operator=True, key=idempotency_key)
        return document(made, 201 if new else 200, {"Location": made["href"]})

    @app.get(orders.BASE, dependencies=operator)
    async def get_orders(request: Request) -> Response:
        """TMF622: orders."""
        wanted = listing.wish(request.query_params, orders.ATTRIBUTES)
        return _page(*await orders.page(context, wanted), wanted)

    @app.get(orders.BASE + "/{identity}", dependencies=operator)
    async def get_order(identity: uuid.UUID, request: Request) -> Response:
        """TMF622: one order."""
        return _one(request, await orders.read(context, identity))

    @app.get(parties.BASE, dependencies=operator)
    async def get_parties(request: Request) -> Response:
        """TMF632: customers."""
        wanted = listing.wish(request.query_params, parties.ATTRIBUTES)
        return _page(*await parties.page(context, wanted), wanted)

    @app.get(parties.BASE + "/{identity}", dependencies=operator)
    async def get_party(identity: uuid.UUID, request: Request) -> Response:
        """TMF632: one customer."""
        return _one(request, await parties.read(context, identity))

    @app.post(parties.BASE + "/{identity}/verify", dependencies=operator)
    async def verify_party(identity: uuid.UUID) -> Response:
        """The operator has verified the customer's identity; held orders go on."""
        await orders.verify_identity(context, identity)
        return document(await parties.read(context, identity))

    @app.get(subscriptions.BASE, dependencies=operator)
    async def get_products(request: Request) -> Response:
        """TMF637: products."""
        wanted = listing.wish(request.query_params, subscriptions.ATTRIBUTES)
        return _page(*await subscriptions.page(context, wanted), wanted)

    @app.get(subscriptions.BASE + "/{identity}", dependencies=operator)
    async def get_product(identity: uuid.UUID, request: Request) -> Response:
        """TMF637: one product."""
        return _one(request, await subscriptions.read(context, identity))

    @app.patch(subscriptions.BASE + "/{identity}", dependencies=operator)
    async def patch_product(identity: uuid.UUID, body: StatusPatch) -> Response:
        """TMF637: suspend, resume, terminate; whether the plan renews by itself."""
        return document(await subscriptions.change(context, identity, body.status, body.auto_renew))

    @app.get(balances.BASE + "/bucket", dependencies=operator)
    async def get_buckets(product: Annotated[uuid.UUID, Query(alias="product.id")], request: Request) -> Response:
        """TMF654: a product's buckets."""
        wanted = listing.wish(request.query_params, frozenset(), "product.id")
        found = await balances.buckets(context, product)
        return _page(found[wanted.offset : wanted.offset + wanted.limit], len(found), wanted)

    @app.get(balances.BASE + "/bucket/{identity}", dependencies=operator)
    async def get_bucket(identity: str, request: Request) -> Response:
        """TMF654: one bucket."""
        return _one(request, await balances.bucket(context, identity))

    @app.get(balances.BASE + "/accumulatedBalance", dependencies=operator)
    async def get_accumulated(product: Annotated[uuid.UUID, Query(alias="product.id")]) -> Response:
        """TMF654: a product's totals and use."""
        return document([await balances.accumulated(context, product)])

    @app.post(balances.BASE + "/topupBalance", dependencies=operator)
    async def post_topup(body: TopupCreate) -> Response:
        """TMF654: sell a top-up."""
        try:
            product = uuid.UUID(body.product.id)
        except ValueError:
            raise TmfError(404, "there is no such product") from None
        offer, request = body.product_offering.id, body.id or uuid.uuid4()
        made, new = await balances.top_up(context, product, offer, request, body.amount)
        return document(made, 201 if new else 200, {"Location": made["href"]})

    @app.get(balances.BASE + "/topupBalance/{identity}", dependencies=operator)
    async def get_topup(identity: uuid.UUID, request: Request) -> Response:
        """TMF654: one top-up."""
        return _one(request, await balances.topup(context, identity))

    @app.get(events.BASE, dependencies=operator)
    async def get_events(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
        """What happened to subscribers and nobody has taken yet, oldest first."""
        return document(await events.waiting(context, limit))

    @app.delete(events.BASE + "/{identity}", dependencies=operator)
    async def delete_event(identity: uuid.UUID) -> Response:
        """The core has acted on an event."""
        await events.take(context, identity)
        return Response(status_code=204)

    @app.put(bulk.BASE + "/{identity}", dependencies=operator)
    async def put_batch(identity: str, body: BatchPut) -> Response:
        """Make a batch of lines, or go on with it; streams a line of JSON for each."""
        await bulk.begin(context, identity, body.plan, body.count, identity_verified=body.identity_verified)
        return StreamingResponse(bulk.json_lines(context, identity), media_type="application/x-ndjson")

    @app.get(bulk.BASE + "/{identity}", dependencies=operator)
    async def get_batch(identity: str) -> Response:
        """How far a batch is."""
        return document(await bulk.read(context, identity))

    @app.get("/sim-inventory/v1/sim/{iccid}", dependencies=operator)
    async def get_sim(iccid: str) -> Response:
        """A SIM, without its keys."""
        return document(await sims.sim(context, iccid))

    @app.get("/sim-inventory/v1/sim/{iccid}/profile", dependencies=operator)
    async def get_profile(iccid: str) -> Response:
        """A SIM's profile with its keys; every reading is noted."""
        return document(await sims.profile(context, iccid), headers={"Cache-Control": "no-store"})

    @app.get("/sim-inventory/v1/sim/{iccid}/activation", dependencies=operator)
    async def get_activation(iccid: str) -> Response:
        """The activation code of an eSIM."""
        return document(await sims.activation(context, iccid))

    @app.get("/sim-inventory/v1/sim/{iccid}/activation.svg", dependencies=operator)
    async def get_activation_qr(iccid: str) -> Response:
        """The activation code as a QR code."""
        code = (await sims.activation(context, iccid))["activationCode"]
        return Response(sims.qr_svg(code), media_type="image/svg+xml")

    async def ready() -> str | None:
        return (
            None if await context.pool.fetchval("SELECT to_regclass('outbox')::text") else "the migrations have not run"
        )

    app.router.routes.extend(health_routes(ready))
    app.include_router(portal.make_router(context))
    return app


__all__ = ["make_app"]
