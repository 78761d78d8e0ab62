"""One peer's connection: the responder's part of the peer state machine (RFC 6733 section 5.6), watchdog (RFC 3539)."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from enum import Enum
from typing import cast

from mvnobox.charging.diameter.calls import Sender
from mvnobox.charging.diameter.credit import CreditRequest
from mvnobox.charging.diameter.node import PEERS, REFUSED, TALLY, Node
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError, Header
from mvnobox.diameter.codes import CREDIT_CONTROL, ERROR, REQUEST, Avp, Command, Result
from mvnobox.diameter.shapes import Shapes

log = logging.getLogger(__name__)
# Messages that are looked at before others get their turn.
TURN = 64
LEAVING_SECONDS = 2.0
_WRITE_HIGH = 1 << 20


class State(Enum):
    WAITING = "waiting for a CER"
    OPEN = "open"
    CLOSING = "closing"


class Connection(asyncio.Protocol):
    """Reads whole chunks, answers in batches. Stops reading while too much of this peer is under way or unread by it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.state = State.WAITING
        self.host = ""
        self._sender = Sender("", None, True)
        self._shapes = Shapes()
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._need = codec.HEADER_LENGTH
        self._out: list[bytes] = []
        self._running = 0
        self._held = self._clogged = self._turning = self._released = False
        self._heard = 0.0
        self._probed = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._numbers = itertools.count(random.getrandbits(32))
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._node.connections.add(self)
        if len(self._node.connections) > self._node.settings.connections:
            self._drop("too many connections")
            return
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._after("handshake", self._node.settings.handshake_seconds, lambda: self._drop("no CER in time"))

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= self._need and not self._turning:
            self._read()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = State.CLOSING
        for timer in self._timers.values():
            timer.cancel()
        for waiting in self._asked.values():
            waiting.cancel()
        self._node.connections.discard(self)
        if self.host and self._node.open.get(self.host.lower()) is self:
            del self._node.open[self.host.lower()]
            log.info("peer is gone", extra={"peer": self.host})
        PEERS.set(len(self._node.open))
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The peer does not read its answers: it gets no more requests in, and not for ever."""
        self._clogged = True
        self._after("stalled", self._node.settings.stalled_seconds, lambda: self._drop("leaves its answers unread"))
        self._flow()

    def resume_writing(self) -> None:
        self._clogged = False
        self._cancel("stalled")
        self._flow()
        self._go_on()

    # -- reading

    def _flow(self) -> None:
        """Read on, or not."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        hold = self._clogged or self._turning or self._running >= self._node.settings.outstanding
        if hold and not self._held:
            transport.pause_reading()
        elif self._held and not hold:
            transport.resume_reading()
        self._held = hold

    def _go_on(self) -> None:
        """What was read and not looked at yet has its turn when there is room."""
        if self._size >= self._need and not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._read()

    def _read(self) -> None:
        """Take whole messages out of what came; at most a turn's worth, and no more than may be under way."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        start, end, left = 0, len(data), TURN
        room = self._node.settings.outstanding
        need = codec.HEADER_LENGTH
        while end - start >= codec.HEADER_LENGTH and self._transport is not None and not self._transport.is_closing():
            header = codec.read_header(data, start)
            if not self._frame_is_sound(header, data[start]):
                end = start
                break
            if end - start < header.length:
                need = header.length
                break
            if left == 0 or self._clogged or self._running >= room:
                need = header.length
                break
            left -= 1
            self._heard, self._probed = self._loop.time(), False
            self._message(header, data[start : start + header.length])
            start += header.length
        rest = data[start:end] if start else data[:end]
        self._chunks = [rest] if rest else []
        self._size, self._need = len(rest), need
        if left == 0 and self._running < room and not self._clogged:
            self._go_on()
        self._flow()

    def _frame_is_sound(self, header: Header, version: int) -> bool:
        """Whether the stream can be followed; if not, it is answered and ended."""
        error = None
        if version != 1:
            error = DiameterError(Result.UNSUPPORTED_VERSION, "the version is not 1")
        elif header.length < codec.HEADER_LENGTH or header.length & 3:
            error = DiameterError(Result.INVALID_MESSAGE_LENGTH, "a message's length is no such length")
        elif header.length > self._node.settings.largest_message:
            error = DiameterError(
                Result.INVALID_MESSAGE_LENGTH, f"a message has at most {self._node.settings.largest_message} octets"
            )
        if error is None:
            return True
        if header.is_request and self.state is State.OPEN:
            self._send(self._node.refusal(header, error))
        self._end(error.reason)
        return False

    def _message(self, header: Header, data: bytes) -> None:
        """One message. Every request of an open connection is answered."""
        try:
            if not header.is_request:
                self._answered(header, data)
                return
            if self.state is State.WAITING:
                if header.command != Command.CAPABILITIES:
                    self._drop("the first message is no CER")
                    return
                self._capabilities(header, data)
                return
            if header.flags & ERROR:
                raise DiameterError(Result.INVALID_HDR_BITS, "a request with the error bit")
            if header.command == Command.CREDIT_CONTROL:
                if header.application != CREDIT_CONTROL:
                    raise DiameterError(Result.APPLICATION_UNSUPPORTED, "only application 4 is served")
                self._credit(header, data)
            elif header.command == Command.WATCHDOG:
                codec.split(data, codec.HEADER_LENGTH, len(data))
                state = codec.u32(Avp.ORIGIN_STATE_ID, self._node.origin_state)
                self._reply(header, codec.u32(Avp.RESULT_CODE, Result.SUCCESS) + self._node.answers.origin + state)
            elif header.command == Command.DISCONNECT:
                codec.split(data, codec.HEADER_LENGTH, len(data))
                self._reply(header, codec.u32(Avp.RESULT_CODE, Result.SUCCESS) + self._node.answers.origin)
                log.info("peer disconnects", extra={"peer": self.host})
                self.state = State.CLOSING
                # The peer closes (RFC 6733 section 5.4); if it does not, we do.
                self._after("leaving", LEAVING_SECONDS, self.abort)
            elif header.command == Command.CAPABILITIES:
                raise DiameterError(Result.UNABLE_TO_COMPLY, "capabilities were exchanged before")
            else:
                raise DiameterError(Result.COMMAND_UNSUPPORTED, "this command is not served")
        except DiameterError as error:
            if header.is_request:
                self._send(self._node.refusal(header, error))
        except Exception as error:  # a message must not end more than itself
            log.error("a message failed", extra={"peer": self.host, "error": type(error).__name__})
            self._send(self._node.refusal(header, DiameterError(Result.UNABLE_TO_COMPLY, "internal error")))

    def _credit(self, header: Header, data: bytes) -> None:
        request = CreditRequest()
        try:
            message = self._shapes.message(data)
            request.read(message)
            self._shapes.learn(message)
            if self._node.running >= self._node.settings.requests_at_once:
                raise DiameterError(Result.TOO_BUSY, "too many requests at once; repeat this one")
        except DiameterError as error:
            TALLY.count(request.type, error.result)
            self._send(self._node.refusal(header, error, request))
            return
        self._node.running += 1
        self._running += 1
        self._node.credit(header, request, self._sender, self._served)

    def _served(self, answer: bytes | None) -> None:
        """A request has its answer, or gets none any more."""
        if answer is not None:
            self._send(answer)
        self._node.running -= 1
        self._running -= 1
        if self._held and self._transport is not None:
            self._flow()
            self._go_on()
        if self._released:
            self._settle()

    # -- capabilities and watchdog

    def _capabilities(self, header: Header, data: bytes) -> None:
        """CER (RFC 6733 section 5.3). A second connection of the same peer takes the place of the first."""
        self._cancel("handshake")
        host, failed, reason, result = "", b"", "", int(Result.SUCCESS)
        settings = None
        try:
            avps = codec.split(data, codec.HEADER_LENGTH, len(data))
            found = {avp[0]: avp for avp in avps}
            for key in (Avp.ORIGIN_HOST, Avp.ORIGIN_REALM):
                if key not in found:
                    raise codec.missing(key)
            host = codec.text(data, found[Avp.ORIGIN_HOST])
            settings = self._node.peer(host)
            if settings is None or not host or host.lower() == self._node.settings.origin_host.lower():
                raise DiameterError(Result.UNKNOWN_PEER, "this Origin-Host may not connect")
            security = [codec.unsigned32(data, avp) for avp in avps if avp[0] == Avp.INBAND_SECURITY_ID]
            if security and 0 not in security:
                raise DiameterError(Result.NO_COMMON_SECURITY, "TLS is negotiated before Diameter, or not at all")
            if not self._node.common_application(data, avps):
                raise DiameterError(Result.NO_COMMON_APPLICATION, "only application 4 is served")
        except DiameterError as error:
            result, failed, reason = error.result, error.failed, error.reason
        body = self._node.capabilities(result, self._transport, reason, failed)
        flags = ERROR if 3000 <= result < 4000 else 0
        self._send(codec.message(flags, header.command, header.application, header.hop_by_hop, header.end_to_end, body))
        if result != Result.SUCCESS or settings is None:
            log.warning("peer refused", extra={"peer": host[:255], "reason": reason})
            self._end(reason)
            return
        self.host, self.state = host, State.OPEN
        self._sender = Sender.of(host, settings)
        before = self._node.open.get(host.lower())
        if before is not None:
            log.warning("peer has connected again; its older connection is closed", extra={"peer": host})
            before.leave()
        self._node.open[host.lower()] = self
        PEERS.set(len(self._node.open))
        log.info("peer is connected", extra={"peer": host})
        self._watch(self._node.settings.watchdog_seconds)

    def _watch(self, seconds: float) -> None:
        # Jitter, so that many peers' watchdogs do not fall into step (RFC 3539 section 3.4.1).
        self._after("watchdog", max(0.05, seconds + random.uniform(-2, 2) * min(1, seconds / 30)), self._tick)

    def _tick(self) -> None:
        """The watchdog: silence for Tw is probed; a probe without any message for two more is the end."""
        period = self._node.settings.watchdog_seconds
        quiet = self._loop.time() - self._heard
        if quiet < period * 0.9:
            self._watch(period - quiet)
        elif not self._probed:
            self._probed = True
            state = codec.u32(Avp.ORIGIN_STATE_ID, self._node.origin_state)
            self._ask(Command.WATCHDOG, 0, self._node.answers.origin + state)
            self._watch(period)
        elif quiet < period * 2.9:
            self._watch(period)
        else:
            self._drop("does not answer the watchdog")

    # -- what we ask

    def ask(self, command: int, body: bytes) -> asyncio.Future[int]:
        """Send a request of credit control; the future is the answer's Result-Code, or cancelled with the connection."""
        return self._ask(command, CREDIT_CONTROL, body, REQUEST | 0x40)

    def _ask(self, command: int, application: int, body: bytes, flags: int = REQUEST) -> asyncio.Future[int]:
        number = next(self._numbers) & 0xFFFFFFFF
        answer: asyncio.Future[int] = self._loop.create_future()
        self._asked[number] = answer
        answer.add_done_callback(lambda _: self._asked.pop(number, None))
        # Unique over restarts within four minutes (RFC 6733 section 3).
        end_to_end = (int(time.time()) & 0xFFF) << 20 | number & 0xFFFFF
        self._send(codec.message(flags, command, application, number, end_to_end, body))
        return answer

    def _answered(self, header: Header, data: bytes) -> None:
        """An answer to what we asked; others are read over."""
        waiting = self._asked.get(header.hop_by_hop)
        if waiting is None or waiting.done():
            return
        result = int(Result.UNABLE_TO_COMPLY)
        try:
            for avp in codec.split(data, codec.HEADER_LENGTH, len(data)):
                if avp[0] == Avp.RESULT_CODE:
                    result = codec.unsigned32(data, avp)
        finally:
            waiting.set_result(result)
        if header.command == Command.DISCONNECT:
            self._released = True
            self._settle()

    def leave(self) -> None:
        """Ask the peer to disconnect (DPR), then close."""
        if self.state is not State.OPEN:
            self._end("closing")
            return
        self.state = State.CLOSING
        self._ask(Command.DISCONNECT, 0, self._node.answers.origin + codec.u32(Avp.DISCONNECT_CAUSE, 0))
        self._after("leaving", LEAVING_SECONDS, self.abort)

    def _settle(self) -> None:
        """The peer agrees to part (DPA): what is still under way is answered first."""
        if not self._running:
            self._end("disconnected")

    # -- writing

    def _reply(self, header: Header, body: bytes) -> None:
        self._send(codec.message(0, header.command, header.application, header.hop_by_hop, header.end_to_end, body))

    def _send(self, message: bytes) -> None:
        """Answers of one turn of the loop go out in one write."""
        if self._transport is None:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(message)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # -- ending

    def _after(self, name: str, seconds: float, then: object) -> None:
        self._cancel(name)
        self._timers[name] = self._loop.call_later(seconds, then)  # type: ignore[arg-type]

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _end(self, reason: str) -> None:
        """Write what there is, then close; a peer that does not read is not waited for."""
        self.state = State.CLOSING
        self._flush()
        if self._transport is not None:
            self._transport.close()
            self._after("leaving", LEAVING_SECONDS, self.abort)

    def _drop(self, reason: str) -> None:
        REFUSED.labels(reason).inc()
        log.warning("connection dropped", extra={"peer": self.host, "reason": reason})
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        self.state = State.CLOSING
        if self._transport is not None:
            self._transport.abort()
