"""One-time events of Nchf, and what a session's first answer says of failures (TS 32.291)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mvnobox.charging.schemas import ChargingDataResponse

NCHF = "/nchf-convergedcharging/v3/chargingdata"


async def event(tenant: Any, usage: dict[str, Any], kind: str | None = "IEC", **more: Any) -> dict[str, Any]:
    body = {**tenant.body(0, **more), "oneTimeEvent": True, "multipleUnitUsage": [{"ratingGroup": 1, **usage}]}
    if kind:
        body["oneTimeEventType"] = kind
    answers = await asyncio.gather(*(client.post(NCHF, json=body) for client in (tenant.one, tenant.two) * 2))
    assert {(one.status_code, one.content) for one in answers} == {(201, answers[0].content)}
    assert ChargingDataResponse.model_validate_json(answers[0].content).invocation_sequence_number == 0
    (told,) = answers[0].json()["multipleUnitInformation"]
    where = answers[0].headers["location"]
    late = await tenant.one.post(f"{where}/update", json=tenant.body(5))
    assert late.json()["multipleUnitInformation"][0]["resultCode"] == "END_USER_SERVICE_DENIED"
    return told  # type: ignore[no-any-return]


async def test_an_event_is_charged_at_once_and_holds_nothing(tenant: Any) -> None:
    await tenant.put(2500)
    # More than a session's quota: an event gets all that it asks for.
    told = await event(tenant, {"requestedUnit": {"totalVolume": 1700}}, chargingId=1)
    assert told == {"ratingGroup": 1, "resultCode": "SUCCESS", "grantedUnit": {"totalVolume": 1700}}
    assert await tenant.totals() == (2500, 1700, 0, 800)
    told = await event(tenant, {"requestedUnit": {"totalVolume": 801}}, chargingId=2)
    assert told == {"ratingGroup": 1, "resultCode": "QUOTA_LIMIT_REACHED"}
    assert await tenant.totals() == (2500, 1700, 0, 800)
    told = await event(tenant, {"requestedUnit": {}}, None, chargingId=3)
    assert told["resultCode"] == "QUOTA_LIMIT_REACHED", "1000 is the size of an event that says none"


async def test_what_an_event_has_used_already_counts(tenant: Any) -> None:
    await tenant.put(2500)
    used = {"usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": 600}], "requestedUnit": {}}
    assert await event(tenant, used, "PEC") == {"ratingGroup": 1, "resultCode": "SUCCESS"}
    assert await tenant.totals() == (2500, 600, 0, 1900)


async def test_an_event_is_all_or_nothing_over_its_groups(tenant: Any) -> None:
    await tenant.put(2500)
    body = {**tenant.body(0), "oneTimeEvent": True, "oneTimeEventType": "IEC"}
    for group, code in ((3, "QUOTA_LIMIT_REACHED"), (99, "RATING_FAILED")):
        body["multipleUnitUsage"] = [
            {"ratingGroup": 1, "requestedUnit": {"totalVolume": 5}},
            {"ratingGroup": group, "requestedUnit": {"time": 5}},
        ]
        answer = await tenant.one.post(NCHF, json={**body, "chargingId": group})
        codes = [one["resultCode"] for one in answer.json()["multipleUnitInformation"]]
        assert codes == ["QUOTA_LIMIT_REACHED", code]
        assert await tenant.totals() == (2500, 0, 0, 2500)


@pytest.mark.parametrize("wrong", [{"oneTimeEvent": "yes"}, {"oneTimeEventType": "LATER"}])
async def test_events_of_no_kind_are_refused(tenant: Any, wrong: dict[str, Any]) -> None:
    await tenant.put(2500)
    assert (await tenant.one.post(NCHF, json={**tenant.body(0), **wrong})).status_code == 400


async def test_a_first_answer_says_what_to_do_without_one(tenant: Any) -> None:
    await tenant.put(2500)
    for _ in range(2):
        first = await tenant.one.post(NCHF, json=tenant.body(0, chargingId=4))
        said = ChargingDataResponse.model_validate_json(first.content)
        assert said.invocation_result is not None
        assert said.invocation_result.failure_handling == "RETRY_AND_TERMINATE"
        assert said.session_failover == "FAILOVER_SUPPORTED"
    further = (await tenant.one.post(first.headers["location"] + "/update", json=tenant.body(1))).json()
    assert not {"invocationResult", "sessionFailover"} & set(further)
