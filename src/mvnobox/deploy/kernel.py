"""What this machine's kernel has of what cores need; asking loads a module that is there and not loaded yet."""

from __future__ import annotations

import os
import socket
from pathlib import Path

# IANA's number of SCTP (RFC 9260); not every platform's socket module names it.
_SCTP = 132
TUN = Path("/dev/net/tun")
TUN_REMEDY = "modprobe tun, also at boot (/etc/modules-load.d); a kernel without it needs CONFIG_TUN"


def kernel_has_sctp() -> bool:
    """Whether this machine's kernel has SCTP, which N2 needs."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP).close()
    except OSError:
        return False
    return True


def tun_trouble(device: Path = TUN) -> str | None:
    """None where TUN devices can be made, else what is wrong: user planes and UEs need them."""
    if not device.exists():
        return f"{device} is missing"
    if not device.is_char_device():
        return f"{device} is no character device"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        return f"{device}: {error.strerror}"
    return None
