"""4G beside 5G, as an option: HSS, PCRF and perhaps a serving gateway for all, a packet gateway for each brand."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mvnobox.errors import BadInput
from mvnobox.render.engine import render_template
from mvnobox.render.mme import Mme
from mvnobox.render.names import OBJECT_NAME
from mvnobox.render.networks import check_networks
from mvnobox.render.outside import BrandEdge, Outside
from mvnobox.render.s6a import DiameterPeer, check_identity, policies
from mvnobox.spec import BrandSpec
from mvnobox.spec.networks import UE_PREFIX

# As mvnobox.spec has it: it becomes part of a host name.
_BRAND = re.compile(r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$")
# The realm of test peers; `test` is nobody's (RFC 6761 section 6.2).
TEST_REALM = "hostnetwork.test"


@dataclass(frozen=True)
class Epc:
    """4G of a platform. Raises BadInput."""

    # The Diameter realm of HSS, PCRF, OCS and packet gateways: TS 23.003 clause 19.2.
    realm: str
    # Brands with a packet gateway, by name.
    brands: tuple[str, ...] = ()
    peers: tuple[DiameterPeer, ...] = ()
    # IPv4 networks of the host network's MMEs, agents and serving gateways: S6a and S8 are open to them.
    host_networks: tuple[str, ...] = ()
    # SGW-C and SGW-U, where no host network has them.
    serving_gateway: bool = False
    # A stand-in for the host network beside each brand's user plane: `mvno verify --access 4g` needs it.
    test_peers: bool = False
    # How a host network outside of the cluster reaches the functions; None: by the cluster's own addresses.
    outside: Outside | None = None
    # For networks with eNBs of their own.
    mme: Mme | None = None
    # A Secret in the platform's namespace with tls.crt (for the HSS's name), tls.key and ca.crt, where peers speak TLS.
    tls_secret: str | None = None

    def __post_init__(self) -> None:
        check_identity(self.realm, "the realm of 4G")
        for brand in self.brands:
            if not _BRAND.match(brand):
                raise BadInput(f"a brand with 4G is called {brand!r}", "name brands as their BrandSpecs do")
        if len(set(self.brands)) != len(self.brands):
            raise BadInput("a brand with 4G is there twice", "name each brand once")
        check_networks(self.host_networks, whose="the host network", what="S6a and S8", own="the host network's")
        hosts = [peer.host.lower() for peer in self.peers]
        if len(set(hosts)) != len(hosts):
            raise BadInput("a Diameter peer is there twice", "name each host once")
        self._check_tls()
        if self.mme is not None:
            self.mme.check(brands=self.brands, serving_gateway=self.serving_gateway)
        if self.outside is not None:
            peers = [peer.address for peer in self.peers]
            self.outside.check(brands=self.brands, networks=self.host_networks, peers=peers)

    def _check_tls(self) -> None:
        secured = [peer.host for peer in self.peers if peer.tls]
        if self.tls_secret is None:
            if secured:
                raise BadInput(
                    f"the Diameter peer {secured[0]} speaks TLS, and the HSS has no certificate",
                    f'"tlsSecret" in epc: a Secret in the platform\'s namespace with tls.crt for {self.hss}, tls.key, ca.crt',
                )
            return
        if not isinstance(self.tls_secret, str) or not OBJECT_NAME.match(self.tls_secret):
            raise BadInput(
                f"tlsSecret of 4G is {self.tls_secret!r}", "the name of a Secret: at most 63 of a-z, 0-9 and -"
            )
        if not secured:
            raise BadInput(
                f"4G has the tlsSecret {self.tls_secret!r}, and no Diameter peer speaks TLS",
                '"tls": true for those that do, or no tlsSecret',
            )

    @property
    def hss(self) -> str:
        """The Origin-Host of the HSS."""
        return f"hss.{self.realm}"

    @property
    def sctp_peers(self) -> tuple[str, ...]:
        """The Diameter peers for whom the HSS needs SCTP of its node's kernel, by host."""
        return tuple(peer.host for peer in self.peers if peer.transport == "SCTP")

    def packet_gateway(self, brand: str) -> str:
        """The Origin-Host of a brand's packet gateway."""
        return f"{brand}.pgw.{self.realm}"

    @property
    def test_realm(self) -> str | None:
        """The Diameter realm of the test peers; None without them."""
        return TEST_REALM if self.test_peers else None

    def test_peer(self, brand: str) -> str:
        """The Origin-Host of a brand's test peer on S6a."""
        return f"mme.{brand}.{TEST_REALM}"

    def edge(self, brand: str) -> BrandEdge | None:
        """A brand's addresses outside; None where it has none."""
        return self.outside.of_brand(brand) if self.outside is not None else None

    def gateways(self, platform_namespace: str) -> list[tuple[str, str]]:
        """APN and Service of the packet gateway that the MME takes for it."""
        env = platform_namespace.partition("-")[2]
        return [
            (apn, f"pgwc.{brand}-{env}{'-up' if self.edge(brand) is not None else ''}")
            for apn, brand in (self.mme.apns if self.mme else ())
        ]

    @property
    def closed_networks(self) -> tuple[str, ...]:
        """What customers must not reach: serving gateways would take what they send for the UPF's own, GTP in GTP."""
        own = self.outside.addresses if self.outside is not None else ()
        every = map(ipaddress.IPv4Network, (*self.host_networks, *own))
        return tuple(map(str, ipaddress.collapse_addresses(every)))

    @property
    def values(self) -> dict[str, object]:
        """The chart's `epc` block."""
        return {
            "enabled": True,
            "hostNetworks": list(self.host_networks),
            **policies(self.peers, test_peers=self.test_peers),
            "testPeers": self.test_peers,
            **({"enbs": list(self.mme.enbs)} if self.mme else {}),
        }

    @property
    def setting(self) -> dict[str, object]:
        """As the stacks' setting `epc` has it."""
        return {
            "realm": self.realm,
            "brands": list(self.brands),
            "peers": [peer.setting for peer in self.peers],
            "hostNetworks": list(self.host_networks),
            "servingGateway": self.serving_gateway,
            "testPeers": self.test_peers,
            **({"tlsSecret": self.tls_secret} if self.tls_secret is not None else {}),
            **({"outside": self.outside.setting} if self.outside is not None else {}),
            **({"mme": self.mme.setting} if self.mme is not None else {}),
        }

    @classmethod
    def of_setting(cls, value: object) -> Epc | None:
        """From the stacks' setting `epc`; None without one. Raises BadInput."""
        if value is None:
            return None
        try:
            given = dict(value)  # type: ignore[call-overload]
            lists = {key: given.pop(key, []) for key in ("brands", "peers", "hostNetworks")}
            switches = {key: given.pop(key, False) for key in ("servingGateway", "testPeers")}
            if not all(isinstance(one, list) for one in lists.values()):
                raise TypeError
            if not all(isinstance(one, bool) for one in switches.values()):
                raise TypeError
            return cls(
                realm=given.pop("realm"),
                brands=tuple(lists["brands"]),
                peers=tuple(DiameterPeer(**peer) for peer in lists["peers"]),
                host_networks=tuple(lists["hostNetworks"]),
                serving_gateway=switches["servingGateway"],
                test_peers=switches["testPeers"],
                tls_secret=given.pop("tlsSecret", None),
                outside=Outside.of_setting(given.pop("outside", None)),
                mme=Mme.of_setting(given.pop("mme", None)),
                **given,
            )
        except (TypeError, KeyError, ValueError):
            raise BadInput(
                f"the setting epc is {value!r}",
                '{"realm": "epc.mnc093.mcc208.3gppnetwork.org", "brands": ["silverline"]}, and perhaps peers, '
                "tlsSecret, hostNetworks, servingGateway, testPeers, outside, mme: docs/open5gs.md",
            ) from None


@dataclass(frozen=True)
class Ranges:
    """A pool's two halves, as Open5GS writes ranges: two SMFs must not give one address twice."""

    of_5g: str
    of_4g: str
    # The same of IPv6, by the first address of the first and the last /64; empty without a pool6.
    of_5g6: str = ""
    of_4g6: str = ""


def pool_ranges(brand: BrandSpec) -> dict[str, Ranges]:
    """By data network: the lower half without the gateway is 5G's, the upper half without the broadcast 4G's."""
    halves = {}
    for network in brand.data_networks:
        lower, upper = network.network.subnets(prefixlen_diff=1)
        first, last = lower.network_address + 2, upper.broadcast_address - 1
        of_both = (f"{first}-{lower.broadcast_address}", f"{upper.network_address}-{last}")
        halves[network.name] = Ranges(*of_both, *_halves6(network.network6))
    return halves


def _halves6(pool: ipaddress.IPv6Network | None) -> tuple[str, str]:
    """The same in /64s: the gateway's, which is the first one, and the last one are nobody's."""
    if pool is None:
        return "", ""
    one = 1 << 128 - UE_PREFIX
    lower, upper = pool.subnets(prefixlen_diff=1)
    end = upper.network_address + (upper.num_addresses - 2 * one)
    return (
        f"{lower.network_address + one}-{lower.network_address + (lower.num_addresses - one)}",
        f"{upper.network_address}-{end}",
    )


def check_halves(brand: BrandSpec) -> None:
    """Refuse 4G where half of a pool has no address for every line that the brand can sell. Raises BadInput."""
    sold = {plan.dnn for plan in brand.plans}
    for network in brand.data_networks:
        # The gateway and the network address are out of 5G's half, which is the smaller one therefore.
        room = network.network.num_addresses // 2 - 2
        if network.name in sold and room < brand.lines:
            enough = 32 - (2 * (brand.lines + 2) - 1).bit_length()
            raise BadInput(
                f"with 4G a half of {network.pool} of {network.name!r} is 5G's, with room for {room} UEs, and brand "
                f"{brand.name!r} can sell {brand.lines} lines (numberRange, msinRange)",
                f"a /{enough} in the brand's file, shorter ranges, or no 4G for this brand",
            )
        if network.network6 is None or network.name not in sold:
            continue
        # Each half has a /64 that no UE gets: the gateway's, and the last one.
        room = 2 ** (UE_PREFIX - network.network6.prefixlen) // 2 - 1
        if room < brand.lines:
            enough = UE_PREFIX - (2 * (brand.lines + 1) - 1).bit_length()
            raise BadInput(
                f"with 4G a half of {network.pool6} of {network.name!r} is 5G's, with room for {room} UEs of a "
                f"/{UE_PREFIX} each, and brand {brand.name!r} can sell {brand.lines} lines (numberRange, msinRange)",
                f"a /{enough} in the brand's file, shorter ranges, or no 4G for this brand",
            )


def diameter_files(name: str, context: Mapping[str, object]) -> dict[str, str]:
    """The freeDiameter configuration of a function, by file name."""
    files = [f"{name}.conf"] + ([f"{name}.acl"] if name in ("hss", "pcrf") else [])
    return {file: render_template(f"freediameter/{file}.j2", **context) for file in files}
