"""Settings of the CTF."""

from __future__ import annotations

import socket

from pydantic import Field

from mvnobox.service.settings import Settings


def resolve(name: str, ipv6: bool | None = None) -> str:
    """The first address of a name, or of one of the families. Raises OSError while it has none."""
    family = socket.AF_UNSPEC if ipv6 is None else socket.AF_INET6 if ipv6 else socket.AF_INET
    return str(socket.getaddrinfo(name, None, family, socket.SOCK_DGRAM)[0][4][0])


class CtfSettings(Settings):
    brand: str
    listen: str = "0.0.0.0"
    port: int = 8805
    advertise: str = Field(default="", description="our N4 address as the peers see it; empty: resolve advertiseName")
    advertise_name: str = ""
    upf: str
    upf_port: int = 8805
    upf_initiates: bool = Field(
        default=False,
        description="the UPF sets the association up, by our Service's address; it is talked to where it was heard from",
    )
    upf_ignores_drop: bool = Field(
        default=False,
        description="the UPF sends uplink packets to the data network whatever the Apply Action says (Open5GS): a closed "
        "gate has to lead them elsewhere",
    )
    http: str = "0.0.0.0:8081"
    notify_uri: str
    ocs: str
    shaper: str | None = Field(
        default=None,
        pattern=r"^http://[A-Za-z0-9.:\[\]-]+$",
        description="beside a UPF that keeps no maximum bit rates: what slows sessions in its place",
    )
    rating_group: int = Field(default=1, ge=0)
    quota_octets: int = Field(default=5_000_000, gt=0)
    reporting_quantum_octets: int = Field(default=5_000_000, gt=0)
    ocs_patience_seconds: float = Field(default=5.0, gt=0)

    def own_address(self) -> str:
        """The address that goes into Node ID and F-SEID. Raises OSError while the name has none."""
        if self.advertise:
            return self.advertise
        # What listens on an IPv4 address only is reached by IPv4 only.
        return resolve(self.advertise_name, None if ":" in self.listen else False)
