"""Settings of the CTF."""

from __future__ import annotations

import socket

from pydantic import Field

from mvnobox.service.settings import Settings


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
    http: str = "0.0.0.0:8081"
    notify_uri: str
    ocs: str
    rating_group: int = Field(default=1, ge=0)
    quota_octets: int = Field(default=5_000_000, gt=0)
    reporting_quantum_octets: int = Field(default=5_000_000, gt=0)
    ocs_patience_seconds: float = Field(default=5.0, gt=0)

    def own_address(self) -> str:
        """The address that goes into Node ID and F-SEID. Raises OSError while the name has none."""
        return self.advertise or socket.gethostbyname(self.advertise_name)
