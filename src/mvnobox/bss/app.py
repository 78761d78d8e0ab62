"""The BSS over HTTP: TM Forum's APIs for the operator, the catalogue for everybody, the portal for customers."""

from __future__ import annotations

import datetime as dt
import hmac
import json
import logging
import uuid
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException

from mvnobox.bss import balances, catalog, orders, parties, portal, sims, subscriptions
from mvnobox.bss.context import Context, TmfError
from mvnobox.service.web import health_routes

log = logging.getLogger(__name__)
LARGEST_BODY = 65_536


def document(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON with RFC 3339 times."""
    text = json.dumps(body, ensure_ascii=False, default=_plain)
    return Response(text, status, headers, "application/json")


def _plain(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _error(error: TmfError) -> Response:
    return document(error.body(), error.status)


def _is_operator(request: Request, authorization: str) -> bool:
    scheme, _, token = authorization.partition(" ")
    right = hmac.compare_digest(token.strip().encode(), request.app.state.context.admin_token.encode())
    return scheme.lower() == "bearer" and right


async def operator_only(request: Request, authorization: Annotated[str, Header()] = "") -> None:
    """The operator's token, or 401."""
    if not _is_operator(request, authorization):
        raise TmfError(401, "the operator's bearer token is needed")


Offset = Annotated[int, Query(ge=0, le=10**9)]
Limit = Annotated[int, Query(ge=1, le=1000)]


class StatusPatch(orders.Incoming):
    status: str = Field(pattern="^(active|suspended|terminated)$")


class TopupCreate(orders.Incoming):
    """TopupBalance_Create (TMF654); `id` makes it repeatable."""

    id: uuid.UUID | None = None
    product: orders.Reference
    product_offering: orders.Reference


def _page(items: list[dict[str, Any]], total: int, fields: str | None) -> Response:
    if fields:
        wanted = {"id", "href", *fields.split(",")}
        items = [{key: value for key, value in item.items() if key in wanted} for item in items]
    headers = {"X-Total-Count": str(total), "X-Result-Count": str(len(items))}
    return document(items, 206 if len(items) < total else 200, headers)


def make_app(context: Context) -> FastAPI:
    """The ASGI application of one brand."""
    app = FastAPI(title=f"{context.brand.display_name} BSS", version="1", docs_url=None, redoc_url=None)
    app.state.context = context
    operator = [Depends(operator_only)]

    @app.middleware("http")
    async def bounded(request: Request, call_next: Any) -> Response:
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return _error(TmfError(413, f"a body has at most {LARGEST_BODY} octets"))
        response: Response = await call_next(request)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    @app.exception_handler(TmfError)
    async def said(request: Request, error: TmfError) -> Response:
        return _error(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return _error(TmfError(400, "the request is not valid", problems[:1000]))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return _error(TmfError(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        log.error("request failed", extra={"path": request.url.path, "error": type(error).__name__})
        return _error(TmfError(503, "the request could not be served", "try again"))

    def locale_of(request: Request) -> str:
        return portal.choose_locale(context.brand, request.headers.get("accept-language", ""))

    @app.get(catalog.BASE)
    async def get_offerings(
        request: Request, fields: str | None = None, offset: Offset = 0, limit: Limit = 100
    ) -> Response:
        """TMF620: what is for sale."""
        found = catalog.offerings(context, locale_of(request))
        return _page(found[offset : offset + limit], len(found), fields)

    @app.get(catalog.BASE + "/{identity}")
    async def get_offering(identity: str, request: Request) -> Response:
        """TMF620: one offer."""
        return document(catalog.offering(context, identity, locale_of(request)))

    @app.post(orders.BASE, dependencies=operator)
    async def post_order(body: orders.OrderCreate) -> Response:
        """TMF622: place an order."""
        made, new = await orders.place(context, body, operator=True)
        return document(made, 201 if new else 200, {"Location": made["href"]})

    @app.get(orders.BASE, dependencies=operator)
    async def get_orders(
        state: str | None = None, fields: str | None = None, offset: Offset = 0, limit: Limit = 100
    ) -> Response:
        """TMF622: orders."""
        return _page(*await orders.listing(context, offset, limit, state), fields)

    @app.get(orders.BASE + "/{identity}", dependencies=operator)
    async def get_order(identity: uuid.UUID) -> Response:
        """TMF622: one order."""
        return document(await orders.read(context, identity))

    @app.get(parties.BASE, dependencies=operator)
    async def get_parties(fields: str | None = None, offset: Offset = 0, limit: Limit = 100) -> Response:
        """TMF632: customers."""
        return _page(*await parties.listing(context, offset, limit), fields)

    @app.get(parties.BASE + "/{identity}", dependencies=operator)
    async def get_party(identity: uuid.UUID) -> Response:
        """TMF632: one customer."""
        return document(await parties.read(context, identity))

    @app.post(parties.BASE + "/{identity}/verify", dependencies=operator)
    async def verify_party(identity: uuid.UUID) -> Response:
        """The operator has verified the customer's identity; held orders go on."""
        await orders.verify_identity(context, identity)
        return document(await parties.read(context, identity))

    @app.get(subscriptions.BASE, dependencies=operator)
    async def get_products(
        status: str | None = None, fields: str | None = None, offset: Offset = 0, limit: Limit = 100
    ) -> Response:
        """TMF637: products."""
        return _page(*await subscriptions.listing(context, offset, limit, status), fields)

    @app.get(subscriptions.BASE + "/{identity}", dependencies=operator)
    async def get_product(identity: uuid.UUID) -> Response:
        """TMF637: one product."""
        return document(await subscriptions.read(context, identity))

    @app.patch(subscriptions.BASE + "/{identity}", dependencies=operator)
    async def patch_product(identity: uuid.UUID, body: StatusPatch) -> Response:
        """TMF637: suspend, resume, terminate."""
        return document(await subscriptions.change_status(context, identity, body.status))

    @app.get(balances.BASE + "/bucket", dependencies=operator)
    async def get_buckets(product: Annotated[uuid.UUID, Query(alias="product.id")]) -> Response:
        """TMF654: a product's buckets."""
        return document(await balances.buckets(context, product))

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
        made, new = await balances.top_up(context, product, body.product_offering.id, body.id or uuid.uuid4())
        return document(made, 201 if new else 200, {"Location": made["href"]})

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
