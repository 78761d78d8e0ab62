"""The Diameter listener, and notifications to the peers that are connected to it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from mvnobox.charging.diameter.connection import Connection, State
from mvnobox.charging.diameter.node import Node
from mvnobox.charging.diameter.notify import read_uri
from mvnobox.charging.diameter.settings import DiameterSettings, DiameterTls
from mvnobox.diameter import codec
from mvnobox.diameter.codes import CREDIT_CONTROL, Avp, Command, Result
from mvnobox.service.settings import address

log = logging.getLogger(__name__)
CLOSING_SECONDS = 2.5
ANSWER_SECONDS = 2.5


class DiameterServer:
    """Serves a node's peers on TCP (RFC 6733 section 2.1), over TLS where it is set."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.port = 0

    async def run(self, started: asyncio.Event | None = None) -> None:
        """Serve until cancelled; then every peer is told (DPR). Raises OSError where the port cannot be had."""
        settings = self.node.settings
        host, port = address(settings.listen)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self.node), host, port, ssl=_context(settings.tls), backlog=128
        )
        self.port = server.sockets[0].getsockname()[1]
        log.info("diameter is served", extra={"host": settings.origin_host, "realm": settings.origin_realm})
        if settings.peers is None:
            log.warning("no Diameter peers are set: whoever reaches the port may charge every brand")
        if started is not None:
            started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            await self.node.close(CLOSING_SECONDS)

    async def notify(self, uri: str, body: dict[str, Any]) -> int:
        """Tell a session's client of an Nchf notification by RAR or ASR (RFC 8506 section 5.5, RFC 6733 section 8.5).

        The answer in HTTP's terms: 204 done, 404 the client does not know the session, 421 the peer is not connected to
        this replica, 503 it did not take it.
        """
        target = read_uri(uri)
        connection = self.node.open.get(target.peer.lower())
        if connection is None or connection.state is not State.OPEN:
            return 421
        abort = body.get("notificationType") == "ABORT_CHARGING"
        parts = [
            codec.octets(Avp.SESSION_ID, target.session_id),
            self.node.answers.origin,
            codec.utf8(Avp.DESTINATION_REALM, target.realm),
            codec.utf8(Avp.DESTINATION_HOST, target.host),
            codec.u32(Avp.AUTH_APPLICATION_ID, CREDIT_CONTROL),
        ]
        if not abort:
            parts.append(codec.u32(Avp.RE_AUTH_REQUEST_TYPE, 0))
            groups = [one["ratingGroup"] for one in body.get("reauthorizationDetails", []) if "ratingGroup" in one]
            # RAR names one rating group or none, which means all (RFC 8506 section 5.5).
            if len(groups) == 1:
                parts.append(codec.u32(Avp.RATING_GROUP, groups[0]))
        command = Command.ABORT_SESSION if abort else Command.RE_AUTH
        answer = connection.ask(command, b"".join(parts))
        await asyncio.wait({answer}, timeout=ANSWER_SECONDS)
        if not answer.done() or answer.cancelled():
            answer.cancel()
            return 503
        result = answer.result()
        if result in (Result.SUCCESS, 2002):
            return 204
        return 404 if result == Result.UNKNOWN_SESSION_ID else 503


def _context(settings: DiameterTls | None) -> ssl.SSLContext | None:
    if settings is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings.client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(settings.certificate, settings.key)
    return context


def make_server(settings: DiameterSettings, control: Any) -> DiameterServer:
    """A server over a credit control."""
    return DiameterServer(Node(settings, control))
