"""What a core and a subscriber are, said without Kubernetes: the translation's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Need(StrEnum):
    """What a platform may ask of a core; the operator can do none of these."""

    EPC = "4g"  # HSS, PCRF, MME, serving gateway, Diameter
    CHARGING_ON_N4 = "ctf-on-n4"
    SEVERAL_SMF = "several-smf"
    SEVERAL_UPF = "several-upf"
    SBI_TLS = "sbi-tls"
    ROUTED = "routed-pool"


class IpVersion(StrEnum):
    """The PDU session type (TS 23.501 clause 5.6.1)."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    IPV4V6 = "ipv4v6"


@dataclass(frozen=True)
class Slice:
    """An S-NSSAI (TS 23.003 clause 28.4.2): `sst` 0-255, `sd` six hexadecimal digits, None for a slice without."""

    sst: int
    sd: str | None = None


@dataclass(frozen=True)
class CoreInput:
    """A 5G core. `region` 0-255, `set_id` 0-1023 (TS 23.003 clause 2.10.1), `tac` 1-16777215 (clause 19.4.2.3)."""

    name: str
    namespace: str
    mcc: str
    mnc: str
    slices: tuple[Slice, ...]
    region: int = 2
    set_id: int = 1
    tac: int = 1
    dnns: tuple[str, ...] = ("internet",)
    ip: IpVersion = IpVersion.IPV4
    pool: str | None = None
    needs: frozenset[Need] = frozenset()
    open5gs_image: str | None = None
    mongodb_image: str | None = None
    service_monitors: bool = False
    unprivileged_upf: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SubscribedSlice:
    """A slice of a subscriber and its APNs (DNNs)."""

    slice: Slice
    apns: tuple[str, ...] = ("internet",)


@dataclass(frozen=True)
class SubscriberInput:
    """A subscriber. `key` (Ki) and `opc`: 32 hexadecimal digits each (TS 35.206); `imsi`: 14 or 15 digits."""

    imsi: str
    key: str = field(repr=False)
    opc: str = field(repr=False)
    slices: tuple[SubscribedSlice, ...]
    ip: IpVersion = IpVersion.IPV4
    suspended: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
