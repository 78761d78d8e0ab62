"""S6a (TS 29.272): what an MME asks, and what it reads in the answers and in the HSS's own requests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError, Found
from mvnobox.diameter.codes import TGPP, Avp, Result, tgpp

APPLICATION = 16777251
RAT_EUTRAN = 1004
# ULR-Flags: the interface is S6a; the UE attaches for the first time (clause 7.3.7).
_ULR_FLAGS = 1 << 1 | 1 << 5
PDN_IPV4, PDN_IPV6 = 0, 1
# An experimental result of 3GPP's, whose number another has in RFC 6733.
USER_UNKNOWN = 5001


class Command:
    """Command codes (clause 7.2)."""

    UPDATE_LOCATION, CANCEL_LOCATION, AUTHENTICATION_INFORMATION = 316, 317, 318
    INSERT_SUBSCRIBER_DATA, PURGE_UE = 319, 321


_AUTH_SESSION_STATE, _EXPERIMENTAL_RESULT_CODE, _SERVICE_SELECTION = 277, 298, 493
_MAX_DOWNLINK, _MAX_UPLINK, _MSISDN, _QCI, _RAT_TYPE = tgpp(515), tgpp(516), tgpp(701), tgpp(1028), tgpp(1032)
_ARP, _PRIORITY, _CAPABILITY, _VULNERABILITY = tgpp(1034), tgpp(1046), tgpp(1047), tgpp(1048)
_SUBSCRIPTION, _ULR, _PLMN, _REQUESTED, _VECTORS = tgpp(1400), tgpp(1405), tgpp(1407), tgpp(1408), tgpp(1410)
_RESYNCHRONISATION, _IMMEDIATE, _AUTHENTICATION, _EUTRAN_VECTOR = tgpp(1411), tgpp(1412), tgpp(1413), tgpp(1414)
_STATUS, _BARRING, _PROFILE, _CONFIGURATION, _QOS, _AMBR = (
    tgpp(1424), tgpp(1425), tgpp(1429), tgpp(1430), tgpp(1431), tgpp(1435)
)  # fmt: skip
_RAND, _XRES, _AUTN, _KASME, _PDN_TYPE = tgpp(1447), tgpp(1448), tgpp(1449), tgpp(1450), tgpp(1456)
_CHARGING, CANCELLATION_TYPE = tgpp(13), tgpp(1420)

_RESULTS = {
    3002: "UNABLE_TO_DELIVER", 3003: "REALM_NOT_SERVED", 3010: "UNKNOWN_PEER", 4181: "AUTHENTICATION_DATA_UNAVAILABLE",
    5001: "USER_UNKNOWN", 5004: "ROAMING_NOT_ALLOWED", 5012: "UNABLE_TO_COMPLY", 5420: "UNKNOWN_EPS_SUBSCRIPTION",
    5421: "RAT_NOT_ALLOWED",
}  # fmt: skip


class Refused(Exception):
    """The HSS says no; the text names the request and the result."""

    def __init__(self, request: str, result: int) -> None:
        super().__init__(f"{request} refused by the HSS: {_RESULTS.get(result, 'Diameter result')} ({result})")
        self.result = result


@dataclass(frozen=True)
class Vector:
    """An E-UTRAN authentication vector (TS 33.401 clause 6.1.2)."""

    rand: bytes
    xres: bytes
    autn: bytes
    kasme: bytes


@dataclass(frozen=True)
class Rate:
    """An AMBR, bit/s."""

    uplink: int
    downlink: int


@dataclass(frozen=True)
class Apn:
    """An APN configuration (clause 7.3.35); the flags of the ARP as they are meant."""

    name: str
    pdn_type: int = PDN_IPV4
    qci: int = 9
    priority: int = 8
    may_preempt: bool = False
    preemptable: bool = True
    ambr: Rate | None = None


@dataclass(frozen=True)
class Subscription:
    """Subscription-Data (clause 7.3.2), as far as it decides a session. None: not said (in an update)."""

    msisdn: bytes | None = None
    ambr: Rate | None = None
    apns: tuple[Apn, ...] | None = None
    barred: bool | None = None
    charging: str | None = None

    def apn(self, name: str) -> Apn | None:
        """The configuration of an APN; a wildcard stands for any (TS 23.003 clause 9.2)."""
        by_name = {one.name.lower(): one for one in self.apns or ()}
        return by_name.get(name.lower()) or by_name.get("*")

    def updated(self, change: Subscription) -> Subscription:
        """With what an Insert-Subscriber-Data says (clause 5.2.2.1.2)."""
        return replace(self, **{name: value for name, value in vars(change).items() if value is not None})


def session(own: bytes, imsi: str, host: str, realm: str) -> bytes:
    """What every request begins with; `own` are Origin-Host and Origin-Realm. Session-Id is put before it."""
    return b"".join(
        [
            application(),
            codec.u32(_AUTH_SESSION_STATE, 1),  # no state maintained
            own,
            codec.utf8(Avp.DESTINATION_HOST, host) if host else b"",
            codec.utf8(Avp.DESTINATION_REALM, realm),
            codec.utf8(Avp.USER_NAME, imsi),
        ]
    )


def application() -> bytes:
    """Vendor-Specific-Application-Id of S6a."""
    return codec.group(
        Avp.VENDOR_SPECIFIC_APPLICATION_ID,
        [codec.u32(Avp.VENDOR_ID, TGPP), codec.u32(Avp.AUTH_APPLICATION_ID, APPLICATION)],
    )


def authentication_information(network: bytes, resynchronisation: bytes | None = None) -> bytes:
    """AIR's own AVPs: one vector for a serving network; RAND || AUTS where the SIM's numbers are ahead."""
    wanted = [codec.u32(_VECTORS, 1), codec.u32(_IMMEDIATE, 1)]
    if resynchronisation is not None:
        wanted.append(codec.octets(_RESYNCHRONISATION, resynchronisation))
    return codec.group(_REQUESTED, wanted) + codec.octets(_PLMN, network)


def update_location(network: bytes) -> bytes:
    """ULR's own AVPs."""
    return codec.u32(_RAT_TYPE, RAT_EUTRAN) + codec.u32(_ULR, _ULR_FLAGS) + codec.octets(_PLMN, network)


def acknowledgement(own: bytes, session_id: bytes, result: int) -> bytes:
    """CLA or IDA: Result-Code for a success, else an experimental result of 3GPP's."""
    if result == Result.SUCCESS:
        said = codec.u32(Avp.RESULT_CODE, result)
    else:
        inside = [codec.u32(Avp.VENDOR_ID, TGPP), codec.u32(_EXPERIMENTAL_RESULT_CODE, result)]
        said = codec.group(Avp.EXPERIMENTAL_RESULT, inside)
    state = codec.u32(_AUTH_SESSION_STATE, 1)
    return codec.octets(Avp.SESSION_ID, session_id) + application() + said + state + own


class Content:
    """The AVPs of a message or group, by key. Raises DiameterError where one is wrong."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._avps = data, codec.split(data, start, end)

    @classmethod
    def of(cls, message: bytes) -> Content:
        return cls(message, codec.HEADER_LENGTH, len(message))

    def _all(self, key: int) -> Iterable[Found]:
        return (avp for avp in self._avps if avp[0] == key)

    def octets(self, key: int) -> bytes | None:
        return next((self._data[avp[3] : avp[4]] for avp in self._all(key)), None)

    def number(self, key: int) -> int | None:
        return next((codec.unsigned32(self._data, avp) for avp in self._all(key)), None)

    def text(self, key: int) -> str | None:
        return next((codec.text(self._data, avp) for avp in self._all(key)), None)

    def groups(self, key: int) -> list[Content]:
        return [Content(self._data, avp[3], avp[4]) for avp in self._all(key)]

    def group(self, key: int) -> Content | None:
        return next(iter(self.groups(key)), None)


def result(answer: Content) -> int:
    """Result-Code or Experimental-Result-Code; 5012 where there is neither."""
    code = answer.number(Avp.RESULT_CODE)
    if code is None and (experimental := answer.group(Avp.EXPERIMENTAL_RESULT)) is not None:
        code = experimental.number(_EXPERIMENTAL_RESULT_CODE)
    return Result.UNABLE_TO_COMPLY if code is None else code


def expect_success(answer: Content, request: str) -> Content:
    """The answer, if it is a success. Raises Refused."""
    if (code := result(answer)) != Result.SUCCESS:
        raise Refused(request, code)
    return answer


def vector(answer: Content) -> Vector:
    """The first E-UTRAN vector of an AIA. Raises DiameterError where there is none that fits."""
    information = answer.group(_AUTHENTICATION)
    found = information.group(_EUTRAN_VECTOR) if information else None
    values = [found.octets(key) or b"" if found else b"" for key in (_RAND, _XRES, _AUTN, _KASME)]
    lengths = [len(value) for value in values]
    if lengths[0] != 16 or not 4 <= lengths[1] <= 16 or lengths[2:] != [16, 32]:
        raise DiameterError(Result.MISSING_AVP, f"no E-UTRAN vector in the answer, octets {lengths}")
    return Vector(*values)


def _rate(content: Content | None) -> Rate | None:
    if content is None:
        return None
    up, down = content.number(_MAX_UPLINK), content.number(_MAX_DOWNLINK)
    return Rate(up, down) if up is not None and down is not None else None


def _apn(content: Content) -> Apn:
    qos = content.group(_QOS)
    arp = qos.group(_ARP) if qos else None
    default = Apn(content.text(_SERVICE_SELECTION) or "")
    qci = (qos.number(_QCI) if qos else None) or default.qci
    if qci > 255:
        raise DiameterError(Result.INVALID_AVP_VALUE, f"{qci} is no QoS class")
    return Apn(
        name=default.name,
        pdn_type=content.number(_PDN_TYPE) or PDN_IPV4,
        qci=qci,
        priority=(arp.number(_PRIORITY) if arp else None) or default.priority,
        # 0 is enabled, 1 disabled; the defaults of TS 29.212 clauses 5.3.46 and 5.3.47.
        may_preempt=arp is not None and arp.number(_CAPABILITY) == 0,
        preemptable=arp is None or arp.number(_VULNERABILITY) != 1,
        ambr=_rate(content.group(_AMBR)),
    )


def subscription(message: Content) -> Subscription:
    """What a ULA or IDR says of the subscription."""
    data = message.group(_SUBSCRIPTION)
    if data is None:
        return Subscription()
    profile = data.group(_PROFILE)
    status, barring = data.number(_STATUS), data.number(_BARRING)
    charging = data.text(_CHARGING)
    if charging is not None and not re.fullmatch("[0-9a-fA-F]{4}", charging):
        raise DiameterError(Result.INVALID_AVP_VALUE, "3GPP-Charging-Characteristics are four hexadecimal digits")
    return Subscription(
        msisdn=data.octets(_MSISDN),
        ambr=_rate(data.group(_AMBR)),
        apns=tuple(_apn(one) for one in profile.groups(_CONFIGURATION)) if profile else None,
        # Subscriber-Status 1 is operator determined barring; its lowest bit bars all packet services (7.3.29, 7.3.30).
        barred=None if status is None and barring is None else status == 1 or bool((barring or 0) & 1),
        charging=charging,
    )
