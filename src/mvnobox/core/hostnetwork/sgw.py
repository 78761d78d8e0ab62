"""The serving gateway's control plane on S8 (TS 29.274): PDN connections at a packet gateway."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from mvnobox.core.hostnetwork import gtpc, ies
from mvnobox.core.hostnetwork.endpoint import Address, Answer, Endpoint, NoAnswer
from mvnobox.core.hostnetwork.gtpc import Cause, Kind, Malformed, Message, Type
from mvnobox.core.hostnetwork.ies import Fteid, Interface
from mvnobox.core.hostnetwork.s6a import Apn, Rate
from mvnobox.core.hostnetwork.settings import HostNetworkSettings

log = logging.getLogger(__name__)
# The default bearer: the least EBI that is not reserved (TS 24.007 clause 11.2.3.1.5).
EBI = 5
# Where a subscription says nothing.
_RATE = Rate(1_000_000_000, 1_000_000_000)


class Rejected(Exception):
    """The packet gateway says no, or nothing, or what cannot be used."""


@dataclass(frozen=True)
class Wanted:
    """A PDN connection to be: what MME and subscription say, and the user plane's TEID on our side."""

    imsi: str
    msisdn: bytes | None
    apn: Apn
    name: str
    rate: Rate | None
    charging: bytes
    downlink_teid: int


@dataclass
class Connection:
    """A PDN connection. `own_teid`: ours on the control plane."""

    imsi: str
    own_teid: int
    control: Fteid
    user: Fteid
    address: str
    dns: tuple[str, ...]
    mtu: int | None
    on_released: Callable[[str], None]


class ServingGateway:
    """S8-C. `on_released` of a connection is called when the packet gateway takes it away."""

    def __init__(self, settings: HostNetworkSettings) -> None:
        self._settings = settings
        self._connections: dict[int, Connection] = {}
        self._endpoint: Endpoint | None = None
        # By a packet gateway's address its restart counter, as far as it has told.
        self._counters: dict[str, int] = {}

    async def start(self, restarts: int) -> None:
        """Bind. Raises OSError."""
        s = self._settings
        self._endpoint = await Endpoint.open(
            s.listen, s.gtpc_port, self._requested, restarts=restarts, t3=s.t3, n3=s.n3
        )

    def close(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()

    async def _gateway(self) -> tuple[Endpoint, Address, str]:
        """The endpoint, the packet gateway's address, and ours as it sees it. Raises Rejected."""
        assert self._endpoint is not None
        try:
            host = await asyncio.to_thread(socket.gethostbyname, self._settings.pgw)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((host, self._settings.pgw_port))
                return self._endpoint, (host, self._settings.pgw_port), str(probe.getsockname()[0])
        except OSError as error:
            raise Rejected(f"the packet gateway {self._settings.pgw}: {error}") from None

    async def echo(self) -> None:
        """Ask whether the packet gateway is there. Raises Rejected."""
        endpoint, peer, _ = await self._gateway()
        try:
            await endpoint.echo(peer)
        except NoAnswer as error:
            raise Rejected(f"the packet gateway: {error}") from None

    async def watch(self) -> None:
        """Path management (TS 23.007 clauses 17, 20), until cancelled: who has started anew holds no connection."""
        while True:
            await asyncio.sleep(self._settings.echo_seconds)
            for address in {one.control.address for one in self._connections.values()}:
                await self._probe(address)

    async def _probe(self, address: str) -> None:
        assert self._endpoint is not None
        try:
            counter = await self._endpoint.echo((address, self._settings.pgw_port))
        except NoAnswer as error:
            self._counters.pop(address, None)
            self._released(address, f"path failure: {error}")
            return
        if counter is None:
            return
        if self._counters.setdefault(address, counter) != counter:
            self._counters[address] = counter
            self._released(address, "the packet gateway has started anew")

    def _released(self, address: str, why: str) -> None:
        """All connections at a packet gateway are gone."""
        for teid, one in list(self._connections.items()):
            if one.control.address == address:
                del self._connections[teid]
                one.on_released(why)

    async def create(self, wanted: Wanted, on_released: Callable[[str], None]) -> Connection:
        """Create Session (clause 7.2.1). Raises Rejected."""
        endpoint, peer, own = await self._gateway()
        teid = secrets.randbits(31) + 1
        try:
            request = self._create_request(wanted, teid, own, endpoint.recovery)
        except ValueError as error:
            raise Rejected(f"Create Session: {error}") from None
        try:
            answer = await endpoint.request(peer, Kind.CREATE_SESSION_REQUEST, 0, request)
            connection = _created(answer, wanted.imsi, teid, on_released)
        except NoAnswer as error:
            raise Rejected(f"the packet gateway: {error}") from None
        except Malformed as error:
            raise Rejected(f"the packet gateway's answer cannot be used: {error}") from None
        if (counter := answer.find(Type.RECOVERY)) is not None and counter:
            self._counters.setdefault(connection.control.address, counter[0])
        self._connections[teid] = connection
        return connection

    def _create_request(self, wanted: Wanted, teid: int, own: str, recovery: bytes) -> list[bytes]:
        s, apn = self._settings, wanted.apn
        network = ies.plmn(s.plmn.mcc, s.plmn.mnc)
        rate = apn.ambr or wanted.rate or _RATE
        qos = ies.bearer_qos(apn.qci, apn.priority, may_preempt=apn.may_preempt, preemptable=apn.preemptable)
        bearer = [
            gtpc.ie(Type.EBI, bytes([EBI])),
            gtpc.ie(Type.F_TEID, Fteid(Interface.S8_SGW_GTP_U, wanted.downlink_teid, own).encode(), 2),
            gtpc.ie(Type.BEARER_QOS, qos),
        ]
        return [
            gtpc.ie(Type.IMSI, ies.tbcd(wanted.imsi)),
            *([gtpc.ie(Type.MSISDN, wanted.msisdn)] if wanted.msisdn else []),
            gtpc.ie(Type.ULI, ies.uli(network, s.tac, s.cell)),
            gtpc.ie(Type.SERVING_NETWORK, network),
            gtpc.ie(Type.RAT_TYPE, bytes([ies.RAT_EUTRAN])),
            gtpc.ie(Type.F_TEID, Fteid(Interface.S8_SGW_GTP_C, teid, own).encode()),
            gtpc.ie(Type.APN, ies.apn(wanted.name)),
            gtpc.ie(Type.SELECTION_MODE, bytes([ies.SUBSCRIBED])),
            gtpc.ie(Type.PDN_TYPE, bytes([ies.PDN_IPV4])),
            gtpc.ie(Type.PAA, ies.paa()),
            gtpc.ie(Type.APN_RESTRICTION, b"\0"),
            gtpc.ie(Type.AMBR, ies.ambr(rate.uplink, rate.downlink)),
            gtpc.ie(Type.PCO, ies.pco_request()),
            gtpc.group(Type.BEARER_CONTEXT, bearer),
            recovery,
            gtpc.ie(Type.CHARGING_CHARACTERISTICS, wanted.charging),
        ]

    async def delete(self, connection: Connection) -> None:
        """Delete Session (clause 7.2.9); afterwards it is gone here, whatever the gateway says. Raises Rejected."""
        if self._connections.pop(connection.own_teid, None) is None:
            return
        endpoint, peer, _ = await self._gateway()
        to = (connection.control.address, peer[1])
        body = [gtpc.ie(Type.EBI, bytes([EBI]))]
        try:
            answer = await endpoint.request(to, Kind.DELETE_SESSION_REQUEST, connection.control.teid, body)
            cause = ies.cause(answer.need(Type.CAUSE))
        except (NoAnswer, Malformed) as error:
            raise Rejected(f"Delete Session: {error}") from None
        if not gtpc.accepts(cause) and cause != Cause.CONTEXT_NOT_FOUND:
            raise Rejected(f"Delete Session: {gtpc.words(cause)}")

    def forget(self, connection: Connection) -> None:
        """The user plane has shown that the packet gateway holds the connection no more."""
        self._connections.pop(connection.own_teid, None)

    # -- what the packet gateway asks

    def _requested(self, message: Message, addr: Address) -> Answer:
        connection = self._connections.get(message.teid or 0)
        if connection is None:
            return 0, [_cause(Cause.CONTEXT_NOT_FOUND)]
        teid = connection.control.teid
        if message.kind == Kind.DELETE_BEARER_REQUEST:
            return teid, self._delete_bearer(connection, message)
        if message.kind == Kind.UPDATE_BEARER_REQUEST:
            contexts = [gtpc.split(one.value) for one in message.ies if one.type == Type.BEARER_CONTEXT]
            known = [_bearer(_ebi(one), Cause.ACCEPTED) for one in contexts if _ebi(one) == EBI]
            cause = Cause.ACCEPTED if known and len(known) == len(contexts) else Cause.CONTEXT_NOT_FOUND
            return teid, [_cause(cause), *known]
        # This peer has default bearers only.
        contexts = [gtpc.split(one.value) for one in message.ies if one.type == Type.BEARER_CONTEXT]
        refused = [_bearer(0, Cause.SERVICE_NOT_SUPPORTED) for _ in contexts]
        return teid, [_cause(Cause.SERVICE_NOT_SUPPORTED), *refused]

    def _delete_bearer(self, connection: Connection, message: Message) -> list[bytes]:
        """The linked bearer is the whole connection; another is one that we never had (clause 7.2.9.2)."""
        linked = message.find(Type.EBI)
        if linked is None:
            others = [ies.ebi(one.value) for one in message.ies if one.type == Type.EBI and one.instance == 1]
            if not others:
                raise Malformed("no EPS bearer is named", Cause.MANDATORY_IE_MISSING)
            return [_cause(Cause.CONTEXT_NOT_FOUND), *(_bearer(one, Cause.CONTEXT_NOT_FOUND) for one in others)]
        if ies.ebi(linked) != EBI:
            return [_cause(Cause.CONTEXT_NOT_FOUND), gtpc.ie(Type.EBI, linked)]
        del self._connections[connection.own_teid]
        given = message.find(Type.CAUSE)
        why = f": {gtpc.words(ies.cause(given))}" if given else ""
        asyncio.get_running_loop().call_soon(connection.on_released, f"released by the packet gateway{why}")
        return [_cause(Cause.ACCEPTED), gtpc.ie(Type.EBI, linked)]


def _ebi(context: tuple[gtpc.Ie, ...]) -> int:
    return ies.ebi(gtpc.find(context, Type.EBI) or b"")


def _cause(value: int) -> bytes:
    return gtpc.ie(Type.CAUSE, bytes([value, 0]))


def _bearer(ebi: int, cause: int) -> bytes:
    return gtpc.group(Type.BEARER_CONTEXT, [gtpc.ie(Type.EBI, bytes([ebi])), _cause(cause)])


def _created(answer: Message, imsi: str, teid: int, on_released: Callable[[str], None]) -> Connection:
    """Read a Create Session Response (clause 7.2.2). Raises Rejected, Malformed."""
    cause = ies.cause(answer.need(Type.CAUSE))
    if not gtpc.accepts(cause):
        raise Rejected(f"Create Session: {gtpc.words(cause)}")
    context = gtpc.split(answer.need(Type.BEARER_CONTEXT))
    inner = gtpc.find(context, Type.CAUSE)
    if inner is not None and not gtpc.accepts(ies.cause(inner)):
        raise Rejected(f"Create Session: the bearer: {gtpc.words(ies.cause(inner))}")
    user = gtpc.find(context, Type.F_TEID, 2)
    if user is None:
        raise Malformed("no user plane's F-TEID")
    dns, mtu = ies.pco(answer.find(Type.PCO) or b"")
    return Connection(
        imsi=imsi,
        own_teid=teid,
        control=ies.fteid(answer.need(Type.F_TEID, 1)),
        user=ies.fteid(user),
        address=ies.address(answer.need(Type.PAA)),
        dns=dns,
        mtu=mtu,
        on_released=on_released,
    )
