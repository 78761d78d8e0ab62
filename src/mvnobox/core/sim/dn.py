"""A data network to download from: plain HTTP, fast, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from urllib.parse import parse_qs

from mvnobox.core.sim.settings import DnSettings

log = logging.getLogger(__name__)
CHUNK = bytes(256 * 1024)
LARGEST = 10**10
HEAD_SECONDS = 10.0
# Nobody reads on: the connection ends.
STALL_SECONDS = 120.0
# A rate is kept by sending so many times a second.
BEATS = 20


class DataNetwork:
    """`GET /bytes/N` (with `?rate=octets/s`), `/ip`, `/healthz`, `/readyz`; `POST /sink`."""

    def __init__(self, settings: DnSettings) -> None:
        self._settings = settings

    async def run(self) -> None:
        """Serve until cancelled."""
        await asyncio.gather(self._http(), self._iperf3())

    async def _iperf3(self) -> None:
        """An iperf3 server; it takes one client at a time, and is started again where a broken one ends it."""
        port = self._settings.iperf3
        while port is not None:
            # What hangs for so long is given up (seconds).
            command = ("iperf3", "--server", "--port", str(port), "--idle-timeout", "60")
            server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            try:
                log.info("iperf3 ended", extra={"code": await server.wait()})
            finally:
                if server.returncode is None:
                    server.kill()
                    await server.wait()
            await asyncio.sleep(0.2)

    async def _http(self) -> None:
        host, _, port = self._settings.listen.rpartition(":")
        if host == "[::]":
            # Both families; asyncio's own server would take IPv6 alone.
            both = socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
            server = await asyncio.start_server(self._connection, sock=both)
        else:
            server = await asyncio.start_server(self._connection, host, int(port))
        log.info("simulated data network is up", extra={"simulation": True})
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
            await self._answer(head.decode("latin-1"), reader, writer)
            await asyncio.wait_for(writer.drain(), STALL_SECONDS)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("connection: %s", error)
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *fields = head.split("\r\n")
        method, target = [*first.split(), "", ""][:2]
        path, _, query = target.partition("?")
        if method == "GET" and path.startswith("/bytes/"):
            count, rate = _number(path[7:]), _number(parse_qs(query).get("rate", ["0"])[0])
            if count is None or rate is None or count > LARGEST:
                self._head(writer, "400 Bad Request", 0)
            else:
                await self._bytes(writer, count, rate)
        elif method == "GET" and path in ("/healthz", "/readyz", "/ip"):
            body = writer.get_extra_info("peername")[0] if path == "/ip" else "ok"
            self._head(writer, "200 OK", len(body))
            writer.write(body.encode())
        elif method == "POST" and path == "/sink":
            lengths = [line[15:].strip() for line in fields if line.lower().startswith("content-length:")]
            left = _number(lengths[0]) if lengths else None
            if left is None:
                self._head(writer, "411 Length Required", 0)
                return
            while left > 0 and (data := await asyncio.wait_for(reader.read(1 << 18), STALL_SECONDS)):
                left -= len(data)
            self._head(writer, "204 No Content", None)
        else:
            self._head(writer, "404 Not Found", 0)

    @staticmethod
    def _head(writer: asyncio.StreamWriter, status: str, length: int | None) -> None:
        # RFC 9110 section 8.6: none with 204.
        size = f"Content-Length: {length}\r\n" if length is not None else ""
        writer.write(f"HTTP/1.1 {status}\r\n{size}Server: mvno-simulated-dn\r\nConnection: close\r\n\r\n".encode())

    async def _bytes(self, writer: asyncio.StreamWriter, count: int, rate: int) -> None:
        self._head(writer, "200 OK", count)
        clock = asyncio.get_running_loop().time
        started, sent = clock(), 0
        largest = min(len(CHUNK), max(rate // BEATS, 1)) if rate else len(CHUNK)
        chunk = memoryview(CHUNK)
        while sent < count:
            size = min(largest, count - sent)
            writer.write(chunk[:size])
            await asyncio.wait_for(writer.drain(), STALL_SECONDS)
            sent += size
            if rate and (ahead := sent / rate - (clock() - started)) > 0:
                await asyncio.sleep(ahead)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
