"""TUN devices and the little of iproute2 and nftables that goes with them."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import struct
import subprocess
from collections.abc import Sequence

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 1, 0x1000
QUEUE_LENGTH = 5000


class HostError(RuntimeError):
    """The pod or host does not let us set up the user plane."""


def run(*command: str, stdin: str | None = None) -> str:
    """Run a program; its output. Raises HostError with its words."""
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def need_ipv6() -> None:
    """Raises HostError where IPv6 is off in this network namespace."""
    try:
        with open("/proc/sys/net/ipv6/conf/all/disable_ipv6") as handle:
            off = handle.read().strip() != "0"
    except OSError:
        off = True
    if off:
        raise HostError(
            "IPv6 is off here (net.ipv6.conf.all.disable_ipv6): let the node's runtime leave it on, or do without pool6"
        )


def open_tun(name: str, addresses: Sequence[str], mtu: int) -> int:
    """A TUN device that is up, with addresses (CIDR) of either family; its non-blocking file descriptor."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(f"/dev/net/tun: {error.strerror}") from None
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(descriptor)
        raise HostError(f"TUN device {name}: {error.strerror}; the pod needs NET_ADMIN") from None
    # No link-local address, hence no router solicitations of the kernel's that count as traffic; nor reports of
    # multicast groups. By netlink, since a pod's /proc/sys is read-only.
    run("ip", "link", "set", name, "addrgenmode", "none", "multicast", "off")
    for address in addresses:
        add_address(name, address)
    run("ip", "link", "set", name, "mtu", str(mtu), "txqueuelen", str(QUEUE_LENGTH), "up")
    return descriptor


def add_address(name: str, address: str) -> None:
    """Give a device an address (CIDR); nobody else can have it, so it is not asked for."""
    # A single IPv6 address brings no route into the table of those who do not send through the device.
    more = ["nodad", *(["noprefixroute"] if address.endswith("/128") else [])] if ":" in address else []
    run("ip", "address", "replace", address, "dev", name, *more)


def route_own_traffic(name: str, address: str, table: int) -> None:
    """Send through a device what comes from its address or is bound to it, and nothing else of the pod's traffic."""
    family = "-6" if ":" in address else "-4"
    _forget(family, table)
    run("ip", family, "route", "replace", "default", "dev", name, "table", str(table))
    run("ip", family, "rule", "add", "from", address, "lookup", str(table))
    run("ip", family, "rule", "add", "oif", name, "lookup", str(table))


def forget_routes(table: int) -> None:
    """Take a table's rules away, those of an earlier process included."""
    for family in ("-4", "-6"):
        _forget(family, table)


def _forget(family: str, table: int) -> None:
    for _ in range(8):
        try:
            run("ip", family, "rule", "delete", "lookup", str(table))
        except HostError:
            return


def counters(name: str) -> tuple[int, int]:
    """(received, sent) octets of IP packets on an interface, from the kernel."""
    values = []
    for kind in ("rx_bytes", "tx_bytes"):
        with open(f"/sys/class/net/{name}/statistics/{kind}") as handle:
            values.append(int(handle.read()))
    return values[0], values[1]


def user_plane_rules(
    pools: Sequence[str], allow: Sequence[str], deny: Sequence[str], *, between_ues: bool = False
) -> str:
    """The nftables of a user plane: UEs reach each other only where asked for, closed space never; NAT outwards.

    Each list has networks of both families. Unique local IPv6 addresses are translated, global ones are not: who has
    those has them routed.
    """
    tables = []
    for version, family, icmp in ((4, "ip", "ip protocol icmp"), (6, "ip6", _PING6)):
        own, allowed, denied = (
            [one for one in networks if ipaddress.ip_network(one).version == version]
            for networks in (pools, allow, deny)
        )
        if own:
            tables.append(f"table {family} mvno_upf\ndelete table {family} mvno_upf\n")
            tables.append(_rules(family, icmp, own, allowed, denied, "accept" if between_ues else "drop"))
    return "".join(tables)


# What a UE may say to its gateway: ping, and errors of what it was sent (RFC 4890 section 4.4).
_PING6 = "icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")


def _rules(
    family: str, icmp: str, pools: Sequence[str], allow: Sequence[str], deny: Sequence[str], between: str
) -> str:
    own = ", ".join(pools)
    translated = [one for one in pools if family == "ip" or ipaddress.IPv6Network(one).subnet_of(_UNIQUE_LOCAL)]
    lines = [
        f"table {family} mvno_upf {{",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct state established,related accept",
        f"    {family} saddr {{ {own} }} {family} daddr {{ {own} }} counter {between}",
    ]
    if family == "ip6":
        # Without translation nothing else keeps strangers from calling (RFC 6092).
        lines.append(f'    iifname != "ogstun*" ip6 daddr {{ {own} }} counter drop')
    if allow:
        lines.append(f"    {family} saddr {{ {own} }} {family} daddr {{ {', '.join(allow)} }} accept")
    if deny:
        lines.append(f"    {family} saddr {{ {own} }} {family} daddr {{ {', '.join(deny)} }} counter drop")
    lines += [
        "  }",
        "  chain input {",
        "    type filter hook input priority filter; policy accept;",
        # The pod's own services are not the customers'; ping of the gateway is.
        f"    {family} saddr {{ {own} }} {icmp} accept",
        f"    {family} saddr {{ {own} }} counter drop",
        "  }",
    ]
    if translated:
        lines += [
            "  chain postrouting {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            f'    {family} saddr {{ {", ".join(translated)} }} oifname != "ogstun*" masquerade',
            "  }",
        ]
    return "\n".join([*lines, "}", ""])
