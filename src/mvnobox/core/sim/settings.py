"""Settings of the simulated core's processes."""

from __future__ import annotations

import ipaddress
import socket

from pydantic import Field

from mvnobox.pfcp.endpoint import N1_REQUESTS, PORT, T1_SECONDS
from mvnobox.service.settings import Settings


class Dnn(Settings):
    name: str
    pool: str
    gateway: str
    mtu: int = Field(default=1400, ge=576, le=9000)
    dns: tuple[str, ...] = ()
    # Whether its UEs keep their addresses; else they are behind NAT.
    routed: bool = False

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.pool)


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
