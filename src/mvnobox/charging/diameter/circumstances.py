"""Where a subscriber is and whom it calls, out of Service-Information (TS 32.299 clause 7.2.192)."""

from __future__ import annotations

from collections.abc import Iterator

from mvnobox.charging.rating.scene import Circumstances, is_sos
from mvnobox.diameter.codec import DiameterError, Found
from mvnobox.diameter.codes import Avp
from mvnobox.diameter.shapes import Message

# The members on the way to what we read.
_GROUPS = frozenset(
    {Avp.PS_INFORMATION, Avp.IMS_INFORMATION, Avp.SMS_INFORMATION, Avp.RECIPIENT_INFO, Avp.RECIPIENT_ADDRESS}
)
# Kinds of 3GPP-User-Location-Info that begin with a PLMN (TS 29.061 clause 16.4.7.2): CGI, SAI, RAI, TAI, ECGI, both.
_LOCATIONS = frozenset({0, 1, 2, 128, 129, 130})


def circumstances(message: Message, avp: Found) -> Circumstances:
    """What a Service-Information says. It is information: what is malformed in it says nothing, and refuses nothing."""
    network = called = None
    try:
        for member in _members(message, avp, 4):
            key, value = member[0], message.data[member[3] : member[4]]
            if key == Avp.SGSN_MCC_MNC and value.isdigit() and len(value) in (5, 6):
                network = value.decode("ascii")
            elif key == Avp.USER_LOCATION_INFO and network is None and len(value) >= 4 and value[0] in _LOCATIONS:
                network = _plmn(value[1:4])
            elif key in (Avp.CALLED_PARTY_ADDRESS, Avp.ADDRESS_DATA) and len(value) <= 300:
                address = value.decode("utf-8", "ignore")
                # The first one; but a call for help is one wherever it says so.
                if called is None or is_sos(address):
                    called = address
    except DiameterError:
        pass
    return Circumstances(network, called or None)


def _members(message: Message, avp: Found, depth: int) -> Iterator[Found]:
    for member in message.members(avp):
        if member[0] in _GROUPS and depth:
            yield from _members(message, member, depth - 1)
        else:
            yield member


def _plmn(octets: bytes) -> str | None:
    """MCC and MNC of three octets of digits, low half first (TS 24.008 clause 10.5.1.3)."""
    digits = (
        f"{octets[0] & 15:x}{octets[0] >> 4:x}{octets[1] & 15:x}{octets[2] & 15:x}{octets[2] >> 4:x}{octets[1] >> 4:x}"
    )
    digits = digits.removesuffix("f")
    return digits if digits.isdigit() else None
