"""The brand's portal: server-rendered pages in its colours and languages, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hmac
import secrets
import uuid
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

import yaml
from fastapi import APIRouter, Cookie, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mvnobox.bss import balances, catalog, orders, sims
from mvnobox.bss.context import Context, TmfError
from mvnobox.spec import BrandSpec

# Beside the package in an image, at the project's top in a checkout.
_PLACES = (Path(__file__).resolve().parents[3] / "templates", Path(__file__).resolve().parents[2] / "templates")
POLICY = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def _templates() -> Path:
    return next(place / "portal" for place in _PLACES if (place / "portal").is_dir())


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_templates()), undefined=StrictUndefined, autoescape=True)


@cache
def _texts() -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = yaml.safe_load((_templates() / "texts.yaml").read_text(encoding="utf-8"))
    return texts


def choose_locale(brand: BrandSpec, accept: str) -> str:
    """The brand's locale that fits an Accept-Language header (RFC 9110 section 12.5.4), else its first."""
    for part in accept[:200].split(","):
        tag = part.split(";")[0].strip()
        for locale in brand.locales:
            if tag == locale or (tag and locale.startswith(tag.split("-")[0] + "-")):
                return locale
    return brand.locales[0]


def octets_text(value: int) -> str:
    """An amount of data as people read it."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= factor:
            return f"{value / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value} B"


def make_router(context: Context) -> APIRouter:
    """The portal's pages."""
    router = APIRouter(include_in_schema=False)
    brand = context.brand

    def page(name: str, locale: str, status: int = 200, **values: Any) -> Response:
        language = locale.split("-")[0]
        texts = _texts().get(language) or _texts()["en"]
        html = (
            _environment()
            .get_template(name)
            .render(brand=brand, locale=locale, t=texts, octets=octets_text, local=lambda x: x.get(locale), **values)
        )
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}
        return Response(html, status, headers, "text/html; charset=utf-8")

    def locale_of(request: Request) -> str:
        wanted = request.query_params.get("lang", "")
        if wanted in brand.locales:
            return wanted
        return choose_locale(brand, request.headers.get("accept-language", ""))

    @router.get("/")
    async def home(request: Request, csrf: Annotated[str | None, Cookie()] = None) -> Response:
        token = csrf or secrets.token_urlsafe(24)
        plans = [plan for plan in brand.plans if plan.sellable]
        response = page("home.html.j2", locale_of(request), plans=plans, csrf=token, error=None)
        response.set_cookie("csrf", token, httponly=True, samesite="strict")
        return response

    @router.get("/theme.css")
    async def theme() -> Response:
        css = _environment().get_template("theme.css.j2").render(theme=brand.theme)
        return Response(css, media_type="text/css")

    @router.post("/order")
    async def order(request: Request, csrf: Annotated[str | None, Cookie()] = None) -> Response:
        form = {key: value[0] for key, value in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
        locale = locale_of(request)
        plans = [plan for plan in brand.plans if plan.sellable]
        if not csrf or not hmac.compare_digest(form.get("csrf", "").encode(), csrf.encode()):
            return page("home.html.j2", locale, 403, plans=plans, csrf=csrf or "", error="form_expired")
        try:
            body = orders.OrderCreate.model_validate(
                {
                    "productOrderItem": [{"productOffering": {"id": form.get("plan", "")}}],
                    "relatedParty": [
                        {
                            "givenName": form.get("given", ""),
                            "familyName": form.get("family", ""),
                            "preferredLocale": locale,
                            "contactMedium": [
                                {"mediumType": "email", "characteristic": {"emailAddress": form.get("email", "")}}
                            ],
                        }
                    ],
                }
            )
            made, _ = await orders.place(context, body, operator=False)
        except (ValueError, TmfError):
            return page("home.html.j2", locale, 400, plans=plans, csrf=csrf, error="form_invalid")
        token = await context.pool.fetchval("SELECT token FROM product_order WHERE id = $1", uuid.UUID(made["id"]))
        return Response(status_code=303, headers={"Location": f"/my/{token}?lang={locale}"})

    @router.get("/my/{token}")
    async def mine(token: str, request: Request) -> Response:
        row = await context.pool.fetchrow(
            """SELECT o.state, o.plan, p.id AS product, p.iccid, p.msisdn FROM product_order o
               LEFT JOIN product p ON p.order_id = o.id WHERE o.token = $1""",
            token,
        )
        locale = locale_of(request)
        if row is None:
            return page("missing.html.j2", locale, 404)
        code = qr = None
        totals: list[Any] = []
        if row["iccid"] is not None:
            code = (await sims.activation(context, row["iccid"]))["activationCode"]
            qr = "data:image/svg+xml;base64," + base64.b64encode(sims.qr_svg(code)).decode()
            try:
                totals = (await balances.accumulated(context, row["product"]))["totalBalance"]
            except TmfError:
                totals = []
        plan = brand.plan(row["plan"])
        return page(
            "mine.html.j2", locale, order=row, plan=plan, code=code, qr=qr, totals=totals, unlimited=catalog.UNLIMITED
        )

    return router
