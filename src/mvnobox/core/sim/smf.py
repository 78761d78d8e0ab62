"""The simulated control plane: AMF, AUSF and SMF of one brand in a process, by newline-delimited JSON with the UE."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

import pymongo
import pymongo.errors
from bson.int64 import Int64
from prometheus_client import Gauge

from mvnobox.core.sim import aka
from mvnobox.core.sim.settings import SmfSettings
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import BUFF, DROP, FORW, NOCP, Cause, Ie, IeType, Message, Type
from mvnobox.pfcp.endpoint import Address, Endpoint, NoAnswer

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 5.0
WATCH_SECONDS = 2.0
LARGEST_LINE = 65_536
# The threshold that Open5GS's SMF puts into its URR: 100 MiB.
URR_THRESHOLD = 100 * 2**20
ATTACHED = Gauge("sim_smf_sessions", "PDU sessions")


class Refused(Exception):
    """A request of the UE is turned down, with a cause of TS 24.501 in words."""


@dataclass
class PduSession:
    """One UE's session."""

    imsi: str
    dnn: str
    address: str
    seid: int
    upf_seid: int = 0
    teid: int = 0
    upf_address: str = ""
    ue: tuple[str, int] | None = None
    writer: asyncio.StreamWriter | None = None


class Smf:
    """One control plane (a simulation)."""

    def __init__(self, settings: SmfSettings) -> None:
        self._settings = settings
        self._recovery = int(time.time())
        self._collection: Any = pymongo.MongoClient(
            settings.directory, serverSelectionTimeoutMS=3000, socketTimeoutMS=5000, connect=False
        ).get_default_database("open5gs")["subscribers"]
        self._sessions: dict[str, PduSession] = {}
        self._taken: dict[str, set[int]] = {dnn.name: set() for dnn in settings.dnns}
        self._associated = asyncio.Event()
        self._peer_recovery: int | None = None
        self._endpoint: Endpoint | None = None
        self._own = ""

    async def ready(self) -> str | None:
        return None if self._associated.is_set() else "no association on N4"

    async def run(self) -> None:
        """Serve until cancelled."""
        while not self._own:
            try:
                self._own = await asyncio.to_thread(self._settings.n4.own_address)
            except OSError as error:
                log.info("waiting for a name: %s", error)
                await asyncio.sleep(0.5)
        self._endpoint = await Endpoint.open(self._settings.n4.listen, self._settings.n4.port, self._from_n4)
        host, _, port = self._settings.listen.rpartition(":")
        server = await asyncio.start_server(self._ue, host, int(port), limit=LARGEST_LINE)
        log.info("simulated core is up", extra={"simulation": True})
        try:
            await asyncio.gather(self._keep_association(), self._watch(), server.serve_forever())
        finally:
            server.close()
            self._endpoint.close()

    # N4 ------------------------------------------------------------------------------------------------------------

    async def _n4(self, message: Message) -> Message:
        assert self._endpoint is not None
        peer = await asyncio.to_thread(socket.gethostbyname, self._settings.n4.peer)
        return await self._endpoint.request(message, (peer, 8805))

    async def _keep_association(self) -> None:
        while True:
            try:
                if not self._associated.is_set():
                    answer = await self._n4(
                        Message(
                            Type.ASSOCIATION_SETUP_REQUEST,
                            0,
                            [codec.node_id(self._own), codec.recovery(self._recovery)],
                        )
                    )
                    if codec.number(answer.first(IeType.CAUSE), 1) != Cause.ACCEPTED:
                        raise NoAnswer("the association was refused")
                    self._peer_alive(codec.number(answer.first(IeType.RECOVERY_TIME_STAMP), 4))
                    self._associated.set()
                    log.info("associated on N4")
                answer = await self._n4(Message(Type.HEARTBEAT_REQUEST, 0, [codec.recovery(self._recovery)]))
                self._peer_alive(codec.number(answer.first(IeType.RECOVERY_TIME_STAMP), 4))
                await asyncio.sleep(HEARTBEAT_SECONDS)
            except (NoAnswer, OSError, codec.PfcpError) as error:
                log.warning("N4: %s", error)
                self._associated.clear()
                await asyncio.sleep(1)

    def _peer_alive(self, recovery: int) -> None:
        if self._peer_recovery not in (None, recovery):
            log.warning("the user plane has restarted; its sessions are gone")
            for session in list(self._sessions.values()):
                self._forget(session)
                self._tell(session, {"type": "PDUSessionReleaseCommand", "cause": "user plane restarted"})
            self._associated.clear()
        self._peer_recovery = recovery

    async def _from_n4(self, message: Message, peer: Address) -> Message | None:
        if message.type == Type.HEARTBEAT_REQUEST:
            return Message(Type.HEARTBEAT_RESPONSE, 0, [codec.recovery(self._recovery)])
        if message.type == Type.SESSION_REPORT_REQUEST:
            session = next((s for s in self._sessions.values() if s.seid == message.seid), None)
            cause = Cause.ACCEPTED if session is not None else Cause.SESSION_NOT_FOUND
            if session is not None and codec.number(message.first(IeType.REPORT_TYPE), 1) & codec.REPORT_DOWNLINK_DATA:
                self._tell(session, {"type": "Paging"})
            ies = [codec.u8(IeType.CAUSE, cause)]
            return Message(Type.SESSION_REPORT_RESPONSE, 0, ies, seid=session.upf_seid if session else 0)
        return None

    def _establishment(self, session: PduSession, dnn: str) -> Message:
        """The elements that Open5GS's SMF 2.7 sends for one QoS flow (src/smf/n4-build.c there)."""
        address = Ie(IeType.UE_IP_ADDRESS, b"\x06" + socket.inet_aton(session.address))
        source = Ie(IeType.UE_IP_ADDRESS, b"\x02" + socket.inet_aton(session.address))
        instance = codec.dnn(dnn).data
        downlink = codec.group(
            IeType.CREATE_PDR,
            [
                codec.u16(IeType.PDR_ID, 1),
                codec.u32(IeType.PRECEDENCE, 255),
                codec.group(
                    IeType.PDI,
                    [codec.u8(IeType.SOURCE_INTERFACE, 1), Ie(IeType.NETWORK_INSTANCE, instance), address],
                ),
                codec.u32(IeType.FAR_ID, 1),
                codec.u32(IeType.URR_ID, 1),
                codec.u32(IeType.QER_ID, 1),
            ],
        )
        uplink = codec.group(
            IeType.CREATE_PDR,
            [
                codec.u16(IeType.PDR_ID, 2),
                codec.u32(IeType.PRECEDENCE, 255),
                codec.group(
                    IeType.PDI,
                    [
                        codec.u8(IeType.SOURCE_INTERFACE, 0),
                        Ie(IeType.F_TEID, b"\x05"),
                        Ie(IeType.NETWORK_INSTANCE, instance),
                        source,
                        codec.u8(IeType.QFI, 1),
                    ],
                ),
                Ie(IeType.OUTER_HEADER_REMOVAL, b"\x00\x01"),
                codec.u32(IeType.FAR_ID, 2),
                codec.u32(IeType.QER_ID, 1),
            ],
        )
        fars = [
            codec.group(
                IeType.CREATE_FAR,
                [
                    codec.u32(IeType.FAR_ID, 1),
                    Ie(IeType.APPLY_ACTION, bytes([BUFF | NOCP, 0])),
                    codec.group(IeType.FORWARDING_PARAMETERS, [codec.u8(IeType.DESTINATION_INTERFACE, 0)]),
                ],
            ),
            codec.group(
                IeType.CREATE_FAR,
                [
                    codec.u32(IeType.FAR_ID, 2),
                    Ie(IeType.APPLY_ACTION, bytes([FORW, 0])),
                    codec.group(
                        IeType.FORWARDING_PARAMETERS,
                        [codec.u8(IeType.DESTINATION_INTERFACE, 1), Ie(IeType.NETWORK_INSTANCE, instance)],
                    ),
                ],
            ),
        ]
        urr = codec.group(
            IeType.CREATE_URR,
            [
                codec.u32(IeType.URR_ID, 1),
                codec.u8(IeType.MEASUREMENT_METHOD, 2),
                Ie(IeType.REPORTING_TRIGGERS, b"\x02\0\0"),
                codec.volume_threshold(URR_THRESHOLD),
            ],
        )
        qer = codec.group(
            IeType.CREATE_QER,
            [codec.u32(IeType.QER_ID, 1), codec.u8(IeType.GATE_STATUS, 0), codec.u8(IeType.QFI, 1)],
        )
        ies = [
            codec.node_id(self._own),
            codec.f_seid(session.seid, self._own),
            downlink,
            uplink,
            *fars,
            urr,
            qer,
            codec.u8(IeType.PDN_TYPE, 1),
            codec.user_id(session.imsi),
            codec.dnn(dnn),
        ]
        return Message(Type.SESSION_ESTABLISHMENT_REQUEST, 0, ies, seid=0)

    async def _set_downlink(self, session: PduSession, *, active: bool) -> None:
        """Point the downlink to the UE, or let the user plane hold it back while the UE is idle."""
        members = [
            codec.u32(IeType.FAR_ID, 1),
            Ie(IeType.APPLY_ACTION, bytes([FORW if active else BUFF | NOCP, 0])),
        ]
        if active and session.ue is not None:
            outer = struct.pack(">HI", 0x0100, session.ue[1]) + socket.inet_aton(session.ue[0])
            members.append(
                codec.group(
                    IeType.UPDATE_FORWARDING_PARAMETERS,
                    [codec.u8(IeType.DESTINATION_INTERFACE, 0), Ie(IeType.OUTER_HEADER_CREATION, outer)],
                )
            )
        answer = await self._n4(
            Message(
                Type.SESSION_MODIFICATION_REQUEST,
                0,
                [codec.group(IeType.UPDATE_FAR, members)],
                seid=session.upf_seid,
            )
        )
        if codec.number(answer.first(IeType.CAUSE), 1) != Cause.ACCEPTED:
            raise Refused("the user plane refused the modification")

    async def _release(self, session: PduSession) -> None:
        self._forget(session)
        try:
            await self._n4(Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=session.upf_seid))
        except NoAnswer as error:
            log.warning("release: %s", error)

    def _forget(self, session: PduSession) -> None:
        if self._sessions.get(session.imsi) is session:
            del self._sessions[session.imsi]
        self._taken[session.dnn].discard(int.from_bytes(socket.inet_aton(session.address), "big"))
        ATTACHED.set(len(self._sessions))

    def _tell(self, session: PduSession, message: dict[str, Any]) -> None:
        if session.writer is not None and not session.writer.is_closing():
            session.writer.write(json.dumps(message).encode() + b"\n")

    def _address(self, dnn: str) -> str:
        network = next(d for d in self._settings.dnns if d.name == dnn).network
        taken = self._taken[dnn]
        # The first host is the gateway.
        for number in range(int(network[0]) + 2, int(network[-1])):
            if number not in taken:
                taken.add(number)
                return socket.inet_ntoa(number.to_bytes(4, "big"))
        raise Refused("insufficient resources: the address pool is used up")

    # Subscribers ---------------------------------------------------------------------------------------------------

    async def _subscriber(self, imsi: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] | None = await asyncio.to_thread(self._collection.find_one, {"imsi": imsi})
        except pymongo.errors.PyMongoError as error:
            raise Refused(f"the directory does not answer: {type(error).__name__}") from None
        if found is None:
            raise Refused("illegal UE: the subscriber is not known")
        return found

    async def _watch(self) -> None:
        """Suspension and termination take effect on UEs that are attached."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for session in list(self._sessions.values()):
                try:
                    subscriber = await self._subscriber(session.imsi)
                    barred = subscriber.get("subscriber_status", 0) != 0
                except Refused as refusal:
                    if "directory" in str(refusal):
                        continue
                    barred = True
                if barred:
                    await self._release(session)
                    self._tell(session, {"type": "DeregistrationRequest", "cause": "illegal UE: barred or removed"})

    # The UE --------------------------------------------------------------------------------------------------------

    async def _ue(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One simulated N1/N2 connection."""

        async def receive() -> dict[str, Any]:
            line = await reader.readline()
            if not line:
                raise ConnectionError
            try:
                message = json.loads(line)
            except ValueError:
                raise Refused("protocol error: not JSON") from None
            if not isinstance(message, dict):
                raise Refused("protocol error: not an object")
            return message

        def send(**message: Any) -> None:
            writer.write(json.dumps(message).encode() + b"\n")

        imsi: str | None = None
        try:
            while True:
                message = await receive()
                try:
                    match message.get("type"):
                        case "RegistrationRequest":
                            wanted = str(message.get("imsi"))
                            imsi = None
                            await self._authenticate(wanted, receive, send)
                            imsi = wanted
                            send(type="RegistrationAccept", simulation=True)
                        case "PDUSessionEstablishmentRequest" if imsi:
                            await self._pdu_session(imsi, message, receive, send, writer)
                        case "ReleaseRequest" if imsi in self._sessions:
                            await self._set_downlink(self._sessions[imsi], active=False)
                            send(type="ReleaseAccept")
                        case "ServiceRequest" if imsi in self._sessions:
                            await self._set_downlink(self._sessions[imsi], active=True)
                            send(type="ServiceAccept")
                        case "DeregistrationRequest" if imsi:
                            if imsi in self._sessions:
                                await self._release(self._sessions[imsi])
                            send(type="DeregistrationAccept")
                            imsi = None
                        case other:
                            raise Refused(f"message type {other!r} is not compatible with the state")
                except Refused as refusal:
                    send(type="Reject", cause=str(refusal))
                except (NoAnswer, OSError, codec.PfcpError) as error:
                    send(type="Reject", cause=f"network failure: {error}")
        except (ConnectionError, asyncio.LimitOverrunError, ValueError, Refused):
            pass
        finally:
            session = self._sessions.get(imsi or "")
            if session is not None and session.writer is writer:
                await self._release(session)
            writer.close()

    async def _authenticate(self, imsi: str, receive: Any, send: Any) -> None:
        """5G-AKA; one resynchronisation is allowed."""
        for _ in range(2):
            subscriber = await self._subscriber(imsi)
            if subscriber.get("subscriber_status", 0) != 0:
                raise Refused("illegal UE: the subscriber is barred")
            security = subscriber["security"]
            k, opc = bytes.fromhex(security["k"]), bytes.fromhex(security["opc"])
            sqn = (int(security["sqn"]) + aka.SQN_STEP) % aka.SQN_MODULUS
            await self._write_sqn(imsi, {"$set": {"security.sqn": Int64(sqn)}})
            network = aka.serving_network(self._settings.plmn.mcc, self._settings.plmn.mnc)
            vector = aka.challenge(k, opc, bytes.fromhex(security["amf"]), sqn, network)
            send(type="AuthenticationRequest", rand=vector.rand.hex(), autn=vector.autn.hex(), network=network)
            answer = await receive()
            if answer.get("type") == "AuthenticationFailure" and answer.get("auts"):
                own = aka.resynchronised(k, opc, vector.rand, bytes.fromhex(str(answer["auts"])))
                if own is None:
                    raise Refused("authentication failed: AUTS is wrong")
                await self._write_sqn(imsi, {"$set": {"security.sqn": Int64(own)}})
                continue
            if answer.get("type") != "AuthenticationResponse":
                raise Refused(f"authentication failed: {answer.get('cause', 'no response')}")
            given = str(answer.get("resStar", ""))
            if not secrets.compare_digest(given.encode(), vector.xres_star.hex().encode()):
                raise Refused("authentication failed: RES* is wrong")
            return
        raise Refused("authentication failed: the sequence numbers do not meet")

    async def _write_sqn(self, imsi: str, change: dict[str, Any]) -> None:
        try:
            await asyncio.to_thread(self._collection.update_one, {"imsi": imsi}, change)
        except pymongo.errors.PyMongoError as error:
            raise Refused(f"the directory does not answer: {type(error).__name__}") from None

    async def _pdu_session(
        self, imsi: str, message: dict[str, Any], receive: Any, send: Any, writer: asyncio.StreamWriter
    ) -> None:
        subscriber = await self._subscriber(imsi)
        own = self._settings.slice
        dnn, sst, sd = message.get("dnn"), message.get("sst"), message.get("sd")
        if (sst, sd) != (own.sst, own.sd) or dnn not in self._taken:
            raise Refused("DNN or S-NSSAI is not served here")
        allowed = any(
            entry.get("sst") == sst
            and entry.get("sd") == sd
            and any(one.get("name") == dnn for one in entry.get("session", []))
            for entry in subscriber.get("slice", [])
        )
        if not allowed:
            raise Refused("the subscription has no such DNN in this slice")
        if imsi in self._sessions:
            await self._release(self._sessions[imsi])
        session = PduSession(imsi, dnn, self._address(dnn), secrets.randbits(62) + 1, writer=writer)
        try:
            made = await self._n4(self._establishment(session, dnn))
            if codec.number(made.first(IeType.CAUSE), 1) != Cause.ACCEPTED:
                raise Refused(f"the user plane refused the session: cause {made.need(IeType.CAUSE).data[0]}")
        except (Refused, NoAnswer):
            self._forget(session)
            raise
        session.upf_seid = codec.parse_f_seid(made.need(IeType.F_SEID))[0]
        for created in made.all(IeType.CREATED_PDR):
            teid = codec.first(created.children(), IeType.F_TEID)
            if teid is not None:
                session.teid = codec.number(Ie(teid.type, teid.data[1:5]), 4)
                session.upf_address = socket.inet_ntoa(teid.data[5:9])
        self._sessions[imsi] = session
        ATTACHED.set(len(self._sessions))
        mtu = next(d.mtu for d in self._settings.dnns if d.name == dnn)
        send(
            type="PDUSessionEstablishmentAccept",
            address=session.address,
            mtu=mtu,
            gateway=next(d.gateway for d in self._settings.dnns if d.name == dnn),
            upf=session.upf_address,
            teid=session.teid,
        )
        # What a gNB would answer on N2: where the downlink goes.
        setup = await receive()
        session.ue = (str(setup["address"]), int(setup["teid"]))
        await self._set_downlink(session, active=True)
        send(type="PDUSessionResourceSetupComplete")


__all__ = ["DROP", "Smf"]
