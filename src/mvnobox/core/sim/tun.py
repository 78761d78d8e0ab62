"""TUN devices and the little of iproute2 and nftables that goes with them."""

from __future__ import annotations

import fcntl
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


def open_tun(name: str, address: str, mtu: int) -> int:
    """A TUN device that is up, with an address (CIDR); its non-blocking file descriptor."""
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
    # IPv4 only: no link-local address, hence no router solicitations that count as traffic. By netlink, since a pod's
    # /proc/sys is read-only.
    run("ip", "link", "set", name, "addrgenmode", "none")
    run("ip", "address", "replace", address, "dev", name)
    run("ip", "link", "set", name, "mtu", str(mtu), "txqueuelen", str(QUEUE_LENGTH), "up")
    return descriptor


def route_own_traffic(name: str, address: str, table: int) -> None:
    """Send through a device what comes from its address or is bound to it, and nothing else of the pod's traffic."""
    forget_routes(table)
    run("ip", "route", "replace", "default", "dev", name, "table", str(table))
    run("ip", "rule", "add", "from", address, "lookup", str(table))
    run("ip", "rule", "add", "oif", name, "lookup", str(table))


def forget_routes(table: int) -> None:
    """Take a table's rules away, those of an earlier process included."""
    for _ in range(8):
        try:
            run("ip", "rule", "delete", "lookup", str(table))
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

    `routed` pools keep their addresses; nobody opens a connection to them from outside.
    """
    own = ", ".join(pools)
    translated = ", ".join(pool for pool in pools if pool not in routed)
    lines = [
        "table ip mvno_upf",
        "delete table ip mvno_upf",
        "table ip mvno_upf {",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct state established,related accept",
        f"    ip saddr {{ {own} }} ip daddr {{ {own} }} counter {'accept' if between_ues else 'drop'}",
    ]
    if routed:
        lines.append(f'    iifname != "ogstun*" ip daddr {{ {", ".join(routed)} }} counter drop')
    if allow:
        lines.append(f"    ip saddr {{ {own} }} ip daddr {{ {', '.join(allow)} }} accept")
    if deny:
        lines.append(f"    ip saddr {{ {own} }} ip daddr {{ {', '.join(deny)} }} counter drop")
    lines += [
        "  }",
        "  chain input {",
        "    type filter hook input priority filter; policy accept;",
        # The pod's own services are not the customers'; ping of the gateway is.
        f"    ip saddr {{ {own} }} ip protocol != icmp counter drop",
        "  }",
    ]
    if translated:
        lines += [
            "  chain postrouting {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            f'    ip saddr {{ {translated} }} oifname != "ogstun*" masquerade',
            "  }",
        ]
    lines += ["}", ""]
    return "\n".join(lines)
