"""A data network to download from: plain HTTP, fast, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from mvnobox.core.sim.settings import DnSettings

log = logging.getLogger(__name__)
CHUNK = bytes(64 * 1024)
LARGEST = 10**10
HEAD_SECONDS = 10.0


class DataNetwork:
    """`GET /bytes/N` (with `?rate=octets/s`), `/ip`, `/healthz`, `/readyz`; `POST /sink`."""

    def __init__(self, settings: DnSettings) -> None:
        self._settings = settings

    async def run(self) -> None:
        """Serve until cancelled."""
        host, _, port = self._settings.listen.rpartition(":")
        server = await asyncio.start_server(self._connection, host, int(port))
        log.info("simulated data network is up", extra={"simulation": True})
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)).decode("latin-1")
            method, target = head.split()[:2]
            path, _, query = target.partition("?")
            if method == "GET" and path.startswith("/bytes/") and path[7:].isdigit() and int(path[7:]) <= LARGEST:
                rate = int(query[5:]) if query.startswith("rate=") else 0
                await self._bytes(writer, int(path[7:]), rate)
            elif method == "GET" and path in ("/healthz", "/readyz", "/ip"):
                body = writer.get_extra_info("peername")[0] if path == "/ip" else "ok"
                self._head(writer, "200 OK", len(body))
                writer.write(body.encode())
            elif method == "POST" and path == "/sink":
                length = int(
                    next(line for line in head.lower().splitlines() if line.startswith("content-length:"))[15:]
                )
                while length > 0 and (data := await reader.read(1 << 16)):
                    length -= len(data)
                self._head(writer, "204 No Content", 0)
            else:
                self._head(writer, "404 Not Found", 0)
            await writer.drain()
        writer.close()

    @staticmethod
    def _head(writer: asyncio.StreamWriter, status: str, length: int) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode())

    async def _bytes(self, writer: asyncio.StreamWriter, count: int, rate: int) -> None:
        self._head(writer, "200 OK", count)
        started, sent = asyncio.get_running_loop().time(), 0
        while sent < count:
            size = min(len(CHUNK), count - sent)
            writer.write(CHUNK[:size])
            await writer.drain()
            sent += size
            if rate:
                ahead = sent / rate - (asyncio.get_running_loop().time() - started)
                if ahead > 0:
                    await asyncio.sleep(ahead)
