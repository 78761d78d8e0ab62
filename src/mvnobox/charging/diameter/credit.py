"""Credit-Control requests and answers (RFC 8506 section 3, TS 32.299 clause 6.4) as objects and octets."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mvnobox.charging.diameter.circumstances import circumstances
from mvnobox.charging.diameter.ignored import IGNORED
from mvnobox.charging.rating.scene import Circumstances
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError, Found, text, unsigned32, unsigned64
from mvnobox.diameter.codes import MANDATORY, TGPP, Avp, RequestType, Result
from mvnobox.diameter.shapes import Message, Sorted

_ONCE = frozenset(
    {
        Avp.SESSION_ID, Avp.ORIGIN_HOST, Avp.ORIGIN_REALM, Avp.DESTINATION_REALM, Avp.DESTINATION_HOST,
        Avp.AUTH_APPLICATION_ID, Avp.SERVICE_CONTEXT_ID, Avp.CC_REQUEST_TYPE, Avp.CC_REQUEST_NUMBER,
        Avp.REQUESTED_ACTION, Avp.REQUESTED_SERVICE_UNIT, Avp.RATING_GROUP, Avp.SERVICE_INFORMATION,
    }
)  # fmt: skip
_SEVERAL = frozenset({Avp.MULTIPLE_SERVICES_CREDIT_CONTROL, Avp.SUBSCRIPTION_ID, Avp.USED_SERVICE_UNIT, Avp.PROXY_INFO})
# What a request needs (RFC 8506 section 3.1), in the order in which it is missed.
_NEEDED = (
    Avp.SESSION_ID, Avp.ORIGIN_HOST, Avp.ORIGIN_REALM, Avp.DESTINATION_REALM, Avp.AUTH_APPLICATION_ID,
    Avp.SERVICE_CONTEXT_ID, Avp.CC_REQUEST_TYPE, Avp.CC_REQUEST_NUMBER,
)  # fmt: skip
_SUBSCRIBER = {0: "msisdn", 1: "imsi", 3: "nai"}
_UNITS = {Avp.CC_TIME: "seconds", Avp.CC_SERVICE_SPECIFIC_UNITS: "messages"}


class Money(NamedTuple):
    """CC-Money: digits * 10 ** exponent of a currency (ISO 4217 number, None: the account's)."""

    digits: int
    exponent: int
    currency: int | None


class Amounts(dict[str, int]):
    """Octets, seconds and messages (service specific units) of a service unit; money apart. `place`: where it stands."""

    __slots__ = ("money", "place")
    money: Money | None

    def __init__(self, place: tuple[bytes, Found] | None = None) -> None:
        super().__init__()
        self.money, self.place = None, place

    def fits(self, unit: str) -> bool:
        """Whether it can be counted in a unit; what says nothing at all can."""
        return self.money is None and (unit in self or not self)

    @property
    def raw(self) -> bytes:
        """The AVP as it was sent, for Failed-AVP."""
        return codec.raw(*self.place) if self.place is not None else b""


@dataclass(slots=True)
class Service:
    """One Multiple-Services-Credit-Control, or the same AVPs at the level of the command."""

    rating_group: int | None = None
    identifiers: list[int] = field(default_factory=list)
    wanted: Amounts | None = None
    used: list[Amounts] = field(default_factory=list)


class CreditRequest:
    """A CCR. `read` fills it step by step, so that a refusal can repeat what was understood before it."""

    __slots__ = (
        "action", "circumstances", "context", "destination_host", "destination_realm", "grouped", "number", "origin_host",
        "origin_realm", "proxies", "services", "session_id", "subscribers", "type",
    )  # fmt: skip

    def __init__(self) -> None:
        self.session_id = b""
        self.type: int | None = None
        self.number: int | None = None
        self.origin_host = self.origin_realm = self.destination_realm = self.context = ""
        self.destination_host: str | None = None
        self.action: int | None = None
        self.subscribers: list[str] = []
        self.services: list[Service] = []
        self.grouped = False
        self.proxies: list[bytes] = []
        self.circumstances = Circumstances()

    def read(self, message: Message) -> None:
        """Fill from a message. Raises DiameterError."""
        data = message.data
        once, several = self._begin(message)
        self.origin_host = text(data, once[Avp.ORIGIN_HOST])
        self.origin_realm = text(data, once[Avp.ORIGIN_REALM])
        self.destination_realm = text(data, once[Avp.DESTINATION_REALM])
        self.context = text(data, once[Avp.SERVICE_CONTEXT_ID])
        if (host := once.get(Avp.DESTINATION_HOST)) is not None:
            self.destination_host = text(data, host)
        if (action := once.get(Avp.REQUESTED_ACTION)) is not None:
            self.action = unsigned32(data, action)
            if self.action > 3:
                raise DiameterError(Result.INVALID_AVP_VALUE, "Requested-Action is not known", codec.raw(data, action))
        if (information := once.get(Avp.SERVICE_INFORMATION)) is not None:
            self.circumstances = circumstances(message, information)
        groups: list[Found] = []
        plain = Service()
        for avp in several:
            key = avp[0]
            if key == Avp.MULTIPLE_SERVICES_CREDIT_CONTROL:
                groups.append(avp)
            elif key == Avp.SUBSCRIPTION_ID:
                self._subscriber(message, avp)
            elif key == Avp.USED_SERVICE_UNIT:
                plain.used.append(_amounts(message, avp))
            else:
                self.proxies.append(codec.raw(data, avp))
        if groups:
            self.grouped = True
            self.services = [_service(message, avp) for avp in groups]
        else:
            if (wanted := once.get(Avp.REQUESTED_SERVICE_UNIT)) is not None:
                plain.wanted = _amounts(message, wanted)
            if (rating := once.get(Avp.RATING_GROUP)) is not None:
                plain.rating_group = unsigned32(data, rating)
            if plain.wanted is not None or plain.used:
                self.services = [plain]
        if self.type == RequestType.EVENT and self.action is None:
            raise codec.missing(Avp.REQUESTED_ACTION)

    def _begin(self, message: Message) -> Sorted:
        """Its AVPs sorted; and first what an answer repeats, whatever is wrong with the rest."""
        data, late = message.data, None
        found = message.shape.sorted
        if found is None:
            once, several, late = _sort(data, message.avps())
            found = once, several
        once = found[0]
        if (session := once.get(Avp.SESSION_ID)) is not None:
            self.session_id = data[session[3] : session[4]]
        try:
            if (kind := once.get(Avp.CC_REQUEST_TYPE)) is not None:
                self.type = unsigned32(data, kind)
                if not 1 <= self.type <= 4:
                    raise DiameterError(Result.INVALID_AVP_VALUE, "CC-Request-Type is not known", codec.raw(data, kind))
            if (number := once.get(Avp.CC_REQUEST_NUMBER)) is not None:
                self.number = unsigned32(data, number)
        except DiameterError as error:
            late = late or error
        if late is not None:
            raise late
        if session is not None and not self.session_id:
            raise DiameterError(Result.INVALID_AVP_VALUE, "Session-Id is empty", codec.raw(data, session))
        if message.shape.sorted is None:
            for key in _NEEDED:
                if key not in once:
                    raise codec.missing(key)
            message.shape.sorted = found
        return found

    def _subscriber(self, message: Message, avp: Found) -> None:
        data = message.data
        kind = name = None
        for member in message.members(avp):
            if member[0] == Avp.SUBSCRIPTION_ID_TYPE:
                kind = unsigned32(data, member)
            elif member[0] == Avp.SUBSCRIPTION_ID_DATA:
                name = text(data, member)
            else:
                _ignore(data, member)
        if kind is None or name is None:
            raise codec.missing(Avp.SUBSCRIPTION_ID_TYPE if kind is None else Avp.SUBSCRIPTION_ID_DATA)
        prefix = _SUBSCRIBER.get(kind)
        if prefix is None:
            return
        if prefix == "msisdn":
            name = name.removeprefix("+")
        if prefix == "nai" or (name.isascii() and name.isdigit() and len(name) <= 15):
            # An IMSI never changes hands within a SIM's life; a number may: it is looked up first.
            self.subscribers.insert(0 if prefix == "imsi" else len(self.subscribers), f"{prefix}-{name}")


def _sort(data: bytes, avps: list[Found]) -> tuple[dict[int, Found], list[Found], DiameterError | None]:
    """AVPs that come once by their key, those that may come several times, and the first that must not be there."""
    once: dict[int, Found] = {}
    several: list[Found] = []
    late: DiameterError | None = None
    for avp in avps:
        key, flags = avp[0], avp[1]
        if flags & 0x1F:
            late = late or DiameterError(Result.INVALID_AVP_BITS, "reserved AVP bits are set", codec.raw(data, avp))
        elif key in _ONCE:
            if key in once:
                late = late or DiameterError(
                    Result.AVP_OCCURS_TOO_MANY_TIMES, f"AVP {key} comes twice", codec.raw(data, avp)
                )
            else:
                once[key] = avp
        elif key in _SEVERAL:
            several.append(avp)
        elif flags & MANDATORY and key not in IGNORED and key >> 32 != TGPP:
            late = late or _unsupported(data, avp)
    return once, several, late


def _unsupported(data: bytes, avp: Found) -> DiameterError:
    return DiameterError(Result.AVP_UNSUPPORTED, f"AVP {avp[0] & 0xFFFFFFFF} is not known", codec.raw(data, avp))


def _ignore(data: bytes, avp: Found) -> None:
    """An AVP that is read over, unless it must not be."""
    if avp[1] & MANDATORY and avp[0] not in IGNORED and avp[0] >> 32 != TGPP:
        raise _unsupported(data, avp)


def _service(message: Message, avp: Found) -> Service:
    data, made = message.data, Service()
    for member in message.members(avp):
        key = member[0]
        if key == Avp.USED_SERVICE_UNIT:
            made.used.append(_amounts(message, member))
        elif key == Avp.REQUESTED_SERVICE_UNIT:
            made.wanted = _amounts(message, member)
        elif key == Avp.RATING_GROUP:
            made.rating_group = unsigned32(data, member)
        elif key == Avp.SERVICE_IDENTIFIER:
            made.identifiers.append(unsigned32(data, member))
        else:
            _ignore(data, member)
    return made


def _amounts(message: Message, avp: Found) -> Amounts:
    """A Requested- or Used-Service-Unit; octets are the total, or else the sum of both directions."""
    data = message.data
    made = Amounts((data, avp))
    total = None
    parts = 0
    for member in message.members(avp):
        key = member[0]
        if key == Avp.CC_TOTAL_OCTETS:
            total = unsigned64(data, member)
        elif key == Avp.CC_INPUT_OCTETS or key == Avp.CC_OUTPUT_OCTETS:
            parts += unsigned64(data, member)
            made["octets"] = parts
        elif key == Avp.CC_TIME:
            made["seconds"] = unsigned32(data, member)
        elif key == Avp.CC_SERVICE_SPECIFIC_UNITS:
            made["messages"] = unsigned64(data, member)
        elif key == Avp.CC_MONEY:
            made.money = _money(message, member)
        elif key != Avp.TARIFF_CHANGE_USAGE and key != Avp.TARIFF_TIME_CHANGE:
            _ignore(data, member)
    if total is not None:
        made["octets"] = total
    return made


def _money(message: Message, avp: Found) -> Money:
    data = message.data
    digits = currency = None
    exponent = 0
    for member in message.members(avp):
        if member[0] == Avp.CURRENCY_CODE:
            currency = unsigned32(data, member)
        elif member[0] == Avp.UNIT_VALUE:
            for part in message.members(member):
                if part[0] == Avp.VALUE_DIGITS:
                    digits = codec.signed64(data, part)
                elif part[0] == Avp.EXPONENT:
                    exponent = codec.signed32(data, part)
                else:
                    _ignore(data, part)
        else:
            _ignore(data, member)
    if digits is None:
        raise codec.missing(Avp.VALUE_DIGITS)
    if digits < 0 or not -18 <= exponent <= 18:
        raise DiameterError(Result.INVALID_AVP_VALUE, "CC-Money is negative or out of range", codec.raw(data, avp))
    return Money(digits, exponent, currency)


# TS 32.291's result codes (clause 6.1.6.3.14) in Diameter's terms (RFC 8506 section 9).
RESULTS = {
    "SUCCESS": Result.SUCCESS,
    "END_USER_SERVICE_DENIED": Result.END_USER_SERVICE_DENIED,
    "QUOTA_MANAGEMENT_NOT_APPLICABLE": Result.CREDIT_CONTROL_NOT_APPLICABLE,
    "QUOTA_LIMIT_REACHED": Result.CREDIT_LIMIT_REACHED,
    "END_USER_SERVICE_REJECTED": Result.AUTHORIZATION_REJECTED,
    "USER_UNKNOWN": Result.USER_UNKNOWN,
    "RATING_FAILED": Result.RATING_FAILED,
}
_RESULT_AVPS = {name: codec.u32(Avp.RESULT_CODE, code) for name, code in RESULTS.items()}
_TERMINATE = codec.group(Avp.FINAL_UNIT_INDICATION, [codec.u32(Avp.FINAL_UNIT_ACTION, 0)])
# Final-Unit-Action (RFC 8506 section 8.35).
_RESTRICT_ACCESS = 2
# Granted-Service-Unit{CC-Total-Octets}, Validity-Time, Volume-Quota-Threshold: what nearly every answer holds.
_VOLUME = struct.Struct(">IIIIQ")
_NTP = 2_208_988_800  # seconds from 1900, where Diameter's Time begins, to 1970


def granted(unit: dict[str, Any]) -> bytes:
    """Granted-Service-Unit of TS 32.291's GrantedUnit; `tariffTimeChange` there is seconds since 1970."""
    if len(unit) == 1 and (volume := unit.get("totalVolume")) is not None:
        return _VOLUME.pack(Avp.GRANTED_SERVICE_UNIT, 0x40000018, Avp.CC_TOTAL_OCTETS, 0x40000010, volume)
    parts = []
    if (change := unit.get("tariffTimeChange")) is not None:
        parts.append(codec.u32(Avp.TARIFF_TIME_CHANGE, (change + _NTP) & 0xFFFFFFFF))
    if (seconds := unit.get("time")) is not None:
        parts.append(codec.u32(Avp.CC_TIME, seconds))
    if (money := unit.get("money")) is not None:
        parts.append(cost(Avp.CC_MONEY, *money))
    if (volume := unit.get("totalVolume")) is not None:
        parts.append(codec.u64(Avp.CC_TOTAL_OCTETS, volume))
    if (specific := unit.get("serviceSpecificUnits")) is not None:
        parts.append(codec.u64(Avp.CC_SERVICE_SPECIFIC_UNITS, specific))
    return codec.group(Avp.GRANTED_SERVICE_UNIT, parts)


def cost(key: int, digits: int, exponent: int, currency: int) -> bytes:
    """CC-Money or Cost-Information of digits * 10 ** exponent."""
    value = [codec.i64(Avp.VALUE_DIGITS, digits), codec.i32(Avp.EXPONENT, exponent)]
    return codec.group(key, [codec.group(Avp.UNIT_VALUE, value), codec.u32(Avp.CURRENCY_CODE, currency)])


def terms(info: dict[str, Any], final_units: bool) -> Iterator[bytes]:
    """Grant, validity, thresholds and final unit of TS 32.291's MultipleUnitInformation."""
    if (unit := info.get("grantedUnit")) is not None:
        yield granted(unit)
    if (seconds := info.get("validityTime")) is not None:
        yield codec.u32(Avp.VALIDITY_TIME, seconds)
    if (volume := info.get("volumeQuotaThreshold")) is not None:
        # Unsigned32 (TS 32.299 clause 7.2.238), though a quota may be larger.
        yield codec.u32(Avp.VOLUME_QUOTA_THRESHOLD, min(volume, 0xFFFFFFFF))
    elif (seconds := info.get("timeQuotaThreshold")) is not None:
        yield codec.u32(Avp.TIME_QUOTA_THRESHOLD, min(seconds, 0xFFFFFFFF))
    elif (specific := info.get("unitQuotaThreshold")) is not None:
        yield codec.u32(Avp.UNIT_QUOTA_THRESHOLD, min(specific, 0xFFFFFFFF))
    final = info.get("finalUnitIndication")
    if final_units and final is not None:
        yield _restricted(final["filterIdList"]) if final["finalUnitAction"] == "RESTRICT_ACCESS" else _TERMINATE


def _restricted(filters: Iterable[str]) -> bytes:
    """Final-Unit-Indication that restricts access by filters that the peer knows (RFC 8506 sections 5.6.3, 8.34)."""
    action = codec.u32(Avp.FINAL_UNIT_ACTION, _RESTRICT_ACCESS)
    return codec.group(Avp.FINAL_UNIT_INDICATION, [action, *(codec.utf8(Avp.FILTER_ID, one) for one in filters)])


class Info(dict[str, Any]):
    """One of a reply's MultipleUnitInformation, not to be changed. Most replies grant the same: `encoded` has its
    Multiple-Services-Credit-Controls for those who asked alike."""

    __slots__ = ("encoded",)
    encoded: dict[tuple[int | None, bool, bool], bytes]

    def __init__(self, members: dict[str, Any]) -> None:
        super().__init__(members)
        self.encoded = {}

    def whole(self) -> dict[str, Any]:
        """As it is told who uses a last grant up before it asks again, and not for ever smaller rests."""
        final = self.get("finalUnitIndication")
        if final is None or final["finalUnitAction"] != "TERMINATE":
            return self
        return {name: value for name, value in self.items() if not name.endswith("QuotaThreshold")}

    def answer(self, service: Service, final_units: bool, whole_quota: bool) -> bytes:
        """`service_answer` for a service that could be rated."""
        key = (service.rating_group, final_units, whole_quota)
        found = None if service.identifiers else self.encoded.get(key)
        if found is None:
            found = service_answer(service, self.whole() if whole_quota else self, final_units)
            if not service.identifiers:
                self.encoded[key] = found
        return found


def service_answer(service: Service, info: dict[str, Any], final_units: bool = True, failed: bytes = b"") -> bytes:
    """One Multiple-Services-Credit-Control of an answer; rating group and service identifiers as they were asked.

    `failed`: the AVP that could not be rated.
    """
    parts = [*terms(info, final_units)]
    for identifier in service.identifiers:
        parts.append(codec.u32(Avp.SERVICE_IDENTIFIER, identifier))
    if service.rating_group is not None:
        parts.append(codec.u32(Avp.RATING_GROUP, service.rating_group))
    parts.append(_RESULT_AVPS[info["resultCode"]])
    if failed:
        parts.append(codec.octets(Avp.FAILED_AVP, failed))
    return codec.group(Avp.MULTIPLE_SERVICES_CREDIT_CONTROL, parts)


class Answers:
    """Builds CCAs; what never changes is encoded once."""

    def __init__(self, origin_host: str, origin_realm: str) -> None:
        self.origin = codec.utf8(Avp.ORIGIN_HOST, origin_host) + codec.utf8(Avp.ORIGIN_REALM, origin_realm)
        self._application = codec.u32(Avp.AUTH_APPLICATION_ID, 4)

    def credit(self, request: CreditRequest, result: int, more: Iterable[bytes] = ()) -> bytes:
        """The AVPs of a CCA (RFC 8506 section 3.2)."""
        parts = [codec.u32(Avp.RESULT_CODE, result), self.origin, self._application]
        if request.session_id:
            parts.insert(0, codec.octets(Avp.SESSION_ID, request.session_id))
        if request.type is not None:
            parts.append(codec.u32(Avp.CC_REQUEST_TYPE, request.type))
        if request.number is not None:
            parts.append(codec.u32(Avp.CC_REQUEST_NUMBER, request.number))
        parts += more
        parts += request.proxies
        return b"".join(parts)
