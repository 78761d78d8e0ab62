"""The TCP side: bounded connections, bounded messages, no client can hold the others up."""

from __future__ import annotations

import asyncio
import logging

import bson
from prometheus_client import Counter, Gauge

from mvnobox.core.directory.commands import Commands, failure
from mvnobox.core.directory.wire import HEADER, LARGEST_MESSAGE, WireError, parse, reply

log = logging.getLogger(__name__)
MOST_CONNECTIONS = 500
# From a message's first octet to its last.
MESSAGE_SECONDS = 10.0
COMMANDS = Counter("directory_commands_total", "Commands", ["command", "ok"])
CONNECTIONS = Gauge("directory_connections", "Open connections")
_NAMES = {"find", "update", "hello", "ismaster", "ping", "count", "aggregate"}


class DirectoryServer:
    """One asyncio server over the commands."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._open = 0

    async def serve(self, host: str, port: int) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self.connection, host, port, limit=LARGEST_MESSAGE, backlog=256)
        log.info("serving subscribers", extra={"port": port})
        try:
            await server.serve_forever()
        finally:
            server.close()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client's messages in their order."""
        if self._open >= MOST_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        CONNECTIONS.inc()
        try:
            while True:
                header = await reader.readexactly(16)
                length, request_id, _, opcode = HEADER.unpack(header)
                if not 16 < length <= LARGEST_MESSAGE:
                    raise WireError(f"a message of {length} octets")
                async with asyncio.timeout(MESSAGE_SECONDS):
                    payload = await reader.readexactly(length - 16)
                command = parse(request_id, opcode, payload)
                try:
                    answer = await self._commands.run(command)
                    data = bson.encode(answer)
                except Exception as error:  # the client gets an error it understands, the others go on
                    log.error("command failed", extra={"error": type(error).__name__})
                    answer = failure(8000, "InternalError", "the directory could not answer; try again")
                    data = bson.encode(answer)
                name = str(next(iter(command.body), "")).lower()
                COMMANDS.labels(name if name in _NAMES else "other", str(answer.get("ok") == 1.0).lower()).inc()
                if not command.silent:
                    writer.write(reply(command, data))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        except WireError as error:
            log.warning("connection ended: %s", error)
        finally:
            self._open -= 1
            CONNECTIONS.dec()
            writer.close()
