"""A Diameter node that connects to one peer and keeps the connection (RFC 6733 section 5, RFC 3539)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import socket
import time
from collections.abc import Callable

from mvnobox.core.hostnetwork import s6a
from mvnobox.core.hostnetwork.s6a import Content
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError, Header
from mvnobox.diameter.codes import ERROR, PROXIABLE, REQUEST, TGPP, Avp, Command, Result

log = logging.getLogger(__name__)
LARGEST = 1 << 16
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0
# Body of the answer to a request of the peer, and whether the error bit is set.
Handler = Callable[[Header, Content], bytes]


class Unreachable(Exception):
    """There is no connection to the HSS, or it does not answer."""


class DiameterPeer:
    """`host` and `realm` are ours; `handle` answers the peer's requests of S6a (it may raise DiameterError)."""

    def __init__(
        self,
        host: str,
        realm: str,
        address: tuple[str, int],
        handle: Handler,
        *,
        watchdog: float = 10,
        pause: float = 2,
    ) -> None:
        self.host, self._address, self._handle = host, address, handle
        self._watchdog, self._pause = watchdog, pause
        self.own = codec.utf8(Avp.ORIGIN_HOST, host) + codec.utf8(Avp.ORIGIN_REALM, realm)
        self._state = codec.u32(Avp.ORIGIN_STATE_ID, int(time.time()) & 0xFFFFFFFF)
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._hops = itertools.count(secrets.randbits(31))
        self._sessions = itertools.count(1)
        self._heard = 0.0
        self.problem: str | None = "not connected to the HSS yet"
        self.peer_host = ""

    # -- what we ask

    async def request(self, command: int, body: bytes) -> Content:
        """A request of S6a and its answer. `body` is without Session-Id. Raises Unreachable, DiameterError."""
        if self.problem is not None:
            raise Unreachable(f"no S6a: {self.problem}")
        session_id = f"{self.host};{int(time.time())};{next(self._sessions)};s6a"
        answer = await self._ask(
            command, s6a.APPLICATION, codec.utf8(Avp.SESSION_ID, session_id) + body, REQUEST | PROXIABLE
        )
        return Content.of(answer)

    async def _ask(self, command: int, application: int, body: bytes, flags: int = REQUEST) -> bytes:
        if self._writer is None:
            raise Unreachable("no S6a: the connection has ended")
        number = next(self._hops) & 0xFFFFFFFF
        end = (int(time.time()) & 0xFFF) << 20 | number & 0xFFFFF
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        try:
            self._writer.write(codec.message(flags, command, application, number, end, body))
            return await asyncio.wait_for(waiting, ANSWER_SECONDS)
        except TimeoutError:
            raise Unreachable(f"no S6a: no answer within {ANSWER_SECONDS:.0f} s") from None
        except asyncio.CancelledError:
            if self._writer is None:
                raise Unreachable("no S6a: the connection has ended") from None
            raise
        finally:
            self._asked.pop(number, None)

    # -- the connection

    async def run(self) -> None:
        """Connect, and again whenever it ends, until cancelled; then disconnect."""
        while True:
            try:
                connecting = asyncio.open_connection(*self._address)
                reader, writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
            except (OSError, TimeoutError) as error:
                self.problem = f"the HSS cannot be reached: {error or 'no answer'}"
            else:
                self._writer = writer
                try:
                    await self._converse(reader, writer)
                except (OSError, asyncio.IncompleteReadError):
                    self.problem = "the HSS has ended the connection; it may not know this peer"
                except (Unreachable, DiameterError) as error:
                    self.problem = str(error)
                finally:
                    await self._end(writer)
            log.info("S6a: %s", self.problem, extra={"testPeer": True})
            await asyncio.sleep(self._pause)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = [asyncio.ensure_future(self._read(reader)), asyncio.ensure_future(self._keep(writer))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        except asyncio.CancelledError:
            if self.problem is None:
                with contextlib.suppress(Unreachable, TimeoutError):
                    cause = codec.u32(Avp.DISCONNECT_CAUSE, 0)
                    await asyncio.wait_for(self._ask(Command.DISCONNECT, 0, self.own + cause), 1)
            raise
        finally:
            for one in parts:
                one.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _keep(self, writer: asyncio.StreamWriter) -> None:
        """Exchange capabilities, then watch."""
        answer = Content.of(await self._ask(Command.CAPABILITIES, 0, self._capabilities(writer)))
        if (code := s6a.result(answer)) != Result.SUCCESS:
            raise Unreachable(f"the HSS refuses this peer (Diameter result {code})")
        self.peer_host = answer.text(Avp.ORIGIN_HOST) or ""
        self.problem = None
        log.info("S6a is up", extra={"peer": self.peer_host, "testPeer": True})
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._watchdog)
            if loop.time() - self._heard >= self._watchdog * 0.9:
                await self._ask(Command.WATCHDOG, 0, self.own + self._state)

    def _capabilities(self, writer: asyncio.StreamWriter) -> bytes:
        own = writer.get_extra_info("sockname")[0]
        family = (socket.AF_INET6, b"\0\2") if ":" in own else (socket.AF_INET, b"\0\1")
        return b"".join(
            [
                self.own,
                codec.octets(Avp.HOST_IP_ADDRESS, family[1] + socket.inet_pton(family[0], own)),
                codec.u32(Avp.VENDOR_ID, 0),
                codec.utf8(Avp.PRODUCT_NAME, "mvno test peer", 0),
                self._state,
                codec.u32(Avp.SUPPORTED_VENDOR_ID, TGPP),
                s6a.application(),
            ]
        )

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        self._writer = None
        if self.problem is None:
            self.problem = "the connection to the HSS has ended"
        for waiting in self._asked.values():
            waiting.cancel()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    # -- what comes

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            head = await reader.readexactly(codec.HEADER_LENGTH)
            header = codec.read_header(head)
            if head[0] != 1 or header.length & 3 or not codec.HEADER_LENGTH <= header.length <= LARGEST:
                raise Unreachable("the HSS sends what is no Diameter")
            data = head + await reader.readexactly(header.length - codec.HEADER_LENGTH)
            self._heard = asyncio.get_running_loop().time()
            if header.is_request:
                if not self._request(header, data):
                    return
            elif (waiting := self._asked.get(header.hop_by_hop)) is not None and not waiting.done():
                waiting.set_result(data)

    def _request(self, header: Header, data: bytes) -> bool:
        """Answer a request of the peer; False after its good-bye."""
        done = codec.u32(Avp.RESULT_CODE, Result.SUCCESS) + self.own
        try:
            content = Content.of(data)
            if header.command == Command.WATCHDOG:
                self._reply(header, done + self._state)
            elif header.command == Command.DISCONNECT:
                self._reply(header, done)
                self.problem = "the HSS has said good-bye"
                return False
            elif header.application == s6a.APPLICATION:
                self._reply(header, self._handle(header, content))
            else:
                raise DiameterError(Result.APPLICATION_UNSUPPORTED, "only S6a is served")
        except DiameterError as error:
            log.warning("S6a request %d refused: %s", header.command, error.reason)
            body = codec.u32(Avp.RESULT_CODE, error.result) + self.own + codec.failed_avp(error)
            self._reply(header, body, ERROR if 3000 <= error.result < 4000 else 0)
        return True

    def _reply(self, header: Header, body: bytes, flags: int = 0) -> None:
        if self._writer is not None:
            flags |= header.flags & PROXIABLE
            self._writer.write(
                codec.message(flags, header.command, header.application, header.hop_by_hop, header.end_to_end, body)
            )
