"""The Nchf_ConvergedCharging consumer (TS 32.291) over HTTP/2 with prior knowledge, one connection kept."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import httpx

from mvnobox.n4.settings import CtfSettings

PATH = "/nchf-convergedcharging/v3/chargingdata"


class OcsUnavailable(Exception):
    """No answer, or one that says nothing about credit; the same request has to be repeated."""


@dataclass(frozen=True)
class Verdict:
    """What the OCS said: octets granted (0: none), whether they are the last, and whether it knows the session at all."""

    granted: int
    final: bool = False
    known: bool = True
    ref: str | None = None


class Nchf:
    """Create, update and release. Repeating a call with the same sequence is safe: the OCS answers it once."""

    def __init__(self, settings: CtfSettings, token: str) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(
            base_url=settings.ocs,
            http1=False,
            http2=True,
            timeout=3.0,
            headers={"Authorization": f"Bearer {token}"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    def _body(self, imsi: str, seid: int, sequence: int, usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "subscriberIdentifier": f"imsi-{imsi}",
            "nfConsumerIdentification": {"nodeFunctionality": "SMF", "nFName": f"ctf-{self._settings.brand}"},
            "chargingId": seid & 0xFFFFFFFF,
            "invocationTimeStamp": dt.datetime.now(dt.UTC).isoformat(),
            "invocationSequenceNumber": sequence,
            "notifyUri": f"{self._settings.notify_uri}/nchf-notify/{seid}",
            "multipleUnitUsage": [{"ratingGroup": self._settings.rating_group, **usage}],
        }

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            response = await self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise OcsUnavailable(type(error).__name__) from None
        if response.status_code >= 500 or response.status_code in (401, 403, 429):
            raise OcsUnavailable(f"HTTP {response.status_code}")
        return response

    async def create(self, imsi: str, seid: int, dnn: str | None) -> Verdict:
        """Open a charging session and ask for the first quota."""
        body = self._body(imsi, seid, 0, {"requestedUnit": {"totalVolume": self._settings.quota_octets}})
        if dnn:
            body["pDUSessionChargingInformation"] = {"pduSessionInformation": {"dnnId": dnn, "pduSessionID": 1}}
        response = await self._post(PATH, body)
        if response.status_code == 404:
            return Verdict(0, known=False)
        if response.status_code != 201:
            raise OcsUnavailable(f"HTTP {response.status_code}")
        return _verdict(response, ref=response.headers["location"].rsplit("/", 1)[1])

    async def report(
        self, imsi: str, seid: int, ref: str, sequence: int, used: tuple[int, int, int], *, release: bool
    ) -> Verdict:
        """Report use (total, uplink, downlink octets); unless it is the release, ask for more."""
        usage: dict[str, Any] = {}
        if used[0]:
            usage["usedUnitContainer"] = [
                {
                    "localSequenceNumber": sequence,
                    "totalVolume": used[0],
                    "uplinkVolume": used[1],
                    "downlinkVolume": used[2],
                }
            ]
        if not release:
            usage["requestedUnit"] = {"totalVolume": self._settings.quota_octets}
        body = self._body(imsi, seid, sequence, usage)
        response = await self._post(f"{PATH}/{ref}/{'release' if release else 'update'}", body)
        if response.status_code == 404:
            return Verdict(0, known=False)
        if response.status_code not in (200, 204):
            raise OcsUnavailable(f"HTTP {response.status_code}")
        return Verdict(0) if release else _verdict(response)


def _verdict(response: httpx.Response, ref: str | None = None) -> Verdict:
    """The grant in an answer. Raises OcsUnavailable where it is not what TS 32.291 says."""
    try:
        units = [unit for unit in response.json()["multipleUnitInformation"] if unit["resultCode"] == "SUCCESS"]
        granted = sum(int(unit.get("grantedUnit", {}).get("totalVolume", 0)) for unit in units)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OcsUnavailable(f"an answer that is no ChargingDataResponse: {type(error).__name__}") from None
    return Verdict(granted, any("finalUnitIndication" in unit for unit in units), ref=ref)
