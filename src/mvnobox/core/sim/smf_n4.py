"""The control plane's side of N4: association, heartbeats, sessions; to a CTF or straight to a UPF."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from mvnobox.core.sim import n4_messages
from mvnobox.core.sim.settings import N4Peer
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, IeType, Message, PfcpError, Type
from mvnobox.pfcp.endpoint import Address, Endpoint, NoAnswer

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0


class N4Error(Exception):
    """The user plane does not answer or refuses."""


@dataclass(frozen=True)
class Established:
    """The user plane's side of a session: its SEID, and (address, TEID) for the UE's packets and for ours to the UE."""

    seid: int
    uplink: tuple[str, int]
    control: tuple[str, int]


class N4:
    """`on_restart` is called when the peer has lost its sessions, `on_report` with a SEID and a Report Type."""

    def __init__(
        self, settings: N4Peer, on_restart: Callable[[], None], on_report: Callable[[int, int], int | None]
    ) -> None:
        self._settings, self._on_restart, self._on_report = settings, on_restart, on_report
        self._recovery = int(time.time())
        self._peer_recovery: int | None = None
        self._endpoint: Endpoint | None = None
        self._wake = asyncio.Event()
        self._deletions: set[asyncio.Task[None]] = set()
        self.associated = asyncio.Event()
        self.own = ""

    async def run(self) -> None:
        """Associate and stay associated until cancelled."""
        settings = self._settings
        while not self.own:
            try:
                self.own = await asyncio.to_thread(settings.own_address)
            except OSError as error:
                log.info("waiting for a name: %s", error)
                await asyncio.sleep(0.5)
        self._endpoint = await Endpoint.open(
            settings.listen, settings.port, self._handle, t1=settings.t1, n1=settings.n1
        )
        try:
            while True:
                await self._keep()
        finally:
            for task in self._deletions:
                task.cancel()
            self._endpoint.close()

    async def _keep(self) -> None:
        self._wake.clear()
        try:
            if not self.associated.is_set():
                await self._associate()
            answer = await self._send(Message(Type.HEARTBEAT_REQUEST, 0, [codec.recovery(self._recovery)]))
            self._peer_alive(codec.number(answer.first(IeType.RECOVERY_TIME_STAMP), 4))
        except (N4Error, PfcpError) as error:
            log.warning("N4: %s", error)
            self.associated.clear()
            await asyncio.sleep(RETRY_SECONDS)
            return
        if self.associated.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._settings.heartbeat)

    async def _associate(self) -> None:
        answer = await self._send(n4_messages.association_setup(self.own, self._recovery))
        cause = codec.number(answer.first(IeType.CAUSE), 1)
        if cause != Cause.ACCEPTED:
            raise N4Error(f"the association was refused with cause {cause}")
        self._peer_alive(codec.number(answer.first(IeType.RECOVERY_TIME_STAMP), 4))
        self.associated.set()
        log.info("associated on N4", extra={"peer": self._settings.peer})

    def _peer_alive(self, recovery: int) -> None:
        """A new recovery time stamp: the peer has forgotten its sessions (TS 29.244 clause 6.2.2)."""
        if self._peer_recovery not in (None, recovery):
            log.warning("the user plane has restarted; its sessions are gone")
            self.associated.clear()
            self._on_restart()
        self._peer_recovery = recovery

    async def _send(self, message: Message) -> Message:
        if self._endpoint is None:
            raise N4Error("N4 is not up")
        try:
            address = await asyncio.to_thread(socket.gethostbyname, self._settings.peer)
            return await self._endpoint.request(message, (address, self._settings.peer_port))
        except (OSError, NoAnswer) as error:
            raise N4Error(str(error)) from None

    async def _handle(self, message: Message, peer: Address) -> Message | None:
        if message.type == Type.HEARTBEAT_REQUEST:
            return Message(Type.HEARTBEAT_RESPONSE, 0, [codec.recovery(self._recovery)])
        if message.type == Type.SESSION_REPORT_REQUEST:
            kind = codec.number(message.first(IeType.REPORT_TYPE), 1)
            theirs = self._on_report(message.seid or 0, kind)
            cause = Cause.ACCEPTED if theirs is not None else Cause.SESSION_NOT_FOUND
            return Message(Type.SESSION_REPORT_RESPONSE, 0, [codec.u8(IeType.CAUSE, cause)], seid=theirs or 0)
        return None

    # Sessions ------------------------------------------------------------------------------------------------------

    async def establish(
        self, subscription: n4_messages.Subscription, ue: n4_messages.UeAddresses, seid: int, teid: int
    ) -> Established:
        """Set a session up. Raises N4Error."""
        if not self.associated.is_set():
            raise N4Error("there is no association with the user plane")
        answer = await self._send(n4_messages.establishment(subscription, ue, seid, self.own, teid=teid))
        try:
            self._accepted(answer, "session")
            return Established(
                codec.parse_f_seid(answer.need(IeType.F_SEID))[0],
                n4_messages.tunnel(answer, n4_messages.UPLINK_PDR),
                n4_messages.tunnel(answer, n4_messages.FROM_CP_PDR),
            )
        except PfcpError as error:
            raise N4Error(str(error)) from None

    async def change(self, message: Message) -> None:
        """Send a Session Modification Request. Raises N4Error."""
        self._accepted(await self._send(message), "modification")

    def delete(self, seid: int, done: Callable[[], None]) -> asyncio.Task[None]:
        """Delete a session, for as long as it takes; `done` is called once the user plane has forgotten it."""
        recovery = self._peer_recovery

        async def work() -> None:
            while self._peer_recovery == recovery:
                try:
                    await self._send(n4_messages.deletion(seid))
                    break
                except N4Error as error:
                    log.warning("a session's deletion is repeated: %s", error, extra={"seid": seid})
                    await asyncio.sleep(RETRY_SECONDS)
            done()

        task = asyncio.ensure_future(work())
        self._deletions.add(task)
        task.add_done_callback(self._deletions.discard)
        return task

    @staticmethod
    def _accepted(answer: Message, what: str) -> None:
        ie = answer.first(IeType.CAUSE)
        cause = ie.data[0] if ie is not None and ie.data else 0
        if cause != Cause.ACCEPTED:
            name = Cause(cause).name.lower().replace("_", " ") if cause in list(Cause) else "unknown"
            raise N4Error(f"the user plane refused the {what}: cause {cause} ({name})")
