"""Parts of the BSS that need no other service: identities, keys at rest, periods, pages' languages."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import cryptography.exceptions
import pytest

from mvnobox.bss import catalog, periods, portal, sims
from mvnobox.bss.fulfilment import subscriber_document
from mvnobox.spec import load_brand

BRAND = load_brand(Path(__file__).resolve().parents[3] / "brands/silverline.yaml")


def test_luhn_digit_of_the_standards_example() -> None:
    assert sims.luhn_digit("7992739871") == "3"


@pytest.mark.parametrize("digits", ["893310021000000000", "8913029980000001", "0"])
def test_numbers_with_their_digit_satisfy_luhn(digits: str) -> None:
    total = sum(
        d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2)
        for i, d in enumerate(int(c) for c in reversed(digits + sims.luhn_digit(digits)))
    )
    assert total % 10 == 0


def test_iccids_have_19_digits_and_differ() -> None:
    made = {sims.iccid_of(33, "93", number) for number in range(1, 200)}
    assert len(made) == 199 and {len(one) for one in made} == {19}
    assert all(one.startswith("893393") for one in made)


def test_keys_at_rest_open_only_with_their_key_and_for_their_sim() -> None:
    data = sims.encrypt_keys(bytes(32), "8933", {"ki": "00", "opc": "11"})
    assert b"ki" not in data
    assert sims.decrypt_keys(bytes(32), "8933", data) == {"ki": "00", "opc": "11"}
    for key, iccid in ((b"\1" * 32, "8933"), (bytes(32), "8934")):
        with pytest.raises(cryptography.exceptions.InvalidTag):
            sims.decrypt_keys(key, iccid, data)


@pytest.mark.parametrize(
    ("start", "period", "end"),
    [
        ("2026-01-31", "P1M", "2026-02-28"),
        ("2028-01-31", "P1M", "2028-02-29"),
        ("2026-12-15", "P1M", "2027-01-15"),
        ("2026-03-31", "P1M", "2026-04-30"),
        ("2026-01-01", "P30D", "2026-01-31"),
        ("2026-01-01", "P2W", "2026-01-15"),
    ],
)
def test_periods_end_where_people_expect(start: str, period: str, end: str) -> None:
    begun = dt.datetime.fromisoformat(start).replace(tzinfo=dt.UTC)
    assert periods.ahead(begun, period).date().isoformat() == end


@pytest.mark.parametrize(
    ("accept", "locale"),
    [("", "fr-FR"), ("en-US,en;q=0.9", "en-GB"), ("de", "fr-FR"), ("xx;q=1, fr-CA", "fr-FR"), ("," * 500, "fr-FR")],
)
def test_languages(accept: str, locale: str) -> None:
    assert portal.choose_locale(BRAND, accept) == locale


def test_open5gs_document_of_a_plan() -> None:
    document = subscriber_document(BRAND, BRAND.plans[0])
    assert document["ambr"] == {"downlink": {"value": 50, "unit": 2}, "uplink": {"value": 10, "unit": 2}}
    assert document["slice"][0]["sd"] == "000001" and document["slice"][0]["session"][0]["name"] == "silverline"
    assert not {"security", "imsi", "msisdn"} & set(document)
    # IPv4; both where the data network has addresses of both.
    assert document["slice"][0]["session"][0]["type"] == 1
    networks = [network.model_copy(update={"pool6": "fd45:6a70:1c00::/48"}) for network in BRAND.data_networks]
    both = subscriber_document(BRAND.model_copy(update={"data_networks": networks}), BRAND.plans[0])
    assert both["slice"][0]["session"][0]["type"] == 3


def test_fair_use_is_a_slowed_bucket_after_everything_else() -> None:
    until = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    found = {
        one["source"]: one
        for one in catalog.plan_buckets(BRAND, BRAND.plan("serenite"), until)
        if one["unit"] == "octets"
    }
    full, slowed = found["plan:serenite"], found["plan:serenite:slowed"]
    assert (full["amount"], slowed["throttle"]) == (5_000_000_000, "dl=512000;ul=512000")
    assert full["priority"] < slowed["priority"] and "throttle" not in full
    assert slowed["amount"] > 10**15 and slowed["validUntil"] == until.isoformat()
    assert all("throttle" not in one for one in catalog.plan_buckets(BRAND, BRAND.plan("essentiel"), until))
