"""5G roaming, as an option: a SEPP towards partners' SEPPs on N32 (TS 33.501 clause 13, TS 29.573)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mvnobox.errors import BadInput
from mvnobox.render.names import OBJECT_NAME

_HOST = re.compile(r"^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))+$")
N32_PORT = 8443
SERVICES = ("ClusterIP", "NodePort", "LoadBalancer")


def sepp_name(mcc: str, mnc: str) -> str:
    """The FQDN of a PLMN's SEPP (TS 23.003 clause 28.3.2)."""
    return f"sepp.5gc.mnc{mnc.zfill(3)}.mcc{mcc}.3gppnetwork.org"


def _plmn(mcc: object, mnc: object, whose: str) -> None:
    digits = all(isinstance(one, str) and one.isascii() and one.isdigit() for one in (mcc, mnc))
    if not digits or len(str(mcc)) != 3 or len(str(mnc)) not in (2, 3):
        raise BadInput(f"{whose} PLMN is {mcc!r}-{mnc!r}", 'MCC and MNC in quotes, for instance "208" and "93"')


@dataclass(frozen=True)
class Partner:
    """A roaming partner's SEPP. Raises BadInput."""

    mcc: str
    mnc: str
    # Where its N32 comes from and is: never everybody.
    networks: tuple[str, ...]
    # None: the name that TS 23.003 gives it.
    fqdn: str | None = None
    # None: by DNS.
    address: str | None = None
    port: int = 443

    def __post_init__(self) -> None:
        _plmn(self.mcc, self.mnc, "a roaming partner's")
        if not _HOST.match(self.name):
            raise BadInput(f"the SEPP of {self.mcc}-{self.mnc} is {self.fqdn!r}", "a host name in full, in lower case")
        if not self.networks:
            raise BadInput(
                f"the roaming partner {self.mcc}-{self.mnc} has no networks",
                'where its SEPP is, for instance "networks": ["203.0.113.0/28"]: N32 is open to nobody else',
            )
        found = []
        for network in self.networks:
            try:
                found.append(ipaddress.ip_network(network))
            except ValueError as error:
                raise BadInput(
                    f"a network of {self.mcc}-{self.mnc} is {network!r}: {error}", "as 203.0.113.0/28"
                ) from None
        if any(one.prefixlen == 0 for one in found):
            raise BadInput("N32 would be open to everybody", "name the partner's own addresses")
        if self.address is not None:
            try:
                address = ipaddress.ip_address(self.address)
            except ValueError:
                raise BadInput(
                    f"the address of {self.name} is {self.address!r}", "an IP address, or leave it out"
                ) from None
            if not any(address in one for one in found):
                raise BadInput(
                    f"{self.address} of {self.name} is in none of its networks", "add it: policies would stop it"
                )
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 < self.port < 65536:
            raise BadInput(f"the port of {self.name} is {self.port!r}", "take 1 to 65535")

    @property
    def name(self) -> str:
        """The FQDN that it calls itself in the N32-c handshake."""
        return self.fqdn or sepp_name(self.mcc, self.mnc)


@dataclass(frozen=True)
class Roaming:
    """A platform's SEPP. Raises BadInput."""

    mcc: str
    mnc: str
    # A Secret in the platform's namespace with tls.crt, tls.key and ca.crt: N32 is TLS on both sides or not at all.
    tls_secret: str
    partners: tuple[Partner, ...]
    # How N32 is reached from outside of the cluster.
    service: str = "ClusterIP"

    def __post_init__(self) -> None:
        _plmn(self.mcc, self.mnc, "the SEPP's own")
        if not isinstance(self.tls_secret, str) or not OBJECT_NAME.match(self.tls_secret):
            raise BadInput(
                f"the SEPP's tlsSecret is {self.tls_secret!r}",
                "a Secret with tls.crt, tls.key and ca.crt in the platform's namespace; N32 is never without TLS",
            )
        if not self.partners:
            raise BadInput("roaming has no partners", "name at least one, or leave the setting roaming out")
        if self.service not in SERVICES:
            raise BadInput(f"the service of N32 is {self.service!r}", f"one of {', '.join(SERVICES)}")
        own = (self.mcc, int(self.mnc), len(self.mnc))
        names: set[str] = set()
        for partner in self.partners:
            if (partner.mcc, int(partner.mnc), len(partner.mnc)) == own:
                raise BadInput(f"{partner.mcc}-{partner.mnc} is our own network, not a partner", "leave it out")
            if partner.name in names or partner.name == self.name:
                raise BadInput(f"the SEPP {partner.name} is there twice", "name each partner once")
            names.add(partner.name)

    @property
    def name(self) -> str:
        """Our own FQDN."""
        return sepp_name(self.mcc, self.mnc)

    @property
    def values(self) -> dict[str, object]:
        """The chart's `roaming` block: who N32 is open to, and where it goes."""
        return {
            "networks": sorted({network for partner in self.partners for network in partner.networks}),
            "ports": sorted({partner.port for partner in self.partners}),
        }

    @classmethod
    def of_setting(cls, value: object) -> Roaming | None:
        """From the platform stack's setting `roaming`; None without one. Raises BadInput."""
        if value is None:
            return None
        try:
            given = dict(value)  # type: ignore[call-overload]
            partners = []
            for one in given.pop("partners"):
                fields = dict(one)
                plmn, networks = fields.pop("plmn"), fields.pop("networks", [])
                if not isinstance(networks, list):
                    raise TypeError
                partners.append(Partner(plmn["mcc"], plmn["mnc"], tuple(networks), **fields))
            plmn = given.pop("plmn")
            return cls(plmn["mcc"], plmn["mnc"], given.pop("tlsSecret", ""), tuple(partners), **given)
        except (TypeError, KeyError, ValueError, AttributeError):
            raise BadInput(
                f"the setting roaming is {value!r}",
                '{"plmn": {"mcc": "208", "mnc": "93"}, "tlsSecret": "sepp-tls", "partners": [{"plmn": {"mcc": "262", '
                '"mnc": "01"}, "networks": ["203.0.113.0/28"]}]}, and perhaps service, and fqdn, address, port of a '
                "partner: docs/open5gs.md",
            ) from None
