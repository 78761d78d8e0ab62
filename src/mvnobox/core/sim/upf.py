"""The simulated user plane function: a PFCP server (TS 29.244) over the data path."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge

from mvnobox.core.sim import gtpu
from mvnobox.core.sim.elements import FTUP, QUERY_ALL_URRS, REPORT_ERROR_INDICATION, Also
from mvnobox.core.sim.settings import Dnn, UpfSettings
from mvnobox.core.sim.tun import need_forwarding, need_ipv6, open_tun, run, user_plane_rules
from mvnobox.core.sim.upf_path import DataPath, Tun
from mvnobox.core.sim.upf_rules import Pdr, Session, apply
from mvnobox.core.sim.usage import IMMEDIATE, TERMINATION, Urr
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, Ie, IeType, Message, PfcpError, Type
from mvnobox.pfcp.endpoint import PORT, Address, Endpoint, NoAnswer

log = logging.getLogger(__name__)
T = TypeVar("T")
SOCKET_BUFFER = 8 << 20
# How long a stop waits for the last reports.
FAREWELL_SECONDS = 3.0
SESSIONS = Gauge("upf_sessions", "PFCP sessions")
REPORTS = Counter("upf_usage_reports_total", "Usage reports", ["what"])
_ANSWERS = {
    Type.SESSION_ESTABLISHMENT_REQUEST: Type.SESSION_ESTABLISHMENT_RESPONSE,
    Type.SESSION_MODIFICATION_REQUEST: Type.SESSION_MODIFICATION_RESPONSE,
    Type.SESSION_DELETION_REQUEST: Type.SESSION_DELETION_RESPONSE,
    Type.ASSOCIATION_SETUP_REQUEST: Type.ASSOCIATION_SETUP_RESPONSE,
    Type.ASSOCIATION_RELEASE_REQUEST: Type.ASSOCIATION_RELEASE_RESPONSE,
}


def gtp_socket(host: str = "0.0.0.0") -> socket.socket:
    """A non-blocking GTP-U socket with room for bursts."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for plain, forced in ((socket.SO_RCVBUF, 33), (socket.SO_SNDBUF, 32)):
        made.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BUFFER)
        with contextlib.suppress(OSError):
            # SO_RCVBUFFORCE, SO_SNDBUFFORCE: beyond the host's limit, with NET_ADMIN.
            made.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER)
    made.setblocking(False)
    made.bind((host, gtpu.PORT))
    return made


def _networks(name: str) -> list[str]:
    """A name's addresses of both families, as networks. Raises OSError."""
    found = {entry[4][0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)}
    return [str(ipaddress.ip_network(address)) for address in sorted(map(str, found))]


def _tun(name: str, dnn: Dnn) -> Tun:
    """The device of a DNN, with the gateway's addresses. Raises HostError."""
    addresses = [f"{dnn.gateway}/{dnn.network.prefixlen}"]
    pools = [dnn.network[0].packed, dnn.network[-1].packed]
    if dnn.network6 is not None:
        need_ipv6()
        addresses.append(f"{dnn.gateway6}/{dnn.network6.prefixlen}")
        pools += [dnn.network6[0].packed[:8], dnn.network6[-1].packed[:8]]
    return Tun(open_tun(name, addresses, dnn.mtu), *pools)


class Upf:
    """One user plane function (a simulation)."""

    def __init__(self, settings: UpfSettings) -> None:
        self._settings = settings
        self._recovery = int(time.time())
        # Node ID of a control plane → its recovery time stamp.
        self._associations: dict[bytes, int] = {}
        self._sessions: dict[int, Session] = {}
        self._teids: set[int] = set()
        self._reporters: set[asyncio.Task[None]] = set()
        self._path: DataPath | None = None
        self._endpoint: Endpoint | None = None
        self._own = ""

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return None if self._endpoint is not None else "not started"

    async def run(self) -> None:
        """Set up the data path and serve until cancelled. Raises HostError."""
        loop = asyncio.get_running_loop()
        self._own = await self._resolve(self._settings.n3.own_address)
        allowed: list[str] = []
        for entry in self._settings.allow:
            allowed += [entry] if "/" in entry else await self._resolve(lambda name=entry: _networks(name))
        dnns = self._settings.dnns
        tuns = [_tun(f"ogstun{index or ''}", dnn) for index, dnn in enumerate(dnns)]
        need_forwarding(ipv6=any(dnn.pool6 for dnn in dnns))
        pools, routed = (
            [pool for dnn in chosen for pool in (dnn.pool, dnn.pool6) if pool is not None]
            for chosen in (dnns, [dnn for dnn in dnns if dnn.routed])
        )
        rules = user_plane_rules(
            pools, allowed, self._settings.deny, between_ues=self._settings.between_ues, routed=routed
        )
        run("nft", "-f", "-", stdin=rules)
        gtp = gtp_socket()
        path = DataPath(gtp, self._own, tuns, self._report_usage, self._report_downlink, self._report_error)
        self._path = path
        loop.add_reader(gtp.fileno(), path.uplink)
        for tun in tuns:
            loop.add_reader(tun.descriptor, path.downlink, tun.descriptor)
        n4 = self._settings.n4
        self._endpoint = await Endpoint.open(n4.listen, n4.port, self._handle, t1=n4.t1, n1=n4.n1)
        log.info("simulated UPF is up", extra={"simulation": True, "n3": self._own})
        try:
            await asyncio.Event().wait()
        finally:
            loop.remove_reader(gtp.fileno())
            await self._farewell()
            self._endpoint.close()

    @staticmethod
    async def _resolve(resolve: Callable[..., T]) -> T:
        while True:
            try:
                return await asyncio.to_thread(resolve)
            except OSError as error:
                log.info("waiting for a name: %s", error)
                await asyncio.sleep(0.5)

    async def _farewell(self) -> None:
        """Report what was carried and not yet reported: our sessions end with us."""
        for session in self._sessions.values():
            for urr in session.urrs.values():
                if urr.total:
                    self._report_usage(session, urr, TERMINATION)
        if self._reporters:
            await asyncio.wait(self._reporters, timeout=FAREWELL_SECONDS)
        for task in self._reporters:
            task.cancel()

    @property
    def path(self) -> DataPath:
        assert self._path is not None
        return self._path

    # Reports -------------------------------------------------------------------------------------------------------

    def _later(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._reporters.add(task)
        task.add_done_callback(self._reporters.discard)

    def _report_usage(self, session: Session, urr: Urr, trigger: int) -> None:
        members = urr.report(trigger)
        session.unacknowledged.append(members)
        REPORTS.labels("made").inc()
        self._later(self._deliver(session, members))

    async def _deliver(self, session: Session, members: list[Ie]) -> None:
        """Send a usage report until it is acknowledged: what was carried is never forgotten.

        It keeps its UR-SEQN however often it is sent, so that a control plane that took it and could not say so
        knows it again. What is still owed when the session is deleted goes into the deletion's answer.
        """
        ies = [codec.u8(IeType.REPORT_TYPE, codec.REPORT_USAGE), codec.group(IeType.USAGE_REPORT_REPORT, members)]
        while session.seid in self._sessions:
            try:
                answer = await self._to_cp(session, Message(Type.SESSION_REPORT_REQUEST, 0, list(ies)))
                cause = codec.number(answer.first(IeType.CAUSE), 1)
            except (NoAnswer, PfcpError, OSError) as error:
                REPORTS.labels("repeated").inc()
                log.warning("a usage report is not acknowledged: %s", error, extra={"seid": session.seid})
                await asyncio.sleep(0.1)
                continue
            if cause == Cause.SESSION_NOT_FOUND:
                # Nobody pays for this session any more (clause 6.3.4.2): it carries nothing from here on.
                log.warning("the control plane does not know a session; it is deleted", extra={"seid": session.seid})
                self._drop(session)
            elif cause != Cause.ACCEPTED:
                await asyncio.sleep(1)
                continue
            if members in session.unacknowledged:
                session.unacknowledged.remove(members)
            REPORTS.labels("acknowledged").inc()
            return

    def _report_downlink(self, session: Session, pdr: Pdr) -> None:
        """Packets wait for a UE that is idle: once until the control plane changes something."""
        session.told_of_downlink = True
        report = codec.group(IeType.DOWNLINK_DATA_REPORT, [codec.u16(IeType.PDR_ID, pdr.id)])

        async def send() -> None:
            ies = [codec.u8(IeType.REPORT_TYPE, codec.REPORT_DOWNLINK_DATA), report]
            try:
                await self._to_cp(session, Message(Type.SESSION_REPORT_REQUEST, 0, ies))
            except (NoAnswer, OSError):
                session.told_of_downlink = False

        self._later(send())

    def _report_error(self, session: Session, teid: int, address: str) -> None:
        """A peer on the access side does not know a tunnel (clause 5.2.6 of TS 29.244, Error Indication Report)."""
        if session.told_of_downlink:
            return
        session.told_of_downlink = True
        remote = Ie(IeType.F_TEID, b"\x01" + struct.pack(">I", teid) + socket.inet_aton(address))
        report = codec.group(Also.ERROR_INDICATION_REPORT, [remote])

        async def send() -> None:
            with contextlib.suppress(NoAnswer, OSError):
                ies = [codec.u8(IeType.REPORT_TYPE, REPORT_ERROR_INDICATION), report]
                await self._to_cp(session, Message(Type.SESSION_REPORT_REQUEST, 0, ies))

        self._later(send())

    async def _to_cp(self, session: Session, message: Message) -> Message:
        assert self._endpoint is not None
        message.seid = session.cp_seid
        return await self._endpoint.request(message, (session.cp_address, PORT))

    # PFCP ----------------------------------------------------------------------------------------------------------

    async def _handle(self, message: Message, peer: Address) -> Message | None:
        if message.type == Type.HEARTBEAT_REQUEST:
            return Message(Type.HEARTBEAT_RESPONSE, 0, [codec.recovery(self._recovery)])
        try:
            match message.type:
                case Type.ASSOCIATION_SETUP_REQUEST:
                    return self._associate(message)
                case Type.ASSOCIATION_RELEASE_REQUEST:
                    self._disassociate(message.need(IeType.NODE_ID).data)
                    ies = [self._node(), codec.u8(IeType.CAUSE, Cause.ACCEPTED)]
                    return Message(Type.ASSOCIATION_RELEASE_RESPONSE, 0, ies)
                case Type.SESSION_ESTABLISHMENT_REQUEST:
                    return self._establish(message)
                case Type.SESSION_MODIFICATION_REQUEST:
                    return self._modify(message)
                case Type.SESSION_DELETION_REQUEST:
                    return self._delete(message)
        except PfcpError as error:
            log.info("refused: %s", error, extra={"type": message.type, "peer": peer[0]})
            return self._refusal(message, Cause.MANDATORY_IE_INCORRECT)
        return None

    def _refusal(self, message: Message, cause: Cause) -> Message:
        seid = None
        if message.type >= Type.SESSION_ESTABLISHMENT_REQUEST:
            session = self._sessions.get(message.seid or 0)
            seid = session.cp_seid if session is not None else 0
        ies = [codec.u8(IeType.CAUSE, cause)]
        if message.type not in (Type.SESSION_MODIFICATION_REQUEST, Type.SESSION_DELETION_REQUEST):
            ies.insert(0, self._node())
        return Message(_ANSWERS[Type(message.type)], 0, ies, seid=seid)

    def _node(self) -> Ie:
        return codec.node_id(self._own)

    def _associate(self, message: Message) -> Message:
        """A control plane comes, or comes back: with a new time stamp it has lost its sessions (clause 6.2.6.2.2)."""
        node = message.need(IeType.NODE_ID).data
        recovery = codec.number(message.first(IeType.RECOVERY_TIME_STAMP), 4)
        if self._associations.get(node, recovery) != recovery:
            self._disassociate(node)
        self._associations[node] = recovery
        ies = [
            self._node(),
            codec.u8(IeType.CAUSE, Cause.ACCEPTED),
            codec.recovery(self._recovery),
            Ie(IeType.UP_FUNCTION_FEATURES, bytes([FTUP, 0])),
        ]
        return Message(Type.ASSOCIATION_SETUP_RESPONSE, 0, ies)

    def _disassociate(self, node: bytes) -> None:
        self._associations.pop(node, None)
        for session in [one for one in self._sessions.values() if one.node == node]:
            self._drop(session)

    def _new_teid(self) -> int:
        while (teid := secrets.randbits(31) + 1) in self._teids:
            pass
        self._teids.add(teid)
        return teid

    def _establish(self, message: Message) -> Message:
        node = message.need(IeType.NODE_ID).data
        cp_seid, cp_address = codec.parse_f_seid(message.need(IeType.F_SEID))

        def answer(cause: Cause, *more: Ie) -> Message:
            ies = [self._node(), codec.u8(IeType.CAUSE, cause), *more]
            return Message(Type.SESSION_ESTABLISHMENT_RESPONSE, 0, ies, seid=cp_seid)

        if node not in self._associations:
            return answer(Cause.NO_ASSOCIATION)
        if cp_address is None:
            raise PfcpError("an F-SEID without an IPv4 address")
        session = Session(secrets.randbits(62) + 1, cp_seid, cp_address, node)
        try:
            made, _ = apply(session, message.ies, self._new_teid)
        except PfcpError as error:
            log.info("establishment refused: %s", error)
            return answer(Cause.MANDATORY_IE_INCORRECT)
        owners = [self.path.owner(address) for pdr in made for address in pdr.addresses]
        for other in {owner.seid: owner for owner in owners if owner is not None}.values():
            # One address, one session: the older one is a left-over; it carries nothing more but is still charged.
            log.warning("an address changes its session", extra={"seid": other.seid})
            self.path.remove(other)
            for urr in other.urrs.values():
                if urr.total:
                    self._report_usage(other, urr, TERMINATION)
        self._sessions[session.seid] = session
        SESSIONS.set(len(self._sessions))
        self.path.install(session)
        own = socket.inet_aton(self._own)
        created = [
            codec.group(
                IeType.CREATED_PDR,
                [codec.u16(IeType.PDR_ID, pdr.id), Ie(IeType.F_TEID, b"\x01" + struct.pack(">I", pdr.teid) + own)],
            )
            for pdr in made
            if pdr.teid is not None
        ]
        return answer(Cause.ACCEPTED, codec.f_seid(session.seid, self._own), *created)

    def _modify(self, message: Message) -> Message:
        session = self._sessions.get(message.seid or 0)
        if session is None:
            return self._refusal(message, Cause.SESSION_NOT_FOUND)
        moved = message.first(IeType.F_SEID)
        made, removed = apply(session, message.ies, self._new_teid)
        if moved is not None:
            seid, address = codec.parse_f_seid(moved)
            session.cp_seid, session.cp_address = seid, address or session.cp_address
        session.told_of_downlink = False
        self.path.install(session)
        ies = [codec.u8(IeType.CAUSE, Cause.ACCEPTED)]
        own = socket.inet_aton(self._own)
        for pdr in made:
            if pdr.teid is not None:
                teid = Ie(IeType.F_TEID, b"\x01" + struct.pack(">I", pdr.teid) + own)
                ies.append(codec.group(IeType.CREATED_PDR, [codec.u16(IeType.PDR_ID, pdr.id), teid]))
        asked = [codec.number(codec.first(q.children(), IeType.URR_ID), 4) for q in message.all(IeType.QUERY_URR)]
        flags = message.first(Also.PFCPSMREQ_FLAGS)
        if flags is not None and codec.number(flags, 1) & QUERY_ALL_URRS:
            asked = list(session.urrs)
        reports = [session.urrs[one].report(IMMEDIATE) for one in asked if one in session.urrs]
        reports += [urr.report(TERMINATION) for urr in removed]
        ies += [codec.group(IeType.USAGE_REPORT_MODIFICATION, members) for members in reports]
        # A lowered threshold may be reached already.
        for urr in session.urrs.values():
            if trigger := urr.due():
                self._report_usage(session, urr, trigger)
        return Message(Type.SESSION_MODIFICATION_RESPONSE, 0, ies, seid=session.cp_seid)

    def _delete(self, message: Message) -> Message:
        session = self._sessions.get(message.seid or 0)
        if session is None:
            return self._refusal(message, Cause.SESSION_NOT_FOUND)
        self._drop(session)
        reports = [*session.unacknowledged, *(urr.report(TERMINATION) for urr in session.urrs.values())]
        ies = [codec.group(IeType.USAGE_REPORT_DELETION, members) for members in reports]
        return Message(
            Type.SESSION_DELETION_RESPONSE, 0, [codec.u8(IeType.CAUSE, Cause.ACCEPTED), *ies], seid=session.cp_seid
        )

    def _drop(self, session: Session) -> None:
        """Forget a session; nothing of it is forwarded from here on."""
        if self._sessions.pop(session.seid, None) is not None:
            self.path.remove(session)
            self._teids.difference_update(pdr.teid for pdr in session.pdrs.values() if pdr.teid is not None)
            SESSIONS.set(len(self._sessions))
