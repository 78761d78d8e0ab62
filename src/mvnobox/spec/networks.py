"""Data networks: what a brand's UEs attach to, and the addresses that they get."""

from __future__ import annotations

import ipaddress
from collections import Counter

from pydantic import Field, IPvAnyAddress, ValidationInfo, field_validator, model_validator

from mvnobox.spec.parts import Model
from mvnobox.spec.units import BitRate

# Address space that the cluster and the node use themselves.
RESERVED_POOLS = ("10.96.0.0/16", "10.244.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")
# Unique local (RFC 4193) and global unicast addresses (RFC 4291 section 2.4).
_UNIQUE_LOCAL, _GLOBAL = ipaddress.IPv6Network("fc00::/7"), ipaddress.IPv6Network("2000::/3")
# Every UE has a prefix of this length (TS 23.501 clause 5.8.2.2.3).
UE_PREFIX = 64
LARGEST_POOL6, SMALLEST_POOL6 = 32, 61
# A session tells a UE so many resolvers of each family.
RESOLVERS = 2
_EXAMPLE = "fd45:6a70:1c00::/48"


class Ambr(Model):
    """Aggregate maximum bit rate of a subscriber (TS 23.501 clause 5.7.1.6)."""

    downlink: BitRate
    uplink: BitRate


class DataNetwork(Model):
    """A DNN/APN that the brand sells, with the addresses of its UEs."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", max_length=63)
    routed: bool = Field(
        default=False,
        description="false: UEs are behind NAT; true: they keep their addresses, which the platform's network has to route",
    )
    pool: str = Field(examples=["10.45.0.0/16"], description="IPv4 network of the UEs; the first host is the gateway")
    pool6: str | None = Field(
        default=None,
        examples=[_EXAMPLE],
        description="IPv6 network, of which each UE gets a /64 besides its IPv4 address; none: IPv4 only",
    )
    dns: list[IPvAnyAddress] = Field(default_factory=list, max_length=2 * RESOLVERS)
    mtu: int = Field(default=1400, ge=1280, le=9000)
    ambr: Ambr

    @field_validator("pool")
    @classmethod
    def _network(cls, value: str, info: ValidationInfo) -> str:
        try:
            network = ipaddress.IPv4Network(value)
        except ValueError as error:
            raise ValueError(f"{error}: write an IPv4 network, for instance 10.45.0.0/16") from None
        if not network.is_private and not info.data.get("routed"):
            raise ValueError(
                f"{value} is public address space: UEs are behind NAT, take a private network, or routed: true where the "
                "platform's network routes it here"
            )
        if network.prefixlen > 29:
            raise ValueError(f"{value} holds {max(network.num_addresses - 3, 0)} UEs: take a /29 or larger")
        for taken in RESERVED_POOLS:
            if network.overlaps(ipaddress.IPv4Network(taken)):
                raise ValueError(f"{value} overlaps {taken}, which the cluster itself uses")
        return str(network)

    @field_validator("pool6")
    @classmethod
    def _network6(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            network = ipaddress.IPv6Network(value)
        except ValueError as error:
            raise ValueError(f"{error}: write an IPv6 network, for instance {_EXAMPLE}") from None
        own = network.subnet_of(_UNIQUE_LOCAL) or (network.subnet_of(_GLOBAL) and network.is_global)
        if not own:
            raise ValueError(
                f"{value} is no address space for UEs: take a unique local network (RFC 4193, for instance {_EXAMPLE}) "
                "or a global one that is routed to you"
            )
        if network.prefixlen < LARGEST_POOL6:
            raise ValueError(f"{value} is larger than a /{LARGEST_POOL6}: write the part that this data network has")
        if network.prefixlen > SMALLEST_POOL6:
            raise ValueError(
                f"{value} holds {prefixes(network)} UEs, each of which gets a /{UE_PREFIX}: "
                f"take a /{SMALLEST_POOL6} or larger"
            )
        return str(network)

    @model_validator(mode="after")
    def _reachable_resolvers(self) -> DataNetwork:
        of_family = Counter(server.version for server in self.dns)
        for version, count in of_family.items():
            if count > RESOLVERS:
                raise ValueError(f"names {count} IPv{version} resolvers: a UE is told {RESOLVERS} of a family at most")
        if of_family[6] and self.pool6 is None:
            raise ValueError("names an IPv6 resolver, which UEs without IPv6 cannot reach: give pool6, or leave it out")
        return self

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.pool)

    @property
    def gateway(self) -> str:
        """The user plane's own address in the pool: its first host."""
        return str(self.network.network_address + 1)

    @property
    def capacity(self) -> int:
        """UEs that can have an address at once (network, gateway and broadcast left out)."""
        return self.network.num_addresses - 3

    @property
    def network6(self) -> ipaddress.IPv6Network | None:
        return ipaddress.IPv6Network(self.pool6) if self.pool6 is not None else None

    @property
    def gateway6(self) -> str | None:
        """The user plane's own IPv6 address: the first host of the pool's first /64, which no UE has."""
        return str(self.network6.network_address + 1) if self.network6 is not None else None

    @property
    def translated6(self) -> bool:
        """Whether the UEs' IPv6 packets leave under the user plane's own address.

        Those of unique local networks do, which nobody routes unless the file says so.
        """
        return not self.routed and self.network6 is not None and self.network6.subnet_of(_UNIQUE_LOCAL)


def prefixes(network: ipaddress.IPv6Network) -> int:
    """UEs that can have a /64 of it at once: the first one is the gateway's, Open5GS never gives the last one."""
    return int(max(2 ** (UE_PREFIX - network.prefixlen) - 2, 0)) if network.prefixlen <= UE_PREFIX else 0
