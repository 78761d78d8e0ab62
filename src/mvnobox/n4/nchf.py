"""The Nchf_ConvergedCharging consumer (TS 32.291) over HTTP/2, one connection kept."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import logging
from dataclasses import dataclass
from typing import Any

from mvnobox.n4.http2 import Http2, NoResponse, Response
from mvnobox.n4.notify import Addresses
from mvnobox.n4.rules import Throttle
from mvnobox.n4.settings import CtfSettings

log = logging.getLogger(__name__)
PATH = "/nchf-convergedcharging/v3/chargingdata"
_SECONDS = 3.0
# The longest pause that a Retry-After is obeyed for.
LONGEST_PAUSE_SECONDS = 30.0
# FailureHandling, of InvocationResult (TS 32.291 clause 6.1.6).
TERMINATE, CONTINUE, RETRY_AND_TERMINATE = "TERMINATE", "CONTINUE", "RETRY_AND_TERMINATE"


class OcsUnavailable(Exception):
    """No answer, or one that says nothing about credit; the same request has to be repeated.

    `after`: not before so many seconds (Retry-After, RFC 9110 section 10.2.3). `handling`: what the OCS wants done with
    the traffic meanwhile (FailureHandling), None where it does not say.
    """

    def __init__(self, cause: str, *, after: float = 0.0, handling: str | None = None) -> None:
        super().__init__(cause)
        self.after, self.handling = after, handling


class ContextNotFound(Exception):
    """The OCS does not know the charging session, or does not any more."""


@dataclass(frozen=True)
class Verdict:
    """What the OCS said: octets granted (0: none), whether they are the last, at which rate they go, for how many seconds
    (None: it does not say); `ref` is a new charging session's."""

    granted: int
    final: bool = False
    ref: str | None = None
    throttle: Throttle | None = None
    validity: float | None = None
    # Where there was no answer: ask again after so many seconds.
    after: float = 0.0


class Nchf:
    """Create, update and release. Repeating a call with the same sequence is safe: the OCS answers it once."""

    def __init__(self, settings: CtfSettings, token: str, addresses: Addresses) -> None:
        self._settings, self._addresses = settings, addresses
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
            "notifyUri": self._settings.notify_uri + self._addresses.path(seid),
            "multipleUnitUsage": [{"ratingGroup": self._settings.rating_group, **usage}],
        }

    async def _post(self, path: str, body: dict[str, Any]) -> Response:
        try:
            return await self._client.post(path, json.dumps(body, separators=(",", ":")).encode())
        except NoResponse as error:
            raise OcsUnavailable(str(error)) from None

    async def create(self, imsi: str, seid: int, dnn: str | None) -> Verdict:
        """Open a charging session and ask for the first quota. Raises OcsUnavailable.

        No `ref` in the answer: the OCS has no such customer.
        """
        body = self._body(imsi, seid, 0, {"requestedUnit": {"totalVolume": self._settings.quota_octets}})
        if dnn:
            body["pDUSessionChargingInformation"] = {"pduSessionInformation": {"dnnId": dnn, "pduSessionID": 1}}
        response = await self._post(PATH, body)
        if response.status == 404:
            return Verdict(0)
        if response.status != 201:
            raise _unavailable(response)
        ref = response.headers.get("location", "").rsplit("/", 1)[-1]
        if not ref:
            raise OcsUnavailable("an answer without a Location")
        return _verdict(response, ref=ref)

    async def report(
        self, imsi: str, seid: int, ref: str, sequence: int, used: tuple[int, int, int], *, release: bool
    ) -> Verdict:
        """Report use (total, uplink, downlink octets); unless it is the release, ask for more.

        Raises OcsUnavailable, ContextNotFound.
        """
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
            raise ContextNotFound(_problem(response).get("cause", "HTTP 404"))
        if response.status not in (200, 204):
            raise _unavailable(response)
        return Verdict(0) if release else _verdict(response)


def _problem(response: Response) -> dict[str, Any]:
    """The document of an answer that is a failure; empty where it is none."""
    try:
        found = json.loads(response.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _unavailable(response: Response) -> OcsUnavailable:
    """An answer that says nothing about credit, as what has to be done about it."""
    result = _problem(response).get("invocationResult")
    handling = result.get("failureHandling") if isinstance(result, dict) else None
    if handling not in (TERMINATE, CONTINUE, RETRY_AND_TERMINATE):
        handling = None
    return OcsUnavailable(
        f"HTTP {response.status}", after=_pause(response.headers.get("retry-after")), handling=handling
    )


def _pause(text: str | None) -> float:
    """Seconds of a Retry-After: a number of them or a date (RFC 9110 section 10.2.3); 0 where it is neither."""
    if text is None:
        return 0.0
    if text.strip().isdecimal():
        seconds = float(text)
    else:
        try:
            until = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        until = until if until.tzinfo is not None else until.replace(tzinfo=dt.UTC)
        seconds = (until - dt.datetime.now(dt.UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_PAUSE_SECONDS)


def _verdict(response: Response, ref: str | None = None) -> Verdict:
    """The grant in an answer. Raises OcsUnavailable where it is not what TS 32.291 says."""
    try:
        units = [
            unit for unit in json.loads(response.body)["multipleUnitInformation"] if unit["resultCode"] == "SUCCESS"
        ]
        granted = sum(int(unit.get("grantedUnit", {}).get("totalVolume", 0)) for unit in units)
        lasts = [unit["finalUnitIndication"] for unit in units if "finalUnitIndication" in unit]
        throttles = [throttle for last in lasts if (throttle := _throttle(last)) is not None]
        validity = min((float(unit["validityTime"]) for unit in units if "validityTime" in unit), default=None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OcsUnavailable(f"an answer that is no ChargingDataResponse: {type(error).__name__}") from None
    # A throttled session goes on and on; whoever has no throttle to offer says that these units are the last.
    throttle = throttles[0] if throttles else None
    return Verdict(granted, len(lasts) > len(throttles), ref, throttle, validity)


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
