"""What the connections of one Diameter node share: its identity, peers, limits, and the way a request is answered."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import REGISTRY, Counter, Gauge

from mvnobox.charging.diameter.calls import Sender
from mvnobox.charging.diameter.control import CreditControl, Prompt
from mvnobox.charging.diameter.credit import Answers, CreditRequest
from mvnobox.charging.diameter.settings import DiameterPeer, DiameterSettings
from mvnobox.charging.diameter.tally import Tally
from mvnobox.charging.ledger import Reply
from mvnobox.charging.problems import UNFIT
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError, Header
from mvnobox.diameter.codes import (
    CREDIT_CONTROL,
    ERROR,
    PROXIABLE,
    RELAY,
    TGPP,
    Avp,
    Command,
    Result,
)
from mvnobox.service.database import TROUBLE

if TYPE_CHECKING:
    from mvnobox.charging.diameter.connection import Connection

log = logging.getLogger(__name__)
TALLY = Tally()
REGISTRY.register(TALLY)
PEERS = Gauge("ocs_diameter_peers", "Connected Diameter peers")
REFUSED = Counter("ocs_diameter_refused_total", "Connections refused or dropped", ["reason"])
Done = Callable[[bytes | None], None]


class Serving(NamedTuple):
    """A request on its way to its answer."""

    header: Header
    request: CreditRequest
    sender: Sender
    done: Done
    started: float


class Node:
    """An OCS as a Diameter node. `running` counts the requests of all peers that are under way."""

    def __init__(self, settings: DiameterSettings, control: CreditControl) -> None:
        self.settings, self.control = settings, control
        self.answers = Answers(settings.origin_host, settings.origin_realm)
        self.origin_state = int(time.time())
        self.running = 0
        self.connections: set[Connection] = set()
        self.open: dict[str, Connection] = {}
        self._known = None if settings.peers is None else {peer.host.lower(): peer for peer in settings.peers}
        served = settings.served_realms
        self._realms = None if served is None else {r.lower() for r in (*served, settings.origin_realm)}
        self._host = settings.origin_host.lower()
        self._tasks: set[asyncio.Task[None]] = set()

    def peer(self, host: str) -> DiameterPeer | None:
        """What is set about a peer; None for one that may not connect."""
        if self._known is None:
            return DiameterPeer.model_construct(host=host, brand=None, final_units=True)
        return self._known.get(host.lower())

    def capabilities(
        self, result: int, transport: asyncio.Transport | None, error: str = "", failed: bytes = b""
    ) -> bytes:
        """The AVPs of a CEA (RFC 6733 section 5.3.2) on a connection."""
        return b"".join(
            [
                codec.u32(Avp.RESULT_CODE, result),
                self.answers.origin,
                *(codec.octets(Avp.HOST_IP_ADDRESS, address) for address in _addresses(transport)),
                codec.u32(Avp.VENDOR_ID, 0),
                codec.utf8(Avp.PRODUCT_NAME, "mvno-in-a-box OCS", 0),
                codec.u32(Avp.ORIGIN_STATE_ID, self.origin_state),
                codec.utf8(Avp.ERROR_MESSAGE, error, 0) if error else b"",
                codec.octets(Avp.FAILED_AVP, failed) if failed else b"",
                codec.u32(Avp.SUPPORTED_VENDOR_ID, TGPP),
                codec.u32(Avp.AUTH_APPLICATION_ID, CREDIT_CONTROL),
                codec.u32(Avp.FIRMWARE_REVISION, 1, 0),
            ]
        )

    def common_application(self, data: bytes, avps: list[codec.Found]) -> bool:
        """Whether a CER offers credit control, by itself, within a vendor's, or as a relay (RFC 6733 section 5.3)."""
        for avp in avps:
            if avp[0] == Avp.AUTH_APPLICATION_ID and codec.unsigned32(data, avp) in (CREDIT_CONTROL, RELAY):
                return True
            if avp[0] == Avp.VENDOR_SPECIFIC_APPLICATION_ID and self.common_application(
                data, codec.split(data, avp[3], avp[4])
            ):
                return True
        return False

    def refusal(self, header: Header, error: DiameterError, request: CreditRequest | None = None) -> bytes:
        """An answer that only says what is wrong; protocol errors carry the E bit (RFC 6733 section 7.2)."""
        flags = header.flags & PROXIABLE | (ERROR if 3000 <= error.result < 4000 else 0)
        if request is not None and request.session_id and not flags & ERROR:
            body = self.answers.credit(request, error.result)
        else:
            body = codec.u32(Avp.RESULT_CODE, error.result) + self.answers.origin
            if request is not None:
                if request.session_id:
                    body = codec.octets(Avp.SESSION_ID, request.session_id) + body
                body += b"".join(request.proxies)
        body += codec.utf8(Avp.ERROR_MESSAGE, error.reason, 0) + codec.failed_avp(error)
        return codec.message(flags, header.command, header.application, header.hop_by_hop, header.end_to_end, body)

    def credit(self, header: Header, request: CreditRequest, sender: Sender, done: Done) -> None:
        """Answer a credit-control request, whatever happens: `done` gets the whole answer, now or later; or None where
        the service ends before."""
        serving = Serving(header, request, sender, done, time.perf_counter())
        try:
            self._check_destination(request)
            prompt = self.control.prompt(request, sender)
        except Exception as error:
            self._done(serving, *self._refused(serving, error))
            return
        if prompt is None:
            self._start(serving)
        else:
            self.control.engine.submit(prompt.call, functools.partial(self._replied, serving, prompt))

    def _replied(self, serving: Serving, prompt: Prompt, reply: Reply | Exception) -> None:
        try:
            if isinstance(reply, Exception):
                raise reply
            told = self.control.told(serving.request, serving.sender, prompt, reply)
            if told is None:
                self._start(serving)
                return
            answer = self._answered(serving, *told)
        except Exception as error:
            answer = self._refused(serving, error)
        self._done(serving, *answer)

    def _start(self, serving: Serving) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(serving))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ended, serving))

    def _ended(self, serving: Serving, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            serving.done(None)

    async def _serve(self, serving: Serving) -> None:
        """A request that takes more than one look-up or call."""
        try:
            answer = self._answered(serving, *await self.control.answer(serving.request, serving.sender))
        except Exception as error:
            answer = self._refused(serving, error)
        self._done(serving, *answer)

    def _answered(self, serving: Serving, result: int, more: list[bytes]) -> tuple[int, bytes]:
        header, request = serving.header, serving.request
        return result, codec.message(
            header.flags & PROXIABLE, Command.CREDIT_CONTROL, CREDIT_CONTROL,
            header.hop_by_hop, header.end_to_end, self.answers.credit(request, result, more),
        )  # fmt: skip

    def _refused(self, serving: Serving, error: Exception) -> tuple[int, bytes]:
        if isinstance(error, DiameterError):
            refusal = error
        elif isinstance(error, UNFIT):
            refusal = DiameterError(Result.INVALID_AVP_VALUE, "more than the ledger can hold")
        elif isinstance(error, TROUBLE):
            # The peer's failover and retransmission are meant for this (RFC 8506 section 6.5): it is charged once.
            log.warning("a request failed", extra={"error": type(error).__name__})
            refusal = DiameterError(Result.TOO_BUSY, "the ledger cannot be reached; repeat this")
        else:  # nothing that a request holds may leave it unanswered
            log.error("a request failed", extra={"error": type(error).__name__})
            refusal = DiameterError(Result.UNABLE_TO_COMPLY, "internal error")
        return refusal.result, self.refusal(serving.header, refusal, serving.request)

    def _done(self, serving: Serving, result: int, answer: bytes) -> None:
        TALLY.observe(time.perf_counter() - serving.started)
        TALLY.count(serving.request.type, result)
        serving.done(answer)

    def _check_destination(self, request: CreditRequest) -> None:
        if self._realms is not None and request.destination_realm.lower() not in self._realms:
            raise DiameterError(Result.REALM_NOT_SERVED, "this Destination-Realm is not served here")
        if request.destination_host is not None and request.destination_host.lower() != self._host:
            raise DiameterError(Result.UNABLE_TO_DELIVER, "this Destination-Host is not here")

    async def close(self, seconds: float) -> None:
        """Tell every peer to go (DPR), and wait for that at most so long."""
        for connection in list(self.connections):
            connection.leave()
        deadline = time.monotonic() + seconds
        while self.connections and time.monotonic() < deadline:
            waiting = [connection.closed for connection in self.connections]
            await asyncio.wait(waiting, timeout=deadline - time.monotonic())
        for connection in list(self.connections):
            connection.abort()


def _addresses(transport: asyncio.Transport | None) -> list[bytes]:
    """The address that a peer has reached us by, as an Address: a family number of IANA first (RFC 6733 4.3.1)."""
    name = transport.get_extra_info("sockname") if transport else None
    if not name:
        return []
    address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return [(1 if mapped.version == 4 else 2).to_bytes(2) + mapped.packed]
