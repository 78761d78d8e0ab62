"""The portal as a browser meets it: forms that come from it, names that are no markup, headers, languages, a customer's page."""

from __future__ import annotations

import html.parser
import itertools
import re
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from mvnobox.bss import portal
from mvnobox.spec import load_brand
from mvnobox.spec.colour import contrast

from .conftest import ROOT, Bss, line, until

FORM = {"plan": "essentiel", "given": "Zoé", "family": "Martin", "email": "zoe@example.org"}


def csrf(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


class Page(html.parser.HTMLParser):
    """What assistive technology needs: labels, headings, language, texts of images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, *names: str) -> list[dict[str, Any]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def accessible(text: str, locale: str) -> None:
    page = Page(text)
    assert page.all("html")[0]["lang"] == locale and len(page.all("h1")) == len(page.all("main")) == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {a.get("for") for a in page.all("label")}
    for field in page.all("input"):
        assert field["type" if "type" in field else "name"] in ("hidden", "radio") or field["id"] in labelled
    assert all(image.get("alt") for image in page.all("img"))
    assert all(set(bar["aria-labelledby"].split()) <= set(ids) for bar in page.all("progress"))
    assert not page.all("script", "style", "iframe") and not any("style" in a for _, a in page.tags)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("locale", ["fr-FR", "en-GB"])
async def test_the_first_page(alpha: Bss, locale: str) -> None:
    async with alpha.public() as client:
        page = await client.get("/", params={"lang": locale})
    assert page.status_code == 200
    accessible(page.text, locale)
    assert ("7,99" if locale == "fr-FR" else "€7.99") in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    cookie = page.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie


async def test_every_answer_has_headers_that_protect(alpha: Bss) -> None:
    async with alpha.public() as client:
        for path in ("/", "/theme.css", "/my/x", "/healthz", "/nothing", "/tmf-api/productInventory/v4/product"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
            assert "content-security-policy" in headers and headers["referrer-policy"] == "same-origin"


async def test_forms_from_elsewhere_are_refused(alpha: Bss, database: asyncpg.Connection) -> None:
    before = await database.fetchval("SELECT count(*) FROM bss_alpha.product_order")
    async with alpha.public() as client:
        assert (await client.post("/order", data=FORM)).status_code == 403
        page = await client.get("/")
        for token in ("", "x", csrf(page)[:-1], csrf(page) + "x", "é"):
            assert (await client.post("/order", data={**FORM, "csrf": token})).status_code == 403
    async with alpha.public() as other:
        refused = await other.post("/order", data={**FORM, "csrf": csrf(page)})
        assert refused.status_code == 403 and 'role="alert"' in refused.text and "Martin" in refused.text
        # The page that says so is a form that works.
        placed = await other.post("/order", data={**FORM, "csrf": csrf(refused)})
        assert placed.status_code == 303
    # A cookie that somebody else planted is not taken over.
    async with alpha.public() as victim:
        victim.cookies.set("csrf", "planted")
        assert (await victim.post("/order", data={**FORM, "csrf": "planted"})).status_code == 403
    assert await database.fetchval("SELECT count(*) FROM bss_alpha.product_order") == before + 1


@pytest.mark.parametrize(
    "change",
    [
        {"plan": "verification"},
        {"plan": "gold"},
        {"given": ""},
        {"given": "x" * 5000},
        {"email": "<script>"},
        {"email": ""},
        {"family": "a\x00"},
    ],
)
async def test_forms_that_are_wrong(alpha: Bss, change: dict[str, str]) -> None:
    async with alpha.public() as client:
        token = csrf(await client.get("/"))
        answer = await client.post("/order", data={**FORM, **change, "csrf": token})
        assert answer.status_code == 400 and 'role="alert"' in answer.text
        assert "<script>" not in answer.text
        assert (await client.post("/order", content=b"&".join([b"a=1"] * 500))).status_code == 403


async def test_names_are_no_markup(alpha: Bss) -> None:
    bad = '"><img src=x onerror=alert(1)>'
    async with alpha.public() as client:
        token = csrf(await client.get("/"))
        answer = await client.post("/order", data={**FORM, "given": bad, "plan": "gold", "csrf": token})
        assert answer.status_code == 400 and "<img src=x" not in answer.text and "&lt;img src=x" in answer.text
        assert "<script" not in (await client.get("/", params={"lang": '"><script>'})).text
        assert (await client.get("/my/<script>alert(1)</script>")).status_code == 404


async def test_a_customers_page(alpha: Bss, a: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    mine = await line(a, "essentiel")
    token = await database.fetchval(
        "SELECT token FROM bss_alpha.product_order o JOIN bss_alpha.product p ON p.order_id = o.id WHERE p.id = $1",
        uuid.UUID(mine["id"]),
    )
    path = f"/my/{token}"
    async with alpha.public() as client:
        page = await client.get(path, params={"lang": "fr-FR"})
        accessible(page.text, "fr-FR")
        assert "1\u00a0Go sur 1\u00a0Go" in page.text and "120\u00a0min" in page.text and "LPA:1$" in page.text
        request = re.search(r'name="request" value="([^"]+)"', page.text)
        assert request
        form = {"csrf": csrf(page), "offer": "recharge-1go", "request": request[1]}
        refused = await client.post(f"{path}/top-up", data={**form, "csrf": "x"})
        assert refused.status_code == 303 and "form_expired" in refused.headers["location"]
        for _ in range(2):
            bought = await client.post(f"{path}/top-up", data=form)
            assert bought.status_code == 303 and "topup_done" in bought.headers["location"]
        after = await client.get(bought.headers["location"], params={"lang": "fr-FR", "notice": "topup_done"})
        assert "2\u00a0Go sur 2\u00a0Go" in after.text and 'role="status"' in after.text
        wrong = await client.post(f"{path}/top-up", data={**form, "offer": "gold", "request": str(uuid.uuid4())})
        assert "topup_failed" in wrong.headers["location"]
    await a.patch(f"/tmf-api/productInventory/v4/product/{mine['id']}", json={"status": "suspended"})
    async with alpha.public() as client:
        page = await client.get(path, params={"lang": "en-GB"})
        assert "suspended" in page.text and 'name="offer"' not in page.text


async def test_what_is_paid_beforehand_is_not_given_away(
    beta: Bss, b: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    mine = await line(b, "backstage")
    token = await database.fetchval(
        "SELECT token FROM bss_beta.product_order o JOIN bss_beta.product p ON p.order_id = o.id WHERE p.id = $1",
        uuid.UUID(mine["id"]),
    )
    async with beta.public() as client:
        page = await client.get(f"/my/{token}")
        assert 'name="offer"' not in page.text and "One more song" in page.text
        token_of_form = csrf(await client.get("/"))
        form = {"csrf": token_of_form, "offer": "encore-1gb", "request": str(uuid.uuid4())}
        await client.post(f"/my/{token}/top-up", data=form)
    assert await database.fetchval("SELECT count(*) FROM bss_beta.topup WHERE product = $1", uuid.UUID(mine["id"])) == 0


async def test_an_order_by_form_is_prepared_while_the_page_waits(beta: Bss) -> None:
    async with beta.public() as client:
        token = csrf(await client.get("/"))
        placed = await client.post("/order", data={**FORM, "plan": "backstage", "csrf": token})
        assert placed.status_code == 303

        async def ready() -> bool:
            return "LPA:1$" in (page := (await client.get(placed.headers["location"])).text) and "refresh" not in page

        await until(ready)


def test_texts_are_there_in_every_language() -> None:
    texts = yaml.safe_load((ROOT / "templates/portal/texts.yaml").read_text())
    assert all(set(one) == set(texts["en"]) and all(one.values()) for one in texts.values())
    assert all("{n}" in one[f"each_{unit}"] for one in texts.values() for unit in "DWM")


@pytest.mark.parametrize("file", sorted((ROOT / "brands").glob("*.yaml")), ids=lambda path: Path(path).stem)
def test_colours_are_legible(file: Path) -> None:
    brand = load_brand(file)
    made = portal.colours(brand)
    assert contrast(made["on_primary"], brand.theme.primary) >= 4.5
    assert min(contrast(c, made["faint"]) for c in (brand.theme.text, brand.theme.primary)) >= 4.5


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (1_999_999_999, "1.9 GB"), (10**9, "1 GB"), (1_500_000, "1.5 MB")]
)
def test_amounts_promise_no_more_than_there_is(value: int, text: str) -> None:
    assert portal.octets_text(value) == text
