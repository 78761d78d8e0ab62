"""Ports for the servers that tests start."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago.

    It lies below the range that the kernel gives to clients: a port of that range may be some connection's own
    by the time the server binds it.
    """
    first_of_clients = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    while True:
        port = random.randrange(20000, min(first_of_clients, 32768)) if first_of_clients > 21000 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
