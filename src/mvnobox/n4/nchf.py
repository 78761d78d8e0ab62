"""The Nchf_ConvergedCharging consumer (TS 32.291) over HTTP/2, one connection kept."""

from __future__ import annotations

import datetime as dt
import json
import logging
from dataclasses import dataclass
from typing import Any

from mvnobox.n4.http2 import Http2, NoResponse, Response
from mvnobox.n4.rules import Throttle
from mvnobox.n4.settings import CtfSettings

log = logging.getLogger(__name__)
PATH = "/nchf-convergedcharging/v3/chargingdata"
_SECONDS = 3.0


class OcsUnavailable(Exception):
    """No answer, or one that says nothing about credit; the same request has to be repeated."""


@dataclass(frozen=True)
class Verdict:
    """What the OCS said: octets granted (0: none), whether they are the last, at which rate they go, and whether it knows
    the session at all."""

    granted: int
    final: bool = False
    known: bool = True
    ref: str | None = None
    throttle: Throttle | None = None


class Nchf:
    """Create, update and release. Repeating a call with the same sequence is safe: the OCS answers it once."""

    def __init__(self, settings: CtfSettings, token: str) -> None:
        self._settings = settings
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "accept": "application/json"}
        self._client = Http2(settings.ocs, headers, seconds=_SECONDS)

    async def close(self) -> None:
        await self._client.close()

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

    async def _post(self, path: str, body: dict[str, Any]) -> Response:
        try:
            response = await self._client.post(path, json.dumps(body, separators=(",", ":")).encode())
        except NoResponse as error:
            raise OcsUnavailable(str(error)) from None
        if response.status >= 500 or response.status in (401, 403, 429):
            raise OcsUnavailable(f"HTTP {response.status}")
        return response

    async def create(self, imsi: str, seid: int, dnn: str | None) -> Verdict:
        """Open a charging session and ask for the first quota."""
        body = self._body(imsi, seid, 0, {"requestedUnit": {"totalVolume": self._settings.quota_octets}})
        if dnn:
            body["pDUSessionChargingInformation"] = {"pduSessionInformation": {"dnnId": dnn, "pduSessionID": 1}}
        response = await self._post(PATH, body)
        if response.status == 404:
            return Verdict(0, known=False)
        if response.status != 201:
            raise OcsUnavailable(f"HTTP {response.status}")
        ref = response.headers.get("location", "").rsplit("/", 1)[-1]
        if not ref:
            raise OcsUnavailable("an answer without a Location")
        return _verdict(response, ref=ref)

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
        if response.status == 404:
            return Verdict(0, known=False)
        if response.status not in (200, 204):
            raise OcsUnavailable(f"HTTP {response.status}")
        return Verdict(0) if release else _verdict(response)


def _verdict(response: Response, ref: str | None = None) -> Verdict:
    """The grant in an answer. Raises OcsUnavailable where it is not what TS 32.291 says."""
    try:
        units = [
            unit for unit in json.loads(response.body)["multipleUnitInformation"] if unit["resultCode"] == "SUCCESS"
        ]
        granted = sum(int(unit.get("grantedUnit", {}).get("totalVolume", 0)) for unit in units)
        lasts = [unit["finalUnitIndication"] for unit in units if "finalUnitIndication" in unit]
        throttles = [throttle for last in lasts if (throttle := _throttle(last)) is not None]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OcsUnavailable(f"an answer that is no ChargingDataResponse: {type(error).__name__}") from None
    # A throttled session goes on and on; whoever has no throttle to offer says that these units are the last.
    return Verdict(granted, len(lasts) > len(throttles), ref=ref, throttle=throttles[0] if throttles else None)


def _throttle(final: dict[str, Any]) -> Throttle | None:
    """The rate at which access goes on: RESTRICT_ACCESS with a filter `throttle;dl=<bit/s>;ul=<bit/s>`, as fair use has it.

    A filter is known by its name between OCS and CTF (TS 32.299 clause 7.2.91 has it so); this is the kit's one.
    """
    if final.get("finalUnitAction") != "RESTRICT_ACCESS":
        return None
    for name in final.get("filterIdList", ()):
        kind, *parts = str(name).split(";")
        if kind != "throttle":
            continue
        rates = dict(part.split("=", 1) for part in parts)
        uplink, downlink = int(rates["ul"]), int(rates["dl"])
        if uplink > 0 and downlink > 0:
            return Throttle(uplink, downlink)
    log.warning("a restriction of access that is not known; these units are taken for the last", extra={"final": final})
    return None
