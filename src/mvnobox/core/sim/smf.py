"""The simulated control plane: AMF, AUSF and SMF of one brand in a process.

UEs connect by TCP and exchange one JSON object a line, in the place of N1 and N2; docs/simulated-core.md lists the
messages. Subscribers are read over the wire as Open5GS reads them; the user plane is told by PFCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Gauge

from mvnobox.core.sim import causes, n4_messages
from mvnobox.core.sim.causes import Refused
from mvnobox.core.sim.elements import REPORT_ERROR_INDICATION
from mvnobox.core.sim.n4_messages import UeAddresses
from mvnobox.core.sim.pool import AddressPool, Exhausted, PrefixPool
from mvnobox.core.sim.settings import Dnn, SmfSettings
from mvnobox.core.sim.smf_n1 import Connection
from mvnobox.core.sim.smf_n4 import N4, Established, N4Error
from mvnobox.core.sim.smf_router import Link, Router
from mvnobox.core.sim.subscribers import DirectoryUnavailable, Subscriber, Subscribers
from mvnobox.pfcp import codec

log = logging.getLogger(__name__)
LARGEST_LINE = 65_536
SESSIONS = Gauge("sim_smf_sessions", "PDU sessions")


@dataclass
class PduSession:
    """One UE's session; `gnb` is where its downlink goes, (address, TEID)."""

    identity: int
    dnn: Dnn
    ue: UeAddresses
    seid: int
    # Of the tunnel that its router solicitations come by, and the user plane's for our packets to the UE.
    teid: int
    upf: Established
    gnb: tuple[str, int] | None = None


@dataclass
class Context:
    """A UE that has registered."""

    imsi: str
    connection: Connection
    session: PduSession | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Smf:
    """One control plane (a simulation)."""

    def __init__(self, settings: SmfSettings, directory: str | None = None) -> None:
        self.settings = settings
        self.subscribers = Subscribers(directory or settings.directory)
        self.n4 = N4(settings.n4, self._user_plane_restarted, self._reported)
        self._contexts: dict[str, Context] = {}
        self._dnns = {dnn.name: dnn for dnn in settings.dnns}
        self._pools = {dnn.name: AddressPool(dnn) for dnn in settings.dnns}
        self._prefixes = {
            dnn.name: PrefixPool(dnn.network6, dnn.gateway6)
            for dnn in settings.dnns
            if dnn.network6 is not None and dnn.gateway6 is not None
        }
        self._router = Router(self._link)

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return None if self.n4.associated.is_set() else "no association on N4"

    async def run(self) -> None:
        """Serve until cancelled."""
        host, _, port = self.settings.listen.rpartition(":")
        server = await asyncio.start_server(self._accept, host, int(port), limit=LARGEST_LINE)
        try:
            if self._prefixes:
                await self._router.open(self.settings.n4.listen)
            log.info("simulated core is up", extra={"simulation": True})
            await asyncio.gather(self.n4.run(), self._watch(), server.serve_forever())
        finally:
            server.close()
            self._router.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(self, reader, writer).serve()

    # Contexts ------------------------------------------------------------------------------------------------------

    async def register(self, imsi: str, connection: Connection) -> Context:
        """A UE is in; what it had before is released first."""
        old = self._contexts.get(imsi)
        if old is not None:
            await self.leave(old)
            if old.connection is not connection:
                old.connection.close()
        context = self._contexts[imsi] = Context(imsi, connection)
        return context

    async def leave(self, context: Context) -> None:
        """A UE is out."""
        if self._contexts.get(context.imsi) is context:
            del self._contexts[context.imsi]
        async with context.lock:
            await self.release(context)

    async def release(self, context: Context) -> None:
        """End a UE's session, on N4 too. Its address is free once the user plane has forgotten it."""
        session, context.session = context.session, None
        if session is None:
            return
        self._count()
        deletion = self.n4.delete(session.upf.seid, lambda: self._give_back(session.dnn, session.ue))
        with contextlib.suppress(TimeoutError):
            # The UE need not wait for a user plane that does not answer.
            await asyncio.wait_for(asyncio.shield(deletion), 2 * self.settings.n4.t1)

    def _take(self, dnn: Dnn, *, both: bool) -> UeAddresses:
        """Addresses of a DNN that nobody has. Raises Refused."""
        try:
            address = self._pools[dnn.name].take()
        except Exhausted:
            raise Refused(causes.INSUFFICIENT_RESOURCES, "the address pool is used up") from None
        if not both:
            return UeAddresses(address)
        try:
            return UeAddresses(address, self._prefixes[dnn.name].take())
        except Exhausted:
            self._pools[dnn.name].give_back(address)
            raise Refused(causes.INSUFFICIENT_RESOURCES, "the pool of IPv6 prefixes is used up") from None

    def _give_back(self, dnn: Dnn, ue: UeAddresses) -> None:
        self._pools[dnn.name].give_back(ue.ipv4)
        if ue.ipv6 is not None:
            self._prefixes[dnn.name].give_back(ue.ipv6)

    def _count(self) -> None:
        SESSIONS.set(sum(context.session is not None for context in self._contexts.values()))

    async def establish(self, context: Context, message: dict[str, Any]) -> dict[str, Any]:
        """A PDU session for a registered UE: the Accept's members. Raises Refused."""
        slice_ = message.get("snssai")
        slice_ = slice_ if isinstance(slice_, dict) else {}
        dnn, sst, sd = message.get("dnn"), slice_.get("sst"), slice_.get("sd")
        own = self.settings.slice
        if not isinstance(dnn, str) or dnn not in self._dnns:
            raise Refused(causes.UNKNOWN_DNN, f"{str(dnn)[:100]} is not served here")
        if sst != own.sst or (sd or None) != own.sd:
            raise Refused(causes.NOT_SUBSCRIBED, f"slice {sst}/{sd} is not served here")
        subscription = (await self.subscriber(context.imsi)).subscription(dnn, sst, sd)
        if subscription is None:
            raise Refused(causes.NOT_SUBSCRIBED, f"{dnn} in slice {sst}/{sd}")
        network, asked = self._dnns[dnn], message.get("pduSessionType", "IPv4")
        both = _both(asked, subscription.type, offered=dnn in self._prefixes)
        async with context.lock:
            if self._contexts.get(context.imsi) is not context:
                raise Refused(causes.NOT_COMPATIBLE_WITH_STATE, "the UE is not registered any more")
            await self.release(context)
            ue = self._take(network, both=both)
            seid, teid = secrets.randbits(62) + 1, secrets.randbits(31) + 1
            try:
                upf = await self.n4.establish(subscription, ue, seid, teid)
            except N4Error as error:
                self._give_back(network, ue)
                raise Refused(causes.NETWORK_FAILURE, str(error)) from None
            identity = message.get("pduSessionId", 1)
            identity = identity if isinstance(identity, int) else 1
            context.session = PduSession(identity, network, ue, seid, teid, upf)
        self._count()
        accept: dict[str, Any] = {
            "pduSessionId": identity,
            "pduSessionType": "IPv4v6" if both else "IPv4",
            "ueAddress": ue.ipv4,
            "mtu": network.mtu,
            "dns": list(network.dns),
            "gateway": network.gateway,
            "qfi": 1,
            "gtp": {"address": upf.uplink[0], "teid": upf.uplink[1]},
        }
        if ue.ipv6 is not None:
            # The prefix comes by router advertisement (TS 24.501 clause 9.11.4.10).
            accept |= {"interfaceIdentifier": _packed(ue.ipv6)[8:].hex(), "gateway6": network.gateway6}
        elif asked == "IPv4v6":
            accept["cause"] = causes.IPV4_ONLY
        return accept

    def _link(self, teid: int) -> Link | None:
        """What the router says to the UE whose solicitations come by a tunnel of ours."""
        for context in self._contexts.values():
            session = context.session
            if session is not None and session.teid == teid and session.ue.ipv6 is not None:
                return Link(_packed(session.ue.ipv6)[:8], session.dnn.mtu, session.upf.control)
        return None

    async def set_active(self, context: Context, *, active: bool) -> None:
        """Point the downlink to the UE, or let the user plane hold it back. Raises Refused."""
        async with context.lock:
            session = context.session
            if session is None or session.gnb is None:
                raise Refused(causes.NOT_COMPATIBLE_WITH_STATE, "there is no PDU session with a tunnel")
            message = (
                n4_messages.activate(session.upf.seid, session.dnn.name, *session.gnb)
                if active
                else n4_messages.deactivate(session.upf.seid)
            )
            try:
                await self.n4.change(message)
            except N4Error as error:
                raise Refused(causes.NETWORK_FAILURE, str(error)) from None

    async def subscriber(self, imsi: str) -> Subscriber:
        """The subscriber, who is there and not barred. Raises Refused."""
        try:
            found = await self.subscribers.find(imsi)
        except DirectoryUnavailable as error:
            raise Refused(causes.CONGESTION, f"the directory does not answer: {error}") from None
        if found is None:
            raise Refused(causes.ILLEGAL_UE, "the subscriber is not known")
        if found.barred:
            raise Refused(causes.ILLEGAL_UE, "the subscriber is barred")
        return found

    async def _watch(self) -> None:
        """Suspension and termination take effect on UEs that are registered."""
        while True:
            await asyncio.sleep(self.settings.watch_seconds)
            for context in list(self._contexts.values()):
                try:
                    await self.subscriber(context.imsi)
                except Refused as refusal:
                    if refusal.cause == causes.ILLEGAL_UE:
                        log.info("a UE is deregistered: %s", refusal.detail)
                        await self.leave(context)
                        context.connection.detach(refusal.cause, refusal.detail)

    # N4's side -----------------------------------------------------------------------------------------------------

    def _user_plane_restarted(self) -> None:
        for context in self._contexts.values():
            session, context.session = context.session, None
            if session is not None:
                self._give_back(session.dnn, session.ue)
                self._release_command(context, session, "the user plane has restarted")
        self._count()

    def _release_command(self, context: Context, session: PduSession, detail: str) -> None:
        context.connection.send(
            "PDUSessionReleaseCommand",
            pduSessionId=session.identity, cause=causes.REACTIVATION_REQUESTED, detail=detail,
        )  # fmt: skip

    def _reported(self, seid: int, kind: int) -> int | None:
        """A session report: the user plane's SEID, None for a session that is not known."""
        for context in self._contexts.values():
            session = context.session
            if session is None or session.seid != seid:
                continue
            if kind & codec.REPORT_DOWNLINK_DATA:
                context.connection.send("Paging", pduSessionId=session.identity)
            if kind & REPORT_ERROR_INDICATION:
                self._release_command(context, session, "the access network knows the tunnel no more")
            return session.upf.seid
        return None


def _both(asked: object, subscribed: int, *, offered: bool) -> bool:
    """Whether a session has IPv6 besides IPv4, as Open5GS decides it (TS 24.501 clause 6.4.1.3). Raises Refused."""
    both = subscribed == 3 and offered
    if subscribed == 2:
        raise Refused(causes.IPV6_ONLY, "sessions without IPv4 are not simulated")
    if asked not in ("IPv4", "IPv4v6"):
        raise Refused(causes.IPV4V6_ONLY if both else causes.IPV4_ONLY)
    return both and asked == "IPv4v6"


def _packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed
