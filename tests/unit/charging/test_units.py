"""Units that a rating group is not rated in: refused, never free (Nchf)."""

from __future__ import annotations

from typing import Any

import pytest


def container(**units: int) -> list[dict[str, int]]:
    return [{"localSequenceNumber": 1, **units}]


@pytest.mark.parametrize(
    ("group", "usage", "param"),
    [
        (1, {"usedUnitContainer": container(time=60)}, "usedUnitContainer.0"),
        (1, {"usedUnitContainer": container(totalVolume=5) + container(serviceSpecificUnits=1)}, "usedUnitContainer.1"),
        (3, {"usedUnitContainer": container(totalVolume=5, uplinkVolume=5)}, "usedUnitContainer.0"),
        (3, {"usedUnitContainer": container(downlinkVolume=0)}, "usedUnitContainer.0"),
        (1, {"requestedUnit": {"time": 60}}, "requestedUnit"),
        (3, {"requestedUnit": {"totalVolume": 60}}, "requestedUnit"),
    ],
)
async def test_a_wrong_unit_is_refused(tenant: Any, group: int, usage: dict[str, Any], param: str) -> None:
    await tenant.put(2500)
    await tenant.grant(90, unit="seconds")
    where, _ = await tenant.create()
    body = tenant.body(1)
    body["multipleUnitUsage"] = [{"ratingGroup": 9}, {"ratingGroup": group, "requestedUnit": {}, **usage}]
    for verb in ("update", "release"):
        refused = await tenant.one.post(f"{where}/{verb}", json=body)
        assert (refused.status_code, refused.json()["cause"]) == (400, "OPTIONAL_IE_INCORRECT")
        assert [one["param"] for one in refused.json()["invalidParams"]] == [f"multipleUnitUsage.1.{param}"]
    assert await tenant.totals() == (2500, 0, 1000, 1500)
    # Nothing of it was stored: the same number may come once more, put right.
    assert (await tenant.update(where, 1, 70))["resultCode"] == "SUCCESS"


async def test_further_units_beside_the_right_one_are_read_over(tenant: Any) -> None:
    await tenant.put(2500)
    where, _ = await tenant.create()
    body = tenant.body(1)
    body["multipleUnitUsage"] = [
        {
            "ratingGroup": 1,
            "requestedUnit": {"time": 9, "totalVolume": 100},
            "usedUnitContainer": container(time=60, uplinkVolume=30) + container(),
        }
    ]
    answer = await tenant.one.post(f"{where}/update", json=body)
    assert answer.json()["multipleUnitInformation"][0]["grantedUnit"] == {"totalVolume": 100}
    assert await tenant.totals() == (2500, 30, 100, 2370)
