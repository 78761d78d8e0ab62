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
            "IPv6 is off in the pod (net.ipv6.conf.all.disable_ipv6); remedy: let the node's runtime leave it on, or take "
            "pool6 out of the brand's file"
        )


# How IPv4's and IPv6's forwarding come to a pod from its node. A new network namespace begins with IPv4's settings of the
# first one, and with the kernel's own for IPv6 (0) unless net.core.devconf_inherit_init_net is 1.
_FORWARDING = {
    "net.ipv4.ip_forward": "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding": "net.core.devconf_inherit_init_net=1 net.ipv6.conf.all.forwarding=1",
}


def need_forwarding(*, ipv6: bool) -> None:
    """Raises HostError where this network namespace does not forward IPv4 or, if asked for, IPv6."""
    for name, settings in _FORWARDING.items():
        if name.startswith("net.ipv6") and not ipv6:
            continue
        with open(f"/proc/sys/{name.replace('.', '/')}") as handle:
            if handle.read().strip() != "1":
                raise HostError(
                    f"{name} is 0 in the pod, so that its user plane would forward nothing; remedy: on the node, sysctl -w "
                    f"{settings} and start the pod anew, or the setting forwarding: sysctl where the kubelet allows it"
                )


def open_tun(name: str, addresses: Sequence[str], mtu: int) -> int:
    """A TUN device that is up, with addresses (CIDR) of either family; its non-blocking file descriptor."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(
            f"/dev/net/tun: {error.strerror}; remedy: modprobe tun on the node; a kernel without it needs CONFIG_TUN"
        ) from None
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
    pools: Sequence[str],
    allow: Sequence[str],
    deny: Sequence[str],
    *,
    between_ues: bool = False,
    routed: Sequence[str] = (),
) -> str:
    """The nftables of a user plane: UEs reach each other only where asked for, closed space never; NAT outwards.

    Each list has networks of both families. Unique local IPv6 addresses are translated, global ones are not: who has
    those has them routed. Neither are `routed` pools, of either family. Nobody opens a connection from outside to UEs that
    keep their addresses.
    """
    tables = []
    for version, family, icmp in ((4, "ip", "ip protocol icmp"), (6, "ip6", _PING6)):
        own, allowed, denied, kept = (
            [one for one in networks if ipaddress.ip_network(one).version == version]
            for networks in (pools, allow, deny, routed)
        )
        if own:
            tables.append(f"table {family} mvno_upf\ndelete table {family} mvno_upf\n")
            tables.append(_rules(family, icmp, own, allowed, denied, kept, "accept" if between_ues else "drop"))
    return "".join(tables)


# What a UE may say to its gateway: ping, and errors of what it was sent (RFC 4890 section 4.4).
_PING6 = "icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")


def _rules(
    family: str,
    icmp: str,
    pools: Sequence[str],
    allow: Sequence[str],
    deny: Sequence[str],
    routed: Sequence[str],
    between: str,
) -> str:
    own = ", ".join(pools)
    translated = [
        one
        for one in pools
        if one not in routed and (family == "ip" or ipaddress.IPv6Network(one).subnet_of(_UNIQUE_LOCAL))
    ]
    lines = [
        f"table {family} mvno_upf {{",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct state established,related accept",
        f"    {family} saddr {{ {own} }} {family} daddr {{ {own} }} counter {between}",
    ]
    # Without translation nothing else keeps strangers from calling (RFC 6092).
    closed = pools if family == "ip6" else routed
    if closed:
        lines.append(f'    iifname != "ogstun*" {family} daddr {{ {", ".join(closed)} }} counter drop')
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
