"""Rates, zones, bands and destinations in a brand's file: what is taken, what is refused and how, what the OCS gets."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mvnobox.charging.rating.document import Rating
from mvnobox.cli.main import app
from mvnobox.spec import InvalidSpec, load_brand, parse_brand, rating_document

ROOT = Path(__file__).resolve().parents[3]
ENCORE = yaml.safe_load((ROOT / "brands/encore.yaml").read_text(encoding="utf-8"))


def changed(path: str, value: Any) -> str:
    data = copy.deepcopy(ENCORE)
    *way, last = path.split(".")
    place: Any = data
    for part in way:
        place = place[int(part)] if part.isdigit() else place[part]
    place[int(last) if last.isdigit() else last] = value
    return yaml.safe_dump(data, allow_unicode=True)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("plans.0.rates.0.zones", ["moon"], "one of roamingZones: usa, home, elsewhere"),
        ("plans.0.rates.0.at", ["dawn"], "one of timeBands: evening, other"),
        ("plans.0.rates.0", {"service": "voice", "to": ["nobody"]}, "one of destinationGroups"),
        ("plans.0.rates.0", {"service": "data", "to": ["other"]}, "data has no destination"),
        ("plans.0.rates.0", {"service": "voice", "free": True, "price": "1"}, "is free and has a price"),
        ("plans.0.rates.0", {"service": "voice", "step": "60 s"}, "has step but no price"),
        ("plans.0.rates.0", {"service": "voice", "price": 0.1}, "in quotes"),
        ("plans.0.rates.0", {"service": "voice", "price": "0.1", "per": "1 MB"}, "is not a duration"),
        ("plans.0.rates.0", {"service": "data", "price": "0.1", "per": "60 s"}, "is not an amount of data"),
        ("plans.0.rates.0", {"service": "sms", "price": "0.1", "per": "1 MB"}, "is not a number of messages"),
        ("plans.0.rates.0", {"service": "voice", "price": "-1"}, "greater than or equal to 0"),
        ("plans.0.rates.0", {"service": "voice", "price": "0.0000001"}, "6 decimal places"),
        ("plans.0.rates.0", {"service": "mms"}, "'data', 'voice' or 'sms'"),
        ("timeBands", [{"id": "aa", "start": "20:00", "end": "02:00"}, {"id": "bb", "start": "01:00", "end": "03:00"}], "overlap"),
        ("timeBands.0.id", "other", "the kit has this one itself"),
        ("roamingZones.0.id", "home", "the kit has this one itself"),
        ("roamingZones.0.networks", ["310", "310"], "once"),
        ("roamingZones.0.networks", ["31"], "text of the form"),
        ("topUps.2.adds", {"balance": "0"}, "greater than 0"),
        ("lowBalance", "0", "greater than 0"),
        ("plans.0.credit", "0", "greater than 0"),
        ("plans.1.credit", "5.00", "nothing that it could pay"),
        ("destinationGroups", [{"id": "none", "name": {"en-CA": "x", "fr-CA": "x"}}], "neither numbers nor prefixes"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(path: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidSpec, match=r"(?s).*") as refused:
        parse_brand(changed(path, value), "encore.yaml")
    assert said in str(refused.value)


def test_the_ocs_takes_every_brand_of_ours() -> None:
    for file in sorted((ROOT / "brands").glob("*.yaml")):
        brand = load_brand(file)
        rating = Rating.model_validate(rating_document(brand))
        assert set(rating.tariffs) == {*(plan.id for plan in brand.plans), "verification"}


def test_prices_are_exact() -> None:
    brand = parse_brand(
        changed("plans.0.rates", [{"service": "data", "price": "0.000001", "per": "1 GB", "step": "1 MB"}]), "x.yaml"
    )
    [rule] = rating_document(brand)["tariffs"]["backstage"]
    # A millionth of a dollar is a ten-thousandth of a cent: a hundred millionths.
    assert (rule["price"], rule["per"], rule["step"], rule["minimum"]) == (100, 10**9, 10**6, 0)


def test_free_destinations_come_first() -> None:
    document = rating_document(load_brand(ROOT / "brands/silverline.yaml"))
    rules = document["tariffs"]["serenite"]
    assert [(rule["service"], rule["destinations"], rule["free"]) for rule in rules] == [
        ("voice", ["residences"], True),
        ("sms", ["residences"], True),
    ]
    assert {"112", "15", "3919"} <= set(document["emergency"])


def explain(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["rate", "explain", *arguments])


def test_explain_on_the_command_line() -> None:
    asked = ("--brand", "encore", "--plan", "backstage", "--voice", "95 s", "--visited", "310260", "--balance", "5.00")
    done = explain(*asked, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["cost"], found["zone"], found["rule"], found["unpaid"]) == ("0.65", "usa", "backstage.rates[5]", 0)
    assert found["tax"]["withTax"] == "0.68"
    assert "0.65 CAD" in explain(*asked).output
    free = explain("--plan", "serenite", "--voice", "1 h", "--to", "0140000001", "--json")
    assert json.loads(free.stdout)["cost"] == "0.00"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plan", "gone", "--sms", "1"), "no plan"),
        (("--plan", "serenite"), "one use at a time"),
        (("--plan", "serenite", "--sms", "1", "--data", "1 MB"), "one use at a time"),
        (("--plan", "serenite", "--voice", "70"), "no unit|is not a duration"),
        (("--plan", "serenite", "--sms", "0"), "not a number of messages"),
        (("--plan", "serenite", "--sms", "1", "--visited", "moon"), "not a network"),
        (("--plan", "serenite", "--sms", "1", "--at", "noon"), "not a time"),
        (("--plan", "serenite", "--sms", "1", "--balance", "much"), "not an amount of money"),
        (("--plan", "serenite", "--data", "1 MB", "--to", "112"), "no destination"),
    ],
)
def test_explain_refuses_what_it_cannot_ask(arguments: tuple[str, ...], said: str) -> None:
    done = explain(*arguments)
    assert done.exit_code != 0
    assert re.search(said, str(done.exception))
