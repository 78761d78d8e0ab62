"""Whatever fits the OpenAPI document that is served, and much that does not: every answer is one that it foresees."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import Case, GenerationMode

KEY = "11" * 32
BRAND = "fuzzed"
IMSI = "imsi-208930000009999"
LINE = {"subscriberIds": [IMSI], "currency": "EUR"}
NCHF = "/nchf-convergedcharging/v3/chargingdata"
ACCOUNT = "/ocs/v1/accounts/{account_id}"
OPERATIONS = [
    ("POST", NCHF),
    ("POST", NCHF + "/{ChargingDataRef}/update"),
    ("POST", NCHF + "/{ChargingDataRef}/release"),
    ("PUT", "/ocs/v1/rating"),
    ("GET", "/ocs/v1/rating"),
    ("PUT", ACCOUNT),
    ("PATCH", ACCOUNT),
    ("POST", ACCOUNT + "/grants"),
    ("GET", ACCOUNT + "/balances"),
    ("GET", ACCOUNT + "/usage"),
    ("GET", "/ocs/v1/events"),
    ("POST", "/ocs/v1/events/taken"),
]
HEADERS = {
    "Authorization": f"Bearer {BRAND}.{hmac.new(bytes.fromhex(KEY), BRAND.encode(), hashlib.sha256).hexdigest()}"
}
EXAMPLES = 40


@pytest.fixture(scope="module")
def api(shared: Any) -> Iterator[tuple[Any, httpx.Client]]:
    """The document of a running replica, and a client of a brand that has an account with an open session."""
    url = f"http://127.0.0.1:{shared.ports[0]}"
    with httpx.Client(base_url=url, headers=HEADERS, timeout=15) as client:
        assert client.put("/ocs/v1/accounts/a1", json=LINE).status_code == 201
        bucket = {"unit": "octets", "amount": 10**12, "source": "plan:fuzz"}
        grant = {"requestId": str(uuid.uuid4()), "buckets": [bucket]}
        assert client.post("/ocs/v1/accounts/a1/grants", json=grant).status_code == 200
        yield schemathesis.openapi.from_url(f"{url}/openapi.json"), client


def _has_floats(value: Any) -> bool:
    """2.0 is an integer to JSON Schema; the OCS takes 2."""
    if isinstance(value, dict | list):
        return any(map(_has_floats, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float)


def _meet_what_is_there(case: Case, number: int, session: str) -> None:
    """What a document cannot say: names of zones, numbers that are not used twice; and what exists, half of the time."""
    body = case.body if isinstance(case.body, dict) else {}
    if "timezone" in body:
        body["timezone"] = "Europe/Paris"
    for bucket in body.get("buckets", []):
        bucket["validUntil"] = None  # an offset of twenty hours is one to JSON Schema
        bucket.pop("rollover", None)
        if bucket.get("credit"):
            bucket.update(unit="minor", throttle=None)  # credit is of money
    for rules in body.get("tariffs", {}).values():
        for rule in rules:
            rule.update(zones=None, destinations=["other"], bands=None)
    if "invocationSequenceNumber" in body:
        body["invocationSequenceNumber"] = number
    if number % 2:
        if "ChargingDataRef" in case.path_parameters:
            case.path_parameters["ChargingDataRef"] = session
        elif "account_id" in case.path_parameters:
            case.path_parameters["account_id"] = "a1"
        elif "nfConsumerIdentification" in body:
            body["subscriberIdentifier"] = IMSI


def test_every_operation_is_in_the_document(api: Any) -> None:
    found = {one.ok() for one in api[0].get_all_operations()}
    assert sorted((one.method.upper(), one.path) for one in found) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fit", "unfit"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_documented(api: Any, method: str, path: str, mode: GenerationMode) -> None:
    document, client = api
    if path == "/ocs/v1/events" and mode is GenerationMode.NEGATIVE:
        return  # a query parameter that nobody knows is ignored
    # An account that an earlier case has terminated has no subscribers until it is put again.
    assert client.put("/ocs/v1/accounts/a1", json=LINE).status_code == 200
    opened = client.post(
        NCHF,
        json={
            "subscriberIdentifier": IMSI,
            "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
            "chargingId": uuid.uuid4().int % 2**32,
            "invocationTimeStamp": "2026-01-01T00:00:00Z",
            "invocationSequenceNumber": 0,
        },
    )
    assert opened.status_code == 201
    seen, done = 0, 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=document[path][method].as_strategy(generation_mode=mode))
    def each(case: Case) -> None:
        nonlocal seen, done
        seen += 1
        if mode is GenerationMode.POSITIVE:
            assume(not _has_floats(case.body))
            _meet_what_is_there(case, seen, opened.headers["location"].rsplit("/", 1)[1])
        answer = case.call(base_url=str(client.base_url), headers=HEADERS)
        if answer.status_code == 413:
            return
        case.validate_response(answer)
        done += answer.status_code < 300

    each()
    assert done > 0 or mode is GenerationMode.NEGATIVE, "nothing was done"
