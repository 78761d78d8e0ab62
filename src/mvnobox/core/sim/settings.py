"""Settings of the simulated core's processes."""

from __future__ import annotations

import ipaddress
import socket

from pydantic import Field, model_validator

from mvnobox.pfcp.endpoint import N1_REQUESTS, PORT, T1_SECONDS
from mvnobox.service.settings import Settings

SMALLEST_POOL6, LEAST_MTU6 = 62, 1280


class Dnn(Settings):
    name: str
    pool: str
    gateway: str
    pool6: str | None = Field(default=None, description="a /64 of it for each UE; none: IPv4 only")
    gateway6: str | None = None
    mtu: int = Field(default=1400, ge=576, le=9000)
    dns: tuple[str, ...] = ()
    # Whether its UEs keep their addresses; else they are behind NAT.
    routed: bool = False

    @model_validator(mode="after")
    def _both_or_neither(self) -> Dnn:
        if (self.pool6 is None) != (self.gateway6 is None):
            raise ValueError("pool6 and gateway6 go together")
        if self.network6 is not None and self.network6.prefixlen > SMALLEST_POOL6:
            raise ValueError(f"pool6 is a /{SMALLEST_POOL6} at least: every UE gets a /64 of it")
        if self.network6 is not None and self.mtu < LEAST_MTU6:
            raise ValueError(f"the mtu is {LEAST_MTU6} at least with pool6 (RFC 8200 section 5)")
        return self

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.pool)

    @property
    def network6(self) -> ipaddress.IPv6Network | None:
        return ipaddress.IPv6Network(self.pool6) if self.pool6 is not None else None


class Plmn(Settings):
    mcc: str
    mnc: str


class Snssai(Settings):
    sst: int
    sd: str | None = None


class Advertised(Settings):
    """An address of ours that others are told: given, or a name that resolves to it."""

    advertise_name: str = ""
    advertise: str = ""

    def own_address(self) -> str:
        """Raises OSError while the name does not resolve."""
        return self.advertise or socket.gethostbyname(self.advertise_name)


class Transactions(Settings):
    """PFCP's timers (TS 29.244 clause 6.4): seconds to an answer, repetitions, seconds between heartbeats."""

    port: int = PORT
    t1: float = T1_SECONDS
    n1: int = N1_REQUESTS
    heartbeat: float = 5.0
    listen: str = "0.0.0.0"


class N4Peer(Advertised, Transactions):
    peer: str
    peer_port: int = PORT


class SmfSettings(Settings):
    listen: str = "0.0.0.0:38500"
    n4: N4Peer
    directory: str
    plmn: Plmn
    slice: Snssai
    dnns: list[Dnn] = Field(min_length=1)
    http: str = "0.0.0.0:8081"
    watch_seconds: float = 2.0


class UpfSettings(Settings):
    n4: Transactions = Transactions()
    n3: Advertised
    dnns: list[Dnn] = Field(min_length=1)
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    between_ues: bool = False
    http: str = "0.0.0.0:8081"


class UeSettings(Settings):
    smf: str
    http: str = "0.0.0.0:8081"
    state: str = "/run/mvno"


class DnSettings(Settings):
    listen: str = "0.0.0.0:8080"
    # The port of an iperf3 server beside it; None: no such server.
    iperf3: int | None = Field(default=None, ge=1, le=65535)
