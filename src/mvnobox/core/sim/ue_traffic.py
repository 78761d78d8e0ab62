"""Traffic of a phone's user: ping, download and iperf3, from the phone's address through its device.

Runs in the command's own process: the agent has its hands full with the tunnel.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PING_PAUSE, PING_WAIT = 0.2, 2.0
REPORT_SECONDS = 1.0
LARGEST_HEAD = 65_536


@dataclass(frozen=True)
class Source:
    """Where traffic comes from: a phone's addresses and device; `ipv6`: to names by IPv6."""

    address: str
    interface: str
    address6: str | None = None
    ipv6: bool = False

    def resolve(self, host: str) -> str:
        """An address of a host: a literal's own family decides, else `ipv6`. Raises OSError."""
        family = socket.AF_INET6 if self.ipv6 or ":" in host else socket.AF_INET
        return str(socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)[0][4][0])

    def towards(self, target: str) -> str:
        """Our address of a target's family. Raises OSError where there is none."""
        own = self.address6 if ":" in target else self.address
        if own is None:
            raise OSError("the session has no IPv6 address")
        return own

    def socket(self, target: str, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of a target's family whose packets go through the phone's tunnel. Raises OSError."""
        own = self.towards(target)
        made = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind, protocol)
        try:
            with contextlib.suppress(PermissionError):
                # Needs NET_RAW in older kernels; the source address routes as well.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
            made.bind((own, 0))
        except OSError:
            made.close()
            raise
        return made


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _echo(kind: int, identity: int, sequence: int) -> bytes:
    body = bytes(range(48))
    # The kernel fills ICMPv6's checksum in anew, which has the addresses in it.
    empty = struct.pack(">BBHHH", kind, 0, 0, identity, sequence) + body
    return struct.pack(">BBHHH", kind, 0, _checksum(empty), identity, sequence) + body


def ping(source: Source, target: str, count: int) -> dict[str, Any]:
    """ICMP echo (RFC 792, RFC 4443): how many of `count` came back, round trip times in ms."""
    times: list[float] = []
    identity = secrets.randbits(16)
    waiting = _Waiting(identity)
    try:
        address = source.resolve(target)
        kind, protocol = (128, socket.IPPROTO_ICMPV6) if ":" in address else (8, socket.IPPROTO_ICMP)
        with source.socket(address, socket.SOCK_RAW, protocol) as raw:
            for sequence in range(count):
                began = time.monotonic()
                # A packet that the host itself turns down is a lost one.
                with contextlib.suppress(OSError):
                    raw.sendto(_echo(kind, identity, sequence), (address, 0))
                if waiting.for_reply(raw, address, sequence, began + PING_WAIT):
                    times.append((time.monotonic() - began) * 1000)
                    time.sleep(max(0.0, PING_PAUSE - (time.monotonic() - began)))
    except OSError as error:
        return {"ok": False, "sent": 0, "received": 0, "cause": f"{type(error).__name__}: {error}"}
    lost = f"{count - len(times)} of {count} lost" + (f": {waiting.said}" if waiting.said else "")
    return {
        "ok": len(times) == count,
        "cause": None if len(times) == count else lost,
        "sent": count,
        "received": len(times),
        "milliseconds": {
            "least": round(min(times), 3), "mean": round(sum(times) / len(times), 3), "most": round(max(times), 3),
        } if times else None,
    }  # fmt: skip


# Codes of "destination unreachable": ICMP's (RFC 792, RFC 1812) and ICMPv6's (RFC 4443 section 3.1).
_UNREACHABLE = {0: "network unreachable", 1: "host unreachable", 13: "prohibited"}
_UNREACHABLE6 = {0: "no route to destination", 1: "prohibited", 3: "address unreachable", 4: "port unreachable"}


class _Waiting:
    """What comes back to a ping of this identity. `said`: the error that a router answered with, in words."""

    def __init__(self, identity: int) -> None:
        self._identity = identity
        self.said = ""

    def for_reply(self, raw: socket.socket, address: str, sequence: int, until: float) -> bool:
        """Whether the reply came in time; an error that a router sent ends the waiting too."""
        ipv6 = ":" in address
        while (left := until - time.monotonic()) > 0:
            raw.settimeout(left)
            try:
                data, (peer, *_) = raw.recvfrom(2048)
            except TimeoutError:
                return False
            # Only IPv4's raw sockets give the IP header.
            offset = 0 if ipv6 else (data[0] & 0xF) * 4
            if len(data) < offset + 8:
                continue
            kind, code = data[offset], data[offset + 1]
            if peer == address and kind == (129 if ipv6 else 0):
                if struct.unpack_from(">HH", data, offset + 4) == (self._identity, sequence):
                    return True
            elif kind == (1 if ipv6 else 3) and self._is_about(data[offset + 8 :], ipv6=ipv6):
                names = _UNREACHABLE6 if ipv6 else _UNREACHABLE
                self.said = names.get(code, f"destination unreachable (code {code})")
                return False
        return False

    def _is_about(self, packet: bytes, *, ipv6: bool) -> bool:
        """Whether the packet that an error quotes is one of ours."""
        offset = 40 if ipv6 else (packet[0] & 0xF) * 4 if packet else 0
        return len(packet) >= offset + 8 and struct.unpack_from(">H", packet, offset + 4)[0] == self._identity


def split_url(url: str) -> tuple[str, int, str]:
    """(host, port, path with query) of an http URL. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("a URL is http://host[:port]/path")
    path = parts.path or "/"
    return parts.hostname, parts.port or 80, f"{path}?{parts.query}" if parts.query else path


def download(
    source: Source,
    target: tuple[str, int, str],
    *,
    timeout: float,
    stall: float,
    limit: int | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """GET over TCP: octets of the body that arrived. Cause `stalled`: nothing for `stall` or all in all `timeout` s."""
    host, port, path = target
    began = time.monotonic()
    body, expected, cause = 0, None, None
    buffer = bytearray(1 << 20)
    reported = began
    try:
        address = source.resolve(host)
        with source.socket(address, socket.SOCK_STREAM) as connection:
            connection.settimeout(stall)
            connection.connect((address, port))
            named = f"[{host}]" if ":" in host else host
            request = f"GET {path} HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode("ascii"))
            status, expected, body = _head(connection)
            while limit is None or body < limit:
                now = time.monotonic()
                if now - began > timeout:
                    raise TimeoutError
                if report is not None and now - reported >= REPORT_SECONDS:
                    reported = now
                    report({"progress": {"octets": body, "seconds": round(now - began, 3)}})
                connection.settimeout(min(stall, began + timeout - now + 0.001))
                size = connection.recv_into(buffer)
                if not size:
                    break
                body += size
            if not 200 <= status < 300:
                cause = f"HTTP {status}"
            elif limit is None and expected is not None and body < expected:
                cause = "the connection ended early"
    except TimeoutError:
        cause = "stalled"
    except (OSError, ValueError) as error:
        cause = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    return {
        "ok": cause is None,
        "cause": cause,
        "octets": body,
        "seconds": round(seconds, 3),
        "bitsPerSecond": round(body * 8 / seconds) if seconds else 0,
    }


def iperf3(source: Source, target: tuple[str, int], octets: int, *, upload: bool, timeout: float) -> dict[str, Any]:
    """So many octets one way over TCP by iperf3 3.10 or later; `octets` and `bitsPerSecond` as received."""
    began = time.monotonic()
    host, port = target
    try:
        address = source.resolve(host)
        own = source.towards(address)
    except OSError as error:
        return {"ok": False, "cause": f"{type(error).__name__}: {error}", "octets": 0, "bitsPerSecond": 0}
    command = [
        "iperf3", "--client", address, "--port", str(port), "--bytes", str(octets), "--json", "--connect-timeout", "3000",
        "--bind-dev", source.interface, "--bind", own, *([] if upload else ["--reverse"]),
    ]  # fmt: skip
    while True:
        left = timeout - (time.monotonic() - began)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(left, 0.1), check=False)
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, FileNotFoundError, ValueError) as error:
            return {"ok": False, "cause": f"iperf3: {type(error).__name__}", "octets": 0, "bitsPerSecond": 0}
        cause = answer.get("error")
        if cause and "busy" in cause and left > 1:
            # The server has another client, one at a time.
            time.sleep(0.5)
            continue
        received = answer.get("end", {}).get("sum_received", {})
        return {
            "ok": cause is None and received.get("bytes", 0) > 0,
            "cause": cause,
            "octets": int(received.get("bytes", 0)),
            "bitsPerSecond": round(received.get("bits_per_second", 0)),
        }


def _head(connection: socket.socket) -> tuple[int, int | None, int]:
    """(status, Content-Length, octets of the body that came with the head). Raises OSError, ValueError."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        if not more or len(data) > LARGEST_HEAD:
            raise ValueError("the answer is not HTTP")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    words = first.split()
    if len(words) < 2 or not words[1].isdigit():
        raise ValueError("the answer is not HTTP")
    named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
    length = named.get("content-length", "")
    return int(words[1]), int(length) if length.isdigit() else None, len(rest)
