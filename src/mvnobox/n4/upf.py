"""The UPF as the CTF knows it: where it is, whether it is associated, whether it has restarted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from prometheus_client import Gauge

from mvnobox.n4.forwarding import Detour
from mvnobox.n4.settings import CtfSettings, resolve
from mvnobox.n4.store import Store
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, Ie, IeType, Message, Type
from mvnobox.pfcp.endpoint import Address, Endpoint, NoAnswer
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 5.0
REASSOCIATE_SECONDS = 1.0
# After our own start. Open5GS's UPF says something every 11 s at least; its SMF gives a session up after 7.5 s, and one
# that is set up later is nobody's.
FIRST_WORD_SECONDS = 5.0
ASSOCIATED = Gauge("ctf_upf_associated", "Whether the UPF is associated")


class Upf:
    """The association with the UPF. `lost` is awaited when it has restarted, before it is used again."""

    def __init__(self, settings: CtfSettings, store: Store, lost: Callable[[], Awaitable[None]]) -> None:
        self._settings, self._store, self._lost = settings, store, lost
        self._endpoint: Endpoint | None = None
        self._own, self._recovery = "", 0
        self._known: int | None = None
        self._address: tuple[float, Address] | None = None
        self._heard_from: Address | None = None
        self.features: Ie | None = None
        self.associated = asyncio.Event()

    def serve(self, endpoint: Endpoint, own: str) -> None:
        """Use this endpoint, under this Node ID."""
        self._endpoint, self._own = endpoint, own

    async def address(self) -> Address:
        """Where it is now, after a wait for its first word if need be. Raises OSError.

        Open5GS's UPF sends to every address of a peer in turn: Node ID and source. They have to be the same one, and
        outlive our pod: the Service's. What we send to where the UPF's own packets came from goes back the way that
        they came, so that it has the Service's address as its source.
        """
        if self._settings.upf_initiates:
            if self._heard_from is None:
                # Better a session that is late than one that is refused.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.associated.wait(), FIRST_WORD_SECONDS)
            if self._heard_from is None:
                raise ConnectionError("it has not been heard of yet")
            return self._heard_from
        now = asyncio.get_running_loop().time()
        if self._address is None or now - self._address[0] > HEARTBEAT_SECONDS:
            found = await asyncio.to_thread(resolve, self._settings.upf, ":" in self._own)
            self._address = now, (found, self._settings.upf_port)
        return self._address[1]

    def detour(self, seid: int) -> Detour | None:
        """Where a session's uplink goes while its gate is closed; None where DROP is enough."""
        return Detour(self._own, seid & 0xFFFFFFFF) if self._settings.upf_ignores_drop else None

    async def request(self, message: Message) -> Message:
        """Ask the UPF. Raises NoAnswer, OSError."""
        assert self._endpoint is not None
        try:
            return await self._endpoint.request(message, await self.address())
        except NoAnswer:
            self._address = None
            raise

    async def heard(self, peer: Address, recovery: int | None) -> None:
        """A request came from here: one that only a UPF sends, or a heartbeat, whose time stamp and address tell whose.

        The time stamp alone does not: it has seconds, and an SMF may have started in the same one. After our restart
        the association stands as it was: the UPF's next word is enough.
        """
        if not self._settings.upf_initiates or (peer == self._heard_from and self.associated.is_set()):
            return
        if recovery is not None:
            where = await self._store.get_setting("upf-address")
            if where not in (None, peer[0]) or await self._store.get_setting("upf-recovery") != str(recovery):
                return
        features = await self._store.get_setting("upf-features")
        await self._is_at(peer)
        if features is not None:
            self.features = Ie(IeType.UP_FUNCTION_FEATURES, bytes.fromhex(features))
        self._associated()

    async def _is_at(self, peer: Address) -> None:
        self._heard_from = peer
        await self._store.set_setting("upf-address", peer[0])

    def _associated(self) -> None:
        self.associated.set()
        ASSOCIATED.set(1)
        log.info("associated with the UPF")

    async def accepted(self, setup: Message, peer: Address) -> None:
        """The UPF has set the association up, and our answer carries our newest time stamp."""
        await self._is_at(peer)
        if self.features is not None:
            await self._store.set_setting("upf-features", self.features.data.hex())
        self._associated()

    async def keep(self) -> None:
        """Associate, keep the heartbeat, notice restarts; for ever."""
        while True:
            try:
                if self._settings.upf_initiates:
                    await self.associated.wait()
                recovery = await self._store.recovery_time()
                if not self.associated.is_set():
                    await self._associate(recovery)
                answer = await self.request(Message(Type.HEARTBEAT_REQUEST, 0, [codec.recovery(recovery)]))
                await self.seen(codec.number(answer.first(IeType.RECOVERY_TIME_STAMP), 4))
                await asyncio.sleep(HEARTBEAT_SECONDS if self.associated.is_set() else 0)
            except (NoAnswer, codec.PfcpError, *TROUBLE) as error:
                log.warning("UPF: %s", error or type(error).__name__)
                self._gone()
                await asyncio.sleep(REASSOCIATE_SECONDS)

    async def _associate(self, recovery: int) -> None:
        answer = await self.request(
            Message(Type.ASSOCIATION_SETUP_REQUEST, 0, [codec.node_id(self._own), codec.recovery(recovery)])
        )
        if codec.number(answer.first(IeType.CAUSE), 1) != Cause.ACCEPTED:
            raise NoAnswer("the UPF refused the association")
        if await self.take(answer):
            self._associated()

    async def take(self, setup: Message) -> bool:
        """An association is set up, by whichever side: keep the UPF's features and time stamp.

        False if it has restarted: our own time stamp is another now, and the association has to be set up under that
        one. Under the old one the UPF would take us for restarted at the next heartbeat and drop its new sessions.
        """
        self.features = setup.first(IeType.UP_FUNCTION_FEATURES)
        return not await self.seen(codec.number(setup.first(IeType.RECOVERY_TIME_STAMP), 4))

    async def seen(self, recovery: int) -> bool:
        """A new recovery time stamp means that the UPF has forgotten its sessions (TS 29.244 clause 6.2.2)."""
        if self._known is None:
            known = await self._store.get_setting("upf-recovery")
            self._known = int(known) if known else None
        if self._known == recovery:
            return False
        restarted = self._known is not None
        if restarted:
            log.warning("the UPF has restarted; its sessions are closed")
            self._gone()
            await self._lost()
        self._known = recovery
        await self._store.set_setting("upf-recovery", str(recovery))
        return restarted

    def _gone(self) -> None:
        self.associated.clear()
        self._address = None
        ASSOCIATED.set(0)
