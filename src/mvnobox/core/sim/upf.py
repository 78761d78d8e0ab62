"""The simulated user plane: real IP packets through a TUN device, rules by PFCP, tunnels by GTP-U."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import struct
import time

from prometheus_client import Counter, Gauge

from mvnobox.core.sim import gtpu
from mvnobox.core.sim.settings import UpfSettings
from mvnobox.core.sim.tun import HostError, open_tun, run, user_plane_rules
from mvnobox.core.sim.upf_rules import Far, Pdr, Session, Urr, apply
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, Ie, IeType, Message, Type
from mvnobox.pfcp.endpoint import Address, Endpoint, NoAnswer

log = logging.getLogger(__name__)
# Packets that are taken from a descriptor before the loop turns to the other one.
BATCH = 64
VOLUME_THRESHOLD_REACHED = 2
TERMINATION = 0x0800
PACKETS = Counter("upf_packets_total", "Packets", ["direction", "what"])
SESSIONS = Gauge("upf_sessions", "PFCP sessions")


class Upf:
    """One user plane function (a simulation)."""

    def __init__(self, settings: UpfSettings) -> None:
        self._settings = settings
        self._recovery = int(time.time())
        self._sessions: dict[int, Session] = {}
        self._by_teid: dict[int, tuple[Session, Pdr]] = {}
        self._by_address: dict[bytes, tuple[Session, Pdr]] = {}
        self._reporters: set[asyncio.Task[None]] = set()
        self._tuns: list[tuple[int, int, int]] = []  # descriptor, first and last address of the pool
        self._gtp: socket.socket | None = None
        self._endpoint: Endpoint | None = None
        self._own = ""

    async def ready(self) -> str | None:
        return None if self._endpoint is not None else "not started"

    async def run(self) -> None:
        """Set up the data path and serve until cancelled. Raises HostError."""
        loop = asyncio.get_running_loop()
        self._own = await self._resolve(self._settings.n3.own_address)
        allowed = [
            entry if "/" in entry else f"{await self._resolve(lambda name=entry: socket.gethostbyname(name))}/32"
            for entry in self._settings.allow
        ]
        for index, dnn in enumerate(self._settings.dnns):
            name = f"ogstun{index or ''}"
            descriptor = open_tun(name, f"{dnn.gateway}/{dnn.network.prefixlen}", dnn.mtu)
            self._tuns.append((descriptor, int(dnn.network[0]), int(dnn.network[-1])))
            loop.add_reader(descriptor, self._downlink, descriptor)
        with open("/proc/sys/net/ipv4/ip_forward") as handle:
            if handle.read().strip() != "1":
                raise HostError("net.ipv4.ip_forward is 0 in the pod; the chart sets it, the kubelet must allow it")
        run(
            "nft",
            "-f",
            "-",
            stdin=user_plane_rules([d.pool for d in self._settings.dnns], allowed, self._settings.deny),
        )
        self._gtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._gtp.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        self._gtp.setblocking(False)
        self._gtp.bind(("0.0.0.0", gtpu.PORT))
        loop.add_reader(self._gtp.fileno(), self._uplink)
        self._endpoint = await Endpoint.open(self._settings.n4.listen, self._settings.n4.port, self._handle)
        log.info("simulated UPF is up", extra={"simulation": True, "n3": self._own})
        await asyncio.Event().wait()

    @staticmethod
    async def _resolve(resolve: object) -> str:
        while True:
            try:
                return str(await asyncio.to_thread(resolve))  # type: ignore[arg-type]
            except OSError as error:
                log.info("waiting for a name: %s", error)
                await asyncio.sleep(0.5)

    # Data path -----------------------------------------------------------------------------------------------------

    def _count(self, session: Session, pdr: Pdr, octets: int, *, uplink: bool) -> None:
        for identity in pdr.urrs:
            urr = session.urrs.get(identity)
            if urr is None:
                continue
            urr.total += octets
            if uplink:
                urr.uplink += octets
            else:
                urr.downlink += octets
            if 0 < urr.threshold <= urr.total:
                self._report_usage(session, urr)

    def _uplink(self) -> None:
        assert self._gtp is not None
        for _ in range(BATCH):
            try:
                data, peer = self._gtp.recvfrom(65535)
            except (BlockingIOError, ConnectionError):
                return
            kind, teid, offset = gtpu.payload(data)
            if kind == gtpu.ECHO_REQUEST:
                self._gtp.sendto(gtpu.echo_response(data), peer)
            if kind != gtpu.G_PDU:
                continue
            found = self._by_teid.get(teid)
            packet = data[offset:]
            if found is None or len(packet) < 20:
                PACKETS.labels("uplink", "unknown").inc()
                continue
            session, pdr = found
            far = session.fars.get(pdr.far)
            # A UE sends from its own address only (TS 23.501 clause 5.8.2.4, anti-spoofing).
            owner = self._by_address.get(packet[12:16])
            if far is None or not far.action & codec.FORW or owner is None or owner[0] is not session:
                PACKETS.labels("uplink", "dropped").inc()
                continue
            address = int.from_bytes(packet[12:16], "big")
            for descriptor, first, last in self._tuns:
                if first <= address <= last:
                    try:
                        os.write(descriptor, packet)
                    except OSError:
                        PACKETS.labels("uplink", "dropped").inc()
                        break
                    self._count(session, pdr, len(packet), uplink=True)
                    break

    def _downlink(self, descriptor: int) -> None:
        assert self._gtp is not None
        for _ in range(BATCH):
            try:
                packet = os.read(descriptor, 65535)
            except (BlockingIOError, OSError):
                return
            if len(packet) < 20 or packet[0] >> 4 != 4:
                continue
            found = self._by_address.get(packet[16:20])
            if found is None:
                PACKETS.labels("downlink", "unknown").inc()
                continue
            session, pdr = found
            far = session.fars.get(pdr.far)
            if far is None or not far.action & codec.FORW or far.peer is None:
                PACKETS.labels("downlink", "dropped").inc()
                if far is not None and far.action & codec.NOCP and not session.told_of_downlink:
                    self._report_downlink(session, pdr)
                continue
            try:
                self._gtp.sendto(gtpu.g_pdu(far.peer[1], packet, 1, uplink=False), (far.peer[0], gtpu.PORT))
            except OSError:
                PACKETS.labels("downlink", "dropped").inc()
                continue
            self._count(session, pdr, len(packet), uplink=False)

    # Reports -------------------------------------------------------------------------------------------------------

    def _later(self, coroutine: object) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
        self._reporters.add(task)
        task.add_done_callback(self._reporters.discard)

    def _report_usage(self, session: Session, urr: Urr) -> None:
        members = urr.report(VOLUME_THRESHOLD_REACHED)
        session.unacknowledged.append(members)
        self._later(self._deliver(session, members))

    async def _deliver(self, session: Session, members: list[Ie]) -> None:
        """Send a usage report until it is acknowledged: what was carried is never forgotten."""
        ies = [codec.u8(IeType.REPORT_TYPE, codec.REPORT_USAGE), codec.group(IeType.USAGE_REPORT_REPORT, members)]
        while session.seid in self._sessions:
            try:
                await self._to_cp(session, Message(Type.SESSION_REPORT_REQUEST, 0, ies, seid=session.cp_seid))
            except NoAnswer:
                continue
            if members in session.unacknowledged:
                session.unacknowledged.remove(members)
            return

    def _report_downlink(self, session: Session, pdr: Pdr) -> None:
        session.told_of_downlink = True
        report = codec.group(IeType.DOWNLINK_DATA_REPORT, [codec.u16(IeType.PDR_ID, pdr.id)])
        message = Message(
            Type.SESSION_REPORT_REQUEST,
            0,
            [codec.u8(IeType.REPORT_TYPE, codec.REPORT_DOWNLINK_DATA), report],
            seid=session.cp_seid,
        )

        async def send() -> None:
            try:
                await self._to_cp(session, message)
            except NoAnswer:
                session.told_of_downlink = False

        self._later(send())

    async def _to_cp(self, session: Session, message: Message) -> Message:
        assert self._endpoint is not None
        return await self._endpoint.request(message, (session.cp_address, 8805))

    # PFCP ----------------------------------------------------------------------------------------------------------

    async def _handle(self, message: Message, peer: Address) -> Message | None:
        match message.type:
            case Type.HEARTBEAT_REQUEST:
                return Message(Type.HEARTBEAT_RESPONSE, 0, [codec.recovery(self._recovery)])
            case Type.ASSOCIATION_SETUP_REQUEST:
                # UP Function Features (clause 8.2.25): FTUP, F-TEIDs are chosen here.
                features = Ie(IeType.UP_FUNCTION_FEATURES, b"\x10\0")
                ies = [self._node(), codec.u8(IeType.CAUSE, Cause.ACCEPTED), codec.recovery(self._recovery), features]
                return Message(Type.ASSOCIATION_SETUP_RESPONSE, 0, ies)
            case Type.SESSION_ESTABLISHMENT_REQUEST:
                return self._establish(message)
            case Type.SESSION_MODIFICATION_REQUEST:
                return self._modify(message)
            case Type.SESSION_DELETION_REQUEST:
                return self._delete(message)
        return None

    def _node(self) -> Ie:
        return codec.node_id(self._own)

    def _establish(self, message: Message) -> Message:
        cp_seid, cp_address = codec.parse_f_seid(message.need(IeType.F_SEID))
        session = Session(secrets.randbits(62) + 1, cp_seid, cp_address or "")
        teid = secrets.randbits(31) + 1
        made = apply(session, message.ies, teid)
        self._sessions[session.seid] = session
        self._index(session)
        SESSIONS.set(len(self._sessions))
        own = socket.inet_aton(self._own)
        created = [
            codec.group(
                IeType.CREATED_PDR,
                [codec.u16(IeType.PDR_ID, pdr.id), Ie(IeType.F_TEID, b"\x01" + struct.pack(">I", pdr.teid) + own)],
            )
            for pdr in made
            if pdr.teid is not None
        ]
        ies = [self._node(), codec.u8(IeType.CAUSE, Cause.ACCEPTED), codec.f_seid(session.seid, self._own), *created]
        return Message(Type.SESSION_ESTABLISHMENT_RESPONSE, 0, ies, seid=cp_seid)

    def _index(self, session: Session) -> None:
        self._unindex(session)
        for pdr in sorted(session.pdrs.values(), key=lambda p: -p.precedence):
            if pdr.source == 0 and pdr.teid is not None:
                self._by_teid[pdr.teid] = (session, pdr)
            elif pdr.source == 1 and pdr.address is not None:
                self._by_address[pdr.address] = (session, pdr)

    def _unindex(self, session: Session) -> None:
        self._by_teid = {key: value for key, value in self._by_teid.items() if value[0] is not session}
        self._by_address = {key: value for key, value in self._by_address.items() if value[0] is not session}

    def _modify(self, message: Message) -> Message:
        session = self._sessions.get(message.seid or 0)
        if session is None:
            return Message(
                Type.SESSION_MODIFICATION_RESPONSE, 0, [codec.u8(IeType.CAUSE, Cause.SESSION_NOT_FOUND)], seid=0
            )
        apply(session, message.ies, secrets.randbits(31) + 1)
        session.told_of_downlink = False
        self._index(session)
        ies = [codec.u8(IeType.CAUSE, Cause.ACCEPTED)]
        for query in message.all(IeType.QUERY_URR):
            urr = session.urrs.get(codec.number(codec.first(query.children(), IeType.URR_ID), 4))
            if urr is not None:
                ies.append(codec.group(IeType.USAGE_REPORT_MODIFICATION, urr.report(0x80)))
        # A lowered threshold may be reached already.
        for urr in session.urrs.values():
            if 0 < urr.threshold <= urr.total:
                self._report_usage(session, urr)
        return Message(Type.SESSION_MODIFICATION_RESPONSE, 0, ies, seid=session.cp_seid)

    def _delete(self, message: Message) -> Message:
        session = self._sessions.pop(message.seid or 0, None)
        if session is None:
            return Message(Type.SESSION_DELETION_RESPONSE, 0, [codec.u8(IeType.CAUSE, Cause.SESSION_NOT_FOUND)], seid=0)
        self._unindex(session)
        SESSIONS.set(len(self._sessions))
        reports = [*session.unacknowledged, *(urr.report(TERMINATION) for urr in session.urrs.values())]
        ies = [codec.group(IeType.USAGE_REPORT_DELETION, members) for members in reports]
        return Message(
            Type.SESSION_DELETION_RESPONSE, 0, [codec.u8(IeType.CAUSE, Cause.ACCEPTED), *ies], seid=session.cp_seid
        )


__all__ = ["Far", "Upf"]
