"""Country packs: complete, and true to the numbering plans."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from mvnobox.spec import country, country_codes


@pytest.mark.parametrize("code", ["FR", "CA", "DE"])
def test_packs_are_whole(code: str) -> None:
    pack = country(code)
    assert code in country_codes() and pack.code == code
    assert "112" in pack.emergency_numbers
    assert pack.default_timezone and ZoneInfo(pack.default_timezone)
    assert all(len(mcc) == 3 for mcc in pack.mobile_country_codes)
    assert pack.locales


def test_identity_is_checked_where_the_law_asks() -> None:
    assert {code: country(code).identity.required_before_activation for code in ("FR", "CA", "DE")} == {
        "FR": True,
        "CA": False,
        "DE": True,
    }


@pytest.mark.parametrize(
    ("code", "number", "own"),
    [
        ("FR", "+33639981234", True),
        ("FR", "+33612345678", True),
        ("FR", "+33140000001", False),
        ("FR", "+14165550123", False),
        ("CA", "+14165550123", True),
        ("CA", "+12025550123", False),
        ("DE", "+4915112345678", True),
        ("DE", "+493012345678", False),
        ("DE", "nonsense", False),
    ],
)
def test_own_mobile_numbers(code: str, number: str, own: bool) -> None:
    assert country(code).is_own_number(number) is own


def test_a_country_without_a_pack_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        country("XX")
