"""Settings of the simulated core's processes."""

from __future__ import annotations

import ipaddress
import socket

from mvnobox.service.settings import Settings


class Dnn(Settings):
    name: str
    pool: str
    gateway: str
    mtu: int = 1400

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.pool)


class Plmn(Settings):
    mcc: str
    mnc: str


class Snssai(Settings):
    sst: int
    sd: str | None = None


class N4Peer(Settings):
    peer: str
    advertise_name: str = ""
    advertise: str = ""
    port: int = 8805
    listen: str = "0.0.0.0"

    def own_address(self) -> str:
        return self.advertise or socket.gethostbyname(self.advertise_name)


class SmfSettings(Settings):
    listen: str = "0.0.0.0:38500"
    n4: N4Peer
    directory: str
    plmn: Plmn
    slice: Snssai
    dnns: list[Dnn]
    http: str = "0.0.0.0:8081"


class N4Listen(Settings):
    listen: str = "0.0.0.0"
    port: int = 8805


class N3(Settings):
    advertise_name: str = ""
    advertise: str = ""

    def own_address(self) -> str:
        return self.advertise or socket.gethostbyname(self.advertise_name)


class UpfSettings(Settings):
    n4: N4Listen = N4Listen()
    n3: N3
    dnns: list[Dnn]
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    http: str = "0.0.0.0:8081"


class UeSettings(Settings):
    smf: str
    http: str = "0.0.0.0:8081"
    state: str = "/run/mvno"


class DnSettings(Settings):
    listen: str = "0.0.0.0:8080"
