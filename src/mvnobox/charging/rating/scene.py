"""Where, whom and when: what a charging request says of its circumstances, in the brand's own terms."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterable
from typing import NamedTuple
from zoneinfo import ZoneInfo

import phonenumbers

from mvnobox.charging.rating.document import ELSEWHERE, EMERGENCY, HOME, OTHER, SERVICES, Band, Rating, Service

_DAY = 1440
# RFC 5031 section 4.2: whatever follows `sos.` is an emergency service, too. Compared without regard to case (section 3).
_SOS = re.compile(r"\s*urn:service:sos([.;?#\s]|$)", re.IGNORECASE)


class Circumstances(NamedTuple):
    """What the network says: the visited PLMN's MCC and MNC, the called number as dialled. None: it does not say."""

    visited: str | None = None
    called: str | None = None


class Scene(NamedTuple):
    """`zone`, `destination`: None where the network does not say, so that the session's stand. `limit`: seconds until
    other hours begin, None where none do."""

    zone: str | None
    destination: str | None
    band: str
    limit: int | None


class Scenery:
    """A brand's Rating, prepared for many look-ups."""

    def __init__(self, rating: Rating) -> None:
        self.rating = rating
        self._timezone = ZoneInfo(rating.timezone)
        self._networks = {prefix: HOME for prefix in rating.home}
        self._networks |= {prefix: zone.id for zone in rating.zones for prefix in zone.networks}
        self._numbers = {number: one.id for one in rating.destinations for number in one.numbers}
        self._prefixes = {prefix: one.id for one in rating.destinations for prefix in one.prefixes}
        self._emergency = frozenset(rating.emergency)
        self._banded = {rule.service for rules in rating.tariffs.values() for rule in rules if rule.bands is not None}
        self.special = functools.lru_cache(maxsize=10_000)(self._special)

    def scene(self, seen: Circumstances, at: dt.datetime) -> Scene:
        """`at` is aware."""
        band, limit = self.band(at)
        return Scene(
            None if seen.visited is None else self.zone(seen.visited),
            None if seen.called is None else self.destination(seen.called),
            band,
            limit,
        )

    def zone(self, network: str) -> str:
        """By the longest prefix of MCC and MNC."""
        for length in range(min(len(network), 6), 2, -1):
            if (found := self._networks.get(network[:length])) is not None:
                return found
        return ELSEWHERE

    def destination(self, dialled: str) -> str:
        """Of a number as dialled: `tel:` and `sip:` URIs, international and national form, short numbers, `urn:service:sos`."""
        if is_sos(dialled):
            return EMERGENCY
        number = plain(dialled)
        if number in self._emergency:
            return EMERGENCY
        number = international(number, self.rating.country)
        if number in self._emergency:
            return EMERGENCY
        if (found := self._numbers.get(number)) is not None:
            return found
        for length in range(len(number), 1, -1):
            if (found := self._prefixes.get(number[:length])) is not None:
                return found
        return OTHER

    def band(self, at: dt.datetime) -> tuple[str, int | None]:
        """Which hours these are, and the seconds until others begin (in real time, across a change of the clocks)."""
        if not self.rating.bands:
            return OTHER, None
        local = at.astimezone(self._timezone)
        now = self._band_of(local)
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        for ahead in range(9):
            for edge in self._edges():
                moment = (day + dt.timedelta(days=ahead, minutes=edge)).replace(tzinfo=self._timezone)
                # In UTC: differences of local times leave changes of the clocks out.
                seconds = (moment.astimezone(dt.UTC) - at.astimezone(dt.UTC)).total_seconds()
                if seconds > 0 and self._band_of(moment) != now:
                    return now, max(int(seconds), 1)
        return now, None

    def _edges(self) -> list[int]:
        return sorted({0} | {minute % _DAY for band in self.rating.bands for minute in (band.start, band.until)})

    def _band_of(self, local: dt.datetime) -> str:
        minute, day = local.hour * 60 + local.minute, local.isoweekday()
        return next((band.id for band in self.rating.bands if _within(band, day, minute)), OTHER)

    def _special(self, service: Service, zone: str | None, destination: str | None) -> bool:
        """Whether any tariff, at any hour, treats this otherwise than "allowances pay"; unknown parts: any."""
        if destination == EMERGENCY:
            return True
        for rules in self.rating.tariffs.values():
            for rule in rules:
                if (
                    rule.service == service
                    and not rule.plain
                    and (zone is None or rule.zones is None or zone in rule.zones)
                    and (destination is None or rule.destinations is None or destination in rule.destinations)
                ):
                    return True
        return False

    def told_now(self, seen: Circumstances, units: Iterable[str | None]) -> str:
        """`told` of what is now, for the units of a request."""
        services = {SERVICES[unit] for unit in units if unit in SERVICES}
        return self.told(self.scene(seen, dt.datetime.now(dt.UTC)), services)

    def told(self, scene: Scene, services: set[Service]) -> str:
        """A scene as the ledger takes it: `[*?]|zone|destination|hours|seconds`.

        With `*`, or where seconds are told, the ledger looks at the account's tariff before it lets allowances pay; with
        `?`, unless the session is at home and calls nobody in particular.
        """
        zone, destination, flag = scene.zone or HOME, scene.destination or OTHER, ""
        for service in services:
            if self.special(service, zone, destination):
                flag = "*"
                break
            if self.special(service, scene.zone, scene.destination):
                flag = "?"
        limit = scene.limit if services & self._banded else None
        return f"{flag}|{scene.zone or ''}|{scene.destination or ''}|{scene.band}|{limit or ''}"


def _within(band: Band, day: int, minute: int) -> bool:
    if band.start < band.until:
        return day in band.days and band.start <= minute < band.until
    # Over midnight: the evening of its day and the morning after.
    yesterday = (day - 2) % 7 + 1
    return (day in band.days and minute >= band.start) or (yesterday in band.days and minute < band.until)


def is_sos(called: str | None) -> bool:
    """Whether an emergency service is called by its name (RFC 5031), which is the same in every country."""
    return called is not None and _SOS.match(called) is not None


def is_emergency(scenery: Scenery | None, called: str | None) -> bool:
    """Whether an emergency service or a helpline of the brand's country is called."""
    return is_sos(called) or (scenery is not None and called is not None and scenery.destination(called) == EMERGENCY)


def told_of(scenery: Scenery | None, seen: Circumstances, units: Iterable[str | None]) -> str | None:
    """The scene of a request as the ledger takes it; None where a brand has no rating and nobody calls for help."""
    if scenery is not None:
        return scenery.told_now(seen, units)
    return f"*||{EMERGENCY}|{OTHER}|" if is_sos(seen.called) else None


def plain(dialled: str) -> str:
    """Digits, and a leading + where there is one, of a dialled number or a URI (RFC 3966, RFC 3261 section 19.1)."""
    rest = dialled.strip()
    for scheme in ("tel:", "sip:", "sips:"):
        if rest[: len(scheme)].lower() == scheme:
            rest = rest[len(scheme) :]
            break
    rest = rest.partition("@")[0].partition(";")[0]
    digits = "".join(sign for sign in rest if sign.isascii() and sign.isdigit())
    return f"+{digits}" if rest.startswith("+") else digits


@functools.lru_cache(maxsize=10_000)
def international(number: str, country: str) -> str:
    """E.164 with `+` of a number as it is dialled in a country; a number that is none stays as it is."""
    try:
        parsed = phonenumbers.parse(number, country)
    except phonenumbers.NumberParseException:
        return number
    if not number.startswith("+") and not phonenumbers.is_possible_number(parsed):
        return number
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
