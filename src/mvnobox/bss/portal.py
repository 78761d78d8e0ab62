"""The brand's portal: server-rendered pages in its colours and languages, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import uuid
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import phonenumbers
import yaml
from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mvnobox.bss import balances, catalog, orders, sims
from mvnobox.bss.context import Context, Exhausted, TmfError
from mvnobox.bss.incoming import OrderCreate
from mvnobox.spec import BrandSpec
from mvnobox.spec.colour import contrast

# Beside the package in an image, at the project's top in a checkout.
_PLACES = (Path(__file__).resolve().parents[3] / "templates", Path(__file__).resolve().parents[2] / "templates")
POLICY = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")
_LANGUAGES = {"en": "English", "fr": "Français", "de": "Deutsch"}
_NOTICES = ("form_expired", "topup_done", "topup_soon", "topup_failed")


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


def octets_text(value: int, mark: str = ".", unit: str = "B") -> str:
    """An amount of data as people read it; `mark` is the decimal mark, `unit` the octet's letter."""
    for prefix, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= factor:
            # Down, so that nobody is promised more than there is.
            tenths = value * 10 // factor
            whole, rest = divmod(tenths, 10)
            return f"{whole}{mark}{rest}".removesuffix(f"{mark}0") + f" {prefix}{unit}"
    return f"{value} {unit}"


class Words:
    """How a locale writes amounts."""

    def __init__(self, brand: BrandSpec, locale: str) -> None:
        self._brand, self._locale, self._language = brand, locale, locale.split("-")[0]
        self._mark = "." if self._language == "en" else ","

    def money(self, amount: Decimal) -> str:
        """A price in the brand's currency."""
        currency = self._brand.effective_currency
        sign = {"EUR": "€", "GBP": "£"}.get(currency, "$" if currency.endswith("D") else currency)
        number = f"{amount:.{self._brand.pack.currency_minor_digits}f}".replace(".", self._mark)
        return f"{sign}{number}" if self._language == "en" and len(sign) == 1 else f"{number}\u00a0{sign}"

    def amount(self, unit: str, value: int) -> str:
        """An amount of a ledger's unit."""
        if unit == "octets":
            return octets_text(value, self._mark, "o" if self._language == "fr" else "B").replace(" ", "\u00a0")
        if unit == "seconds":
            return f"{value // 60}\u00a0min"
        if unit == "minor":
            return self.money(Decimal(value).scaleb(-self._brand.pack.currency_minor_digits))
        return str(value)


def phone_number(msisdn: str) -> str:
    """A number as its country writes it internationally."""
    try:
        return phonenumbers.format_number(
            phonenumbers.parse(f"+{msisdn}"), phonenumbers.PhoneNumberFormat.INTERNATIONAL
        ).replace(" ", "\u00a0")
    except phonenumbers.NumberParseException:
        return f"+{msisdn}"


def usage_of(words: Words, totals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a customer sees of the balances: {unit, unlimited, left, granted, percent}."""
    made = []
    for total in totals:
        unit = total["units"]
        # What has lapsed is nobody's any more.
        left = max(total["amount"] + total["reserved"], 0)
        granted = max(total["granted"] - total.get("expired", 0), left, 1)
        made.append(
            {
                "unit": unit,
                "unlimited": unit in catalog.UNLIMITED and total["granted"] >= min(catalog.UNLIMITED[unit], 2**53),
                "left": words.amount(unit, left),
                "granted": words.amount(unit, granted),
                "percent": left * 100 // granted,
            }
        )
    return made


def _mixed(one: str, other: str, share: float) -> str:
    pairs = zip(*(bytes.fromhex(colour[1:]) for colour in (one, other)), strict=True)
    return "#" + bytes(round(a * share + b * (1 - share)) for a, b in pairs).hex()


def colours(brand: BrandSpec) -> dict[str, str]:
    """Colours that follow from the theme: legible text on the primary colour, a faint tint for areas."""
    theme = brand.theme
    candidates = (theme.background, "#ffffff", "#000000")
    on_primary = max(candidates, key=lambda c: (contrast(c, theme.primary) >= 4.5, contrast(c, theme.primary)))
    # As strong a tint as leaves the text and the links on it legible.
    tints = (_mixed(theme.primary, theme.background, share) for share in (0.1, 0.07, 0.04, 0.02))
    legible = (t for t in tints if contrast(theme.text, t) >= 4.5 and contrast(theme.primary, t) >= 4.5)
    return {"on_primary": on_primary, "faint": next(legible, theme.background)}


def make_router(context: Context) -> APIRouter:
    """The portal's pages."""
    router = APIRouter(include_in_schema=False)
    brand = context.brand
    secure = context.public_url.startswith("https:")

    def page(request: Request, name: str, status: int = 200, **values: Any) -> Response:
        locale = locale_of(request)
        texts = _texts().get(locale.split("-")[0]) or _texts()["en"]
        token = request.cookies.get("csrf", "")
        if not _TOKEN.fullmatch(token):
            token = secrets.token_urlsafe(24)
        values = {"refresh": None, "here": "/", "csrf": token, **values}
        words = Words(brand, locale)
        html = (
            _environment()
            .get_template(name)
            .render(
                brand=brand,
                locale=locale,
                languages={one: _LANGUAGES.get(one.split("-")[0], one) for one in brand.locales},
                t=texts,
                money=words.money,
                local=lambda texts: texts.get(locale) or next(iter(texts.values())),
                request_id=uuid.uuid4,
                **values,
            )
        )
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin", "Cache-Control": "no-store"}
        response = Response(html, status, headers, "text/html; charset=utf-8")
        response.set_cookie("csrf", token, httponly=True, samesite="strict", secure=secure)
        return response

    def locale_of(request: Request) -> str:
        wanted = request.query_params.get("lang", "")
        if wanted in brand.locales:
            return wanted
        return choose_locale(brand, request.headers.get("accept-language", ""))

    def home_page(request: Request, status: int = 200, error: str | None = None, **form: str) -> Response:
        return page(
            request,
            "home.html.j2",
            status,
            plans=[plan for plan in brand.plans if plan.sellable],
            error=error,
            form={name: form.get(name, "") for name in ("plan", "given", "family", "email")},
            identity=brand.pack.identity.required_before_activation,
            tax_included=brand.pack.tax.prices_include_tax,
        )

    async def sent(request: Request) -> tuple[dict[str, str], bool]:
        """The form's fields, and whether it comes from a page of ours."""
        text = (await request.body()).decode("utf-8", "replace")
        try:
            form = {key: value[0] for key, value in parse_qs(text, max_num_fields=50).items()}
        except ValueError:
            form = {}
        token = request.cookies.get("csrf", "")
        same = hmac.compare_digest(form.get("csrf", "").encode("utf-8", "replace"), token.encode("utf-8", "replace"))
        return form, bool(_TOKEN.fullmatch(token)) and same

    @router.get("/")
    async def home(request: Request) -> Response:
        return home_page(request)

    @router.get("/theme.css")
    async def theme() -> Response:
        css = _environment().get_template("theme.css.j2").render(theme=brand.theme, **colours(brand))
        return Response(css, media_type="text/css", headers={"Cache-Control": "max-age=300"})

    @router.post("/order")
    async def order(request: Request) -> Response:
        form, ours = await sent(request)
        kept = {name: form.get(name, "")[:254] for name in ("plan", "given", "family", "email")}
        if not ours:
            return home_page(request, 403, "form_expired", **kept)
        medium = {"mediumType": "email", "characteristic": {"emailAddress": kept["email"]}}
        party = {
            "givenName": kept["given"],
            "familyName": kept["family"],
            "preferredLocale": locale_of(request),
            "contactMedium": [medium],
        }
        try:
            body = OrderCreate.model_validate(
                {"productOrderItem": [{"productOffering": {"id": kept["plan"]}}], "relatedParty": [party]}
            )
            if body.related_party[0].email is None:
                raise ValueError("an e-mail address is needed")
            made, _ = await orders.place(context, body, operator=False)
            identity = uuid.UUID(made["id"])
        except Exhausted as error:
            # The order is kept; the customer sees that it failed.
            identity = uuid.UUID(error.reference.rpartition("/")[2])
        except (ValueError, TmfError):
            return home_page(request, 400, "form_invalid", **kept)
        token = await context.pool.fetchval("SELECT token FROM product_order WHERE id = $1", identity)
        return Response(status_code=303, headers={"Location": f"/my/{token}?lang={locale_of(request)}"})

    async def found(token: str) -> Any:
        if not _TOKEN.fullmatch(token):
            return None
        return await context.pool.fetchrow(
            """SELECT o.state, o.plan, p.id AS product, p.iccid, p.msisdn, p.status FROM product_order o
               LEFT JOIN product p ON p.order_id = o.id WHERE o.token = $1 AND o.action = 'add'""",
            token,
        )

    @router.get("/my/{token}")
    async def mine(token: str, request: Request) -> Response:
        row = await found(token)
        if row is None:
            return page(request, "missing.html.j2", 404, title="missing")
        alive = row["product"] is not None and row["status"] != "terminated"
        code = qr = None
        usage: list[Any] = []
        unknown = False
        if alive:
            code = (await sims.activation(context, row["iccid"]))["activationCode"]
            qr = "data:image/svg+xml;base64," + base64.b64encode(sims.qr_svg(code)).decode()
            try:
                totals = (await balances.accumulated(context, row["product"]))["totalBalance"]
                usage = usage_of(Words(brand, locale_of(request)), totals)
            except TmfError:
                unknown = True
        plan = brand.plan(row["plan"])
        notice = request.query_params.get("notice")
        return page(
            request,
            "mine.html.j2",
            order=row,
            plan=plan,
            number=phone_number(row["msisdn"]) if row["msisdn"] else "",
            code=code,
            qr=qr,
            usage=usage,
            unknown=unknown,
            offers=[brand.top_up(one) for one in plan.top_ups] if row["status"] == "active" else [],
            # Nothing takes money here: what is paid beforehand is sold by the operator.
            billed=plan.payment == "postpaid",
            notice=notice if notice in _NOTICES else None,
            problems=("form_expired", "topup_failed"),
            here=f"/my/{token}",
            refresh=3 if row["state"] == "inProgress" else None,
        )

    @router.post("/my/{token}/top-up")
    async def top_up(token: str, request: Request) -> Response:
        row = await found(token)
        if row is None or row["product"] is None:
            return page(request, "missing.html.j2", 404, title="missing")
        form, ours = await sent(request)
        notice = "form_expired"
        if ours and brand.plan(row["plan"]).payment == "postpaid":
            try:
                made, _ = await balances.top_up(
                    context, row["product"], form.get("offer", ""), uuid.UUID(form.get("request", ""))
                )
                notice = {"confirmed": "topup_done", "acknowledged": "topup_soon"}.get(made["status"], "topup_failed")
            except (ValueError, TmfError):
                notice = "topup_failed"
        where = f"/my/{token}?lang={locale_of(request)}&notice={notice}"
        return Response(status_code=303, headers={"Location": where})

    return router
