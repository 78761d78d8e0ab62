"""S6a towards the host network (TS 29.272): the HSS's peers, how each is spoken to, and which doors that opens."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mvnobox.errors import BadInput

DIAMETER_PORT = 3868
# IANA's `diameters`, which freeDiameter takes; RFC 6733 section 2.1 prints 5658 for it.
DIAMETER_TLS_PORT = 5868
TRANSPORTS = ("TCP", "SCTP")
# What a function listens on, as the charts have it: without TLS, with it, and over SCTP.
DIAMETER: dict[str, object] = {"name": "diameter", "port": DIAMETER_PORT, "protocol": "TCP"}
DIAMETER_TLS: dict[str, object] = {"name": "diameters", "port": DIAMETER_TLS_PORT, "protocol": "TCP"}
DIAMETER_SCTP: dict[str, object] = {"name": "diameter-sctp", "port": DIAMETER_PORT, "protocol": "SCTP"}
# A DiameterIdentity is a host name (RFC 6733 section 4.3.1).
_IDENTITY = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})+$")


def check_identity(value: object, what: str) -> None:
    """Raises BadInput for what is no DiameterIdentity; `what`: whose it is."""
    if not isinstance(value, str) or not _IDENTITY.match(value):
        raise BadInput(f"{what} is {value!r}", "a host name in full, for instance epc.mnc001.mcc208.3gppnetwork.org")


@dataclass(frozen=True)
class DiameterPeer:
    """An MME or a Diameter agent of the host network, on S6a. Raises BadInput."""

    host: str
    realm: str
    # An address or a name; without it the peer connects to the HSS.
    address: str | None = None
    # Where the HSS connects to; None: the port of Diameter, or of Diameter over TLS.
    port: int | None = None
    transport: str = "TCP"
    # TLS with certificates on both sides, from the first octet on (RFC 6733 section 13.1).
    tls: bool = False

    def __post_init__(self) -> None:
        check_identity(self.host, "a Diameter peer's host")
        who = f"the Diameter peer {self.host}"
        check_identity(self.realm, f"the realm of {who}")
        if self.address is not None:
            try:
                ipaddress.ip_address(self.address)
            except ValueError:
                check_identity(self.address, f"the address of {who}")
        if self.port is not None and (type(self.port) is not int or not 0 < self.port < 65536):
            raise BadInput(f"the port of {who} is {self.port!r}", "take 1 to 65535")
        if self.transport not in TRANSPORTS:
            raise BadInput(f"the transport of {who} is {self.transport!r}", f"one of {', '.join(TRANSPORTS)}")
        if not isinstance(self.tls, bool):
            raise BadInput(f"tls of {who} is {self.tls!r}", "true or false")
        if self.tls and self.transport == "SCTP":
            raise BadInput(
                f"{who} is to speak SCTP with TLS, where RFC 6733 has DTLS, which freeDiameter has not",
                '"transport": "TCP" with "tls": true, or SCTP without TLS on a network of your own (IPsec)',
            )

    @property
    def number(self) -> int:
        """The port that the HSS connects to."""
        return self.port or (DIAMETER_TLS_PORT if self.tls else DIAMETER_PORT)

    @property
    def setting(self) -> dict[str, object]:
        """As `peers` of the stacks' setting `epc` has it."""
        usual = DiameterPeer(self.host, self.realm)
        asked = {key: value for key, value in vars(self).items() if value != getattr(usual, key)}
        return {"host": self.host, "realm": self.realm, **asked}


def doors(peers: Sequence[DiameterPeer], *, test_peers: bool) -> tuple[dict[str, object], ...]:
    """What the host network dials. Peers may connect either way, whoever is told an address (RFC 6733 section 5.2)."""
    plain = test_peers or not peers or any(one.transport == "TCP" and not one.tls for one in peers)
    wanted = (
        (DIAMETER, plain),
        (DIAMETER_TLS, any(one.tls for one in peers)),
        (DIAMETER_SCTP, any(one.transport == "SCTP" for one in peers)),
    )
    return tuple(door for door, there in wanted if there)


def listens(peers: Sequence[DiameterPeer]) -> tuple[dict[str, object], ...]:
    """The HSS's own ports: the plain one too, which the cluster's own MME and test peers dial."""
    return (DIAMETER, *(door for door in doors(peers, test_peers=False) if door is not DIAMETER))


def policies(peers: Sequence[DiameterPeer], *, test_peers: bool) -> dict[str, dict[str, list[object]]]:
    """The chart's `diameterFrom` and `diameterTo`: ports by protocol, for connections both ways."""
    found: dict[str, dict[str, list[object]]] = {"diameterFrom": {}, "diameterTo": {}}
    for door in doors(peers, test_peers=test_peers):
        found["diameterFrom"].setdefault(str(door["protocol"]), []).append(door["name"])
    for transport, number in sorted({(one.transport, one.number) for one in peers if one.address}):
        found["diameterTo"].setdefault(transport, []).append(number)
    return found
