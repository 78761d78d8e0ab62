"""4G towards a host network outside of the cluster: the addresses that it dials, for HSS, packet gateways and UPFs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mvnobox.errors import BadInput

SERVICES = ("LoadBalancer", "ExternalIPs")
_WHY_NOT = {
    "NodePort": "GTP's ports are 2123 and 2152 (TS 29.274 clause 4.2, TS 29.281 clause 4.4), and a node port is another",
    "HostPort": "the namespaces' pod security standard has no host ports; ExternalIPs does it by kube-proxy",
    "ClusterIP": "nobody outside of the cluster reaches it",
}
# A key of Kubernetes's annotations, as far as a mistake in it is likely.
_ANNOTATION = re.compile(r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")


def _address(value: object, whose: str) -> None:
    """Raises BadInput for what is no IPv4 address that a host network could dial."""
    try:
        if not isinstance(value, str):
            raise ValueError("not a text")
        address = ipaddress.IPv4Address(value)
    except ValueError as error:
        raise BadInput(f"{whose} outside is {value!r}: {error}", "an IPv4 address, for instance 203.0.113.20") from None
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise BadInput(f"{whose} outside is {value}, which nobody can dial", "an address of the host network's route")
    if address in ipaddress.IPv4Network("240.0.0.0/4"):
        raise BadInput(f"{whose} outside is {value}, which is reserved", "an address of the host network's route")


@dataclass(frozen=True)
class BrandEdge:
    """A brand's addresses: GTP-C of its packet gateway, GTP-U of its UPF. Raises BadInput."""

    brand: str
    pgw: str
    upf: str

    def __post_init__(self) -> None:
        _address(self.pgw, f"the packet gateway of {self.brand!r}")
        _address(self.upf, f"the UPF of {self.brand!r}")


@dataclass(frozen=True)
class Outside:
    """How a host network reaches the functions. Raises BadInput."""

    service: str = "LoadBalancer"
    # None: the HSS is not dialled from outside; it may connect by itself.
    hss: str | None = None
    brands: tuple[BrandEdge, ...] = ()
    # Of the Services, for the load balancer's controller.
    annotations: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.service not in SERVICES:
            reason = _WHY_NOT.get(str(self.service))
            said = f": {reason}" if reason else ""
            raise BadInput(f"the service of 4G outside is {self.service!r}{said}", f"one of {', '.join(SERVICES)}")
        if self.hss is not None:
            _address(self.hss, "the HSS")
        if not self.addresses:
            raise BadInput("4G outside has no address", "hss, or pgw and upf of a brand; or leave it out")
        seen: set[str] = set()
        for address in self.addresses:
            if address in seen:
                raise BadInput(
                    f"the address {address} is there twice outside",
                    "one for the HSS, and two of its own for each brand",
                )
            seen.add(address)
        for key, value in self.annotations:
            if not isinstance(value, str) or not _ANNOTATION.match(key):
                raise BadInput(f"an annotation outside is {key!r}: {value!r}", "a key and a text")

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, the HSS's first."""
        own = (self.hss,) if self.hss is not None else ()
        return (*own, *(address for one in self.brands for address in (one.pgw, one.upf)))

    def of_brand(self, brand: str) -> BrandEdge | None:
        """A brand's addresses; None where its packet gateway stays inside."""
        return next((one for one in self.brands if one.brand == brand), None)

    def check(self, *, brands: Iterable[str], networks: Iterable[str], peers: Iterable[str | None]) -> None:
        """Against the rest of 4G's settings. `peers`: the addresses of S6a's peers. Raises BadInput."""
        if not tuple(networks):
            raise BadInput(
                "4G is outside of the cluster and has no hostNetworks: policies let nobody in",
                'the host network\'s own addresses, for instance "hostNetworks": ["198.51.100.0/24"]',
            )
        known = set(brands)
        for one in self.brands:
            if one.brand not in known:
                raise BadInput(
                    f"{one.brand!r} is outside and has no packet gateway",
                    f"name it in brands as well; those are {', '.join(sorted(known)) or 'none'}",
                )
        for address in set(self.addresses) & {peer for peer in peers if peer}:
            raise BadInput(f"{address} is a Diameter peer's address and ours outside", "an address of our own")

    def service_values(self, address: str, name: str, ports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """A function's `outside` block in the chart. `name`: the Service's, after the function's; it stays while ports
        come and go, as a load balancer does not give its address to a second one."""
        block: dict[str, Any] = {
            "type": self.service, "name": name, "ports": [dict(port) for port in ports], "address": address,
        }  # fmt: skip
        if self.annotations:
            block["annotations"] = dict(self.annotations)
        return block

    @property
    def setting(self) -> dict[str, Any]:
        """As the setting `epc` has it."""
        found: dict[str, Any] = {
            "service": self.service,
            "brands": {one.brand: {"pgw": one.pgw, "upf": one.upf} for one in self.brands},
        }
        if self.hss is not None:
            found["hss"] = self.hss
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found

    @classmethod
    def of_setting(cls, value: object) -> Outside | None:
        """From `outside` of the setting `epc`; None without it. Raises BadInput."""
        if value is None:
            return None
        try:
            given = dict(value)  # type: ignore[call-overload]
            edges = tuple(BrandEdge(brand, **dict(one)) for brand, one in dict(given.pop("brands", {})).items())
            annotations = tuple(sorted(dict(given.pop("annotations", {})).items()))
            return cls(brands=edges, annotations=annotations, **given)
        except (TypeError, ValueError):
            raise BadInput(
                f"outside of the setting epc is {value!r}",
                '{"service": "LoadBalancer", "hss": "203.0.113.19", "brands": {"silverline": {"pgw": "203.0.113.20", '
                '"upf": "203.0.113.21"}}}, and perhaps annotations: docs/open5gs.md',
            ) from None
