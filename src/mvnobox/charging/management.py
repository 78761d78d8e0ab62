"""The management of accounts over HTTP, and the OpenAPI document of all that the OCS serves."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mvnobox.charging.accounts import Accounts
from mvnobox.charging.openapi import document_nchf
from mvnobox.charging.problems import Problem, database_problem, invalid
from mvnobox.charging.rating.book import Ratings
from mvnobox.charging.rating.document import Rating
from mvnobox.charging.schemas import AccountPatch, AccountPut, Grant, Taken
from mvnobox.charging.tenants import Tenants
from mvnobox.service.database import TROUBLE

AccountId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]


def problem_response(problem: Problem) -> Response:
    """A problem as Starlette's response."""
    return Response(
        problem.body(), status_code=problem.status, media_type="application/problem+json", headers=problem.headers
    )


def brand_of(request: Request) -> str:
    """The caller's brand. Raises Problem 401."""
    brand: str = request.app.state.tenants.brand(request.headers.get("authorization", ""))
    return brand


Brand = Annotated[str, Depends(brand_of)]


def make_management(accounts: Accounts, tenants: Tenants, ratings: Ratings) -> FastAPI:
    """The application for everything but charging requests and health."""
    app = FastAPI(title="MVNO in a box OCS", version="1", docs_url=None, redoc_url=None)
    app.state.tenants = tenants

    @app.exception_handler(Problem)
    async def refused(request: Request, error: Problem) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> Response:
        return problem_response(invalid(error.errors(), skip=1))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        return problem_response(Problem(error.status_code, headers=dict(error.headers or {})))

    async def trouble(request: Request, error: Exception) -> Response:
        return problem_response(database_problem(error))

    for kind in TROUBLE:
        app.add_exception_handler(kind, trouble)

    def found(document: dict[str, Any] | list[dict[str, Any]] | None) -> Response:
        if document is None:
            raise Problem(404, None, "there is no such account")
        return Response(json.dumps(document, default=_plain), media_type="application/json")

    @app.put("/ocs/v1/rating", status_code=204)
    async def put_rating(body: Rating, brand: Brand) -> Response:
        """Replace what the brand sells by the unit: zones, hours, destinations, tariffs. Repeating it changes nothing."""
        await ratings.put(brand, body)
        return Response(status_code=204)

    @app.get("/ocs/v1/rating")
    async def get_rating(brand: Brand) -> Response:
        """What the brand sells by the unit."""
        found = await ratings.read(brand)
        if found is None:
            raise Problem(404, None, "the brand has no rating")
        return JSONResponse(found.model_dump(mode="json", by_alias=True))

    @app.put("/ocs/v1/accounts/{account_id}", responses={201: {"description": "The account is new"}})
    async def put_account(account_id: AccountId, body: AccountPut, brand: Brand) -> Response:
        """Make or replace an account."""
        document, new = await accounts.put(brand, account_id, body)
        return JSONResponse(document, status_code=201 if new else 200)

    @app.patch("/ocs/v1/accounts/{account_id}")
    async def patch_account(account_id: AccountId, body: AccountPatch, brand: Brand) -> Response:
        """Suspend, resume or terminate; running sessions are told."""
        known = await accounts.set_status(brand, account_id, body.status)
        return found({"accountId": account_id, "status": body.status} if known else None)

    @app.post("/ocs/v1/accounts/{account_id}/grants")
    async def grant(account_id: AccountId, body: Grant, brand: Brand) -> Response:
        """Add buckets, once a requestId."""
        return found(await accounts.grant(brand, account_id, body))

    @app.get("/ocs/v1/accounts/{account_id}/balances")
    async def balances(account_id: AccountId, brand: Brand) -> Response:
        """Buckets and totals."""
        return found(await accounts.balances(brand, account_id))

    @app.get("/ocs/v1/accounts/{account_id}/usage")
    async def usage(account_id: AccountId, brand: Brand) -> Response:
        """Sessions and total use."""
        return found(await accounts.usage(brand, account_id))

    @app.get("/ocs/v1/events")
    async def events(brand: Brand) -> Response:
        """What happened to the brand's accounts and it has not taken, oldest first: each at least once, by its id."""
        return found(await accounts.events(brand))

    @app.post("/ocs/v1/events/taken", status_code=204)
    async def taken(body: Taken, brand: Brand) -> Response:
        """The brand has these events; repeating it changes nothing."""
        await accounts.take_events(brand, body.ids)
        return Response(status_code=204)

    generate = app.openapi
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(document_nchf(generate()))
        return made

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
