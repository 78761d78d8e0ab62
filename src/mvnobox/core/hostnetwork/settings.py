"""Settings of the test peer."""

from __future__ import annotations

from pydantic import Field

from mvnobox.core.hostnetwork import gtpc
from mvnobox.core.sim.settings import Plmn
from mvnobox.service.settings import Settings


class MmeSettings(Settings):
    """Who we are on S6a."""

    host: str
    realm: str


class HssSettings(Settings):
    """Where the HSS is, and its realm; `host` where requests are to name it."""

    address: str
    port: int = 3868
    realm: str
    host: str = ""


class HostNetworkSettings(Settings):
    mme: MmeSettings
    hss: HssSettings
    # The packet gateway's name or address.
    pgw: str
    pgw_port: int = gtpc.PORT
    listen: str = "0.0.0.0"
    gtpc_port: int = gtpc.PORT
    # The serving network, and where in it the phone is.
    plmn: Plmn
    tac: int = Field(default=1, ge=0, le=0xFFFF)
    cell: int = Field(default=1, ge=0, le=0x0FFFFFFF)
    # TS 29.274 clause 7.6: seconds to an answer, attempts.
    t3: float = Field(default=3.0, gt=0)
    n3: int = Field(default=3, ge=1)
    # Seconds between two echo requests: 60 at least in a network (TS 29.274 clause 7.1.1).
    echo_seconds: float = Field(default=60.0, gt=0)
    # 3GPP-Charging-Characteristics where the subscription names none: prepaid (TS 32.251 annex A).
    charging: str = Field(default="0400", pattern="^[0-9a-fA-F]{4}$")
    state: str = "/run/mvno"
    http: str = "0.0.0.0:8081"
