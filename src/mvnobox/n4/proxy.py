"""The proxy: the SMF's rules reach the UPF with the CTF's own beside them; what they ask of each other passes through."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Histogram

from mvnobox.n4 import rules
from mvnobox.n4.forwarding import Forwarding, NumberTaken
from mvnobox.n4.gate import SESSIONS, Gate
from mvnobox.n4.nchf import Nchf
from mvnobox.n4.rows import Session
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.store import Store
from mvnobox.n4.upf import Upf
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, Ie, IeType, Message, PfcpError, Type
from mvnobox.pfcp.endpoint import PORT, Address, Endpoint, NoAnswer
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
SWEEP_SECONDS = 15.0
DEFERRED_SECONDS = 0.5
SETUP_SECONDS = Histogram(
    "ctf_setup_seconds", "From the SMF's Session Establishment Request to its answer, the UPF's part included",
    buckets=(0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)  # fmt: skip
# Sessions that are ended on the UPF at once, after their SMF's restart.
ENDING_AT_ONCE = 16


def _cause(value: Cause | int) -> Ie:
    return codec.u8(IeType.CAUSE, value)


def _has_ipv6(addresses: Iterable[str]) -> bool:
    return any(":" in address for address in addresses)


class Ctf:
    """One instance; several may run on one database during a change-over."""

    def __init__(self, settings: CtfSettings, store: Store, nchf: Nchf) -> None:
        self._settings, self._store = settings, store
        self._upf = Upf(settings, store, self._sessions_lost)
        self.gate = Gate(settings, store, nchf, self._upf)
        self._endpoint: Endpoint | None = None
        self._own = ""
        self._telling: set[asyncio.Task[None]] = set()
        # Set while another instance takes over: it looks after what nobody asks for.
        self.leaving = asyncio.Event()
        # Set when there are sessions to end.
        self._to_end = asyncio.Event()
        # Where an SMF's own packets come from: what goes back there keeps our Service's address as its source.
        self._smfs: dict[str, Address] = {}

    async def ready(self) -> str | None:
        """None, or what is missing."""
        # Not whether the UPF is there: its answers come by our Service, which leads to ready pods only.
        return await self._store.ready() or (None if self._endpoint is not None else "N4 is not served yet")

    # Life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve N4 until cancelled."""
        self._own = await self._resolved(self._settings.own_address)
        self._endpoint = await Endpoint.open(self._settings.listen, self._settings.port, self._handle)
        self._upf.serve(self._endpoint, self._own)
        log.info("serving N4", extra={"own": self._own, "upf": self._settings.upf})
        try:
            for seid in await self._store.owing():
                self.gate.work(seid)
            await asyncio.gather(self._upf.keep(), self._housekeeping(), self._deferred(), self._ending())
        finally:
            self._endpoint.close()
            await self._store.kept()
            self.gate.close()

    @property
    def endpoint(self) -> Endpoint:
        assert self._endpoint is not None
        return self._endpoint

    @staticmethod
    async def _resolved(resolve: Callable[[], str]) -> str:
        while True:
            try:
                return await asyncio.to_thread(resolve)
            except OSError as error:
                log.info("waiting for a name: %s", error)
                await asyncio.sleep(0.5)

    async def _sessions_lost(self) -> None:
        """The UPF has forgotten its sessions: release them, and let the SMFs know by a later time stamp of ours."""
        for session in await self._store.live_sessions():
            await self._store.mark_deleted(session.seid)
            await self.gate.owe(session.seid, [], release=True)
        recovery = await self._store.recovery_time(renew=True)
        for smf in await self._store.smf_addresses():
            telling = asyncio.ensure_future(self._tell(smf, recovery))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _tell(self, smf: str, recovery: int) -> None:
        """A heartbeat at once, so that an SMF need not wait for its own to see our new time stamp."""
        with contextlib.suppress(NoAnswer, OSError, ValueError):
            peer = self._smfs.get(smf, (smf, PORT))
            await self.endpoint.request(Message(Type.HEARTBEAT_REQUEST, 0, [codec.recovery(recovery)]), peer)

    async def _deferred(self) -> None:
        while True:
            await asyncio.sleep(DEFERRED_SECONDS)
            with contextlib.suppress(*TROUBLE):
                await self.gate.take_deferred()

    async def _housekeeping(self) -> None:
        while not self.leaving.is_set():
            try:
                # First: a quota's time may have ended while we were away.
                await self.gate.renewals.look()
                await self._store.sweep()
                for seid in await self._store.owing():
                    self.gate.work(seid)
            except TROUBLE as error:
                log.warning("the database does not answer: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _ending(self) -> None:
        """End the sessions that their SMF has forgotten; also those that an instance before us left."""
        places = asyncio.Semaphore(ENDING_AT_ONCE)

        async def end(seid: int) -> None:
            async with places:
                session = await self._store.session(seid)
                if session is not None and not session.deleted:
                    await self._end(session, patient=True)

        while True:
            self._to_end.clear()
            try:
                results = await asyncio.gather(*map(end, await self._store.ending()), return_exceptions=True)
                for result in results:
                    if isinstance(result, BaseException):
                        raise result
            except (PfcpError, *TROUBLE) as error:
                log.warning("sessions of a restarted SMF are still there: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._to_end.wait(), SWEEP_SECONDS)

    # Requests ------------------------------------------------------------------------------------------------------

    async def _handle(self, message: Message, peer: Address) -> Message | None:
        if message.type in (Type.HEARTBEAT_REQUEST, Type.SESSION_REPORT_REQUEST):
            stamp = message.first(IeType.RECOVERY_TIME_STAMP)
            with contextlib.suppress(*TROUBLE):
                await self._upf.heard(peer, None if stamp is None else codec.number(stamp, 4))
        match message.type:
            case Type.HEARTBEAT_REQUEST:
                return Message(Type.HEARTBEAT_RESPONSE, 0, [codec.recovery(await self._store.recovery_time())])
            case Type.ASSOCIATION_SETUP_REQUEST:
                return await self._association(message, peer)
            case Type.ASSOCIATION_RELEASE_REQUEST:
                return Message(Type.ASSOCIATION_RELEASE_RESPONSE, 0, [codec.node_id(self._own), _cause(Cause.ACCEPTED)])
            case Type.SESSION_ESTABLISHMENT_REQUEST:
                with SETUP_SECONDS.time():
                    return await self._establish(message, peer)
            case Type.SESSION_MODIFICATION_REQUEST:
                return await self._modify(message)
            case Type.SESSION_DELETION_REQUEST:
                return await self._delete(message)
            case Type.SESSION_REPORT_REQUEST:
                return await self._report(message)
        return None

    async def _association(self, message: Message, peer: Address) -> Message:
        """A peer associates with us: the UPF, known by its features, or an SMF, which gets the UPF's."""
        ies = [codec.node_id(self._own)]
        recovery = codec.number(message.first(IeType.RECOVERY_TIME_STAMP), 4)
        if message.first(IeType.UP_FUNCTION_FEATURES) is not None:
            await self._upf.take(message)
            await self._upf.accepted(message, peer)
        else:
            node = codec.parse_node_id(message.first(IeType.NODE_ID)) or peer[0]
            self._smfs[node] = peer
            await self._smf_alive(node, recovery)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._upf.associated.wait(), 2)
            if not self._upf.associated.is_set():
                return Message(Type.ASSOCIATION_SETUP_RESPONSE, 0, [*ies, _cause(Cause.SYSTEM_FAILURE)])
        ies += [_cause(Cause.ACCEPTED), codec.recovery(await self._store.recovery_time())]
        if self._upf.features is not None and message.first(IeType.UP_FUNCTION_FEATURES) is None:
            ies.append(self._upf.features)
        return Message(Type.ASSOCIATION_SETUP_RESPONSE, 0, ies)

    async def _smf_alive(self, node: str, recovery: int) -> None:
        """A new time stamp of an SMF: it has restarted and knows none of its sessions (TS 23.527 clause 4.2.3)."""
        known = await self._store.get_setting(f"smf-recovery-{node}")
        if known is None:
            await self._store.set_setting(f"smf-recovery-{node}", str(recovery))
        elif int(known) != recovery:
            # It waits for our answer, not for the UPF's to each of them.
            lost = await self._store.smf_restarted(node, recovery)
            log.warning("the SMF has restarted; its sessions are closed", extra={"smf": node, "sessions": lost})
            self._to_end.set()

    def _own_f_seid(self, ies: list[Ie], seid: int) -> list[Ie]:
        """Elements with our Node ID and F-SEID in the place of the sender's."""
        out = []
        for ie in ies:
            if ie.type == IeType.NODE_ID:
                ie = codec.node_id(self._own)
            elif ie.type == IeType.F_SEID:
                ie = codec.f_seid(seid, self._own)
            out.append(ie)
        return out

    async def _establish(self, message: Message, peer: Address) -> Message:
        smf_seid, smf_address = codec.parse_f_seid(message.need(IeType.F_SEID), ipv6=":" in self._own)
        imsi = codec.user_imsi(message.first(IeType.USER_ID))
        name = codec.parse_dnn(message.first(IeType.APN_DNN))

        def answer(cause: Cause | int, *more: Ie) -> Message:
            SESSIONS.labels("refused").inc()
            ies = [codec.node_id(self._own), _cause(cause), *more]
            return Message(Type.SESSION_ESTABLISHMENT_RESPONSE, 0, ies, seid=smf_seid)

        if imsi is None:
            log.warning("a session without a User ID is refused")
            return answer(Cause.MANDATORY_IE_MISSING, codec.u16(IeType.OFFENDING_IE, IeType.USER_ID))
        addresses = rules.addresses(message.ies)
        try:
            forwarding = Forwarding().after(message.ies, ipv6=_has_ipv6(addresses))
            seid = await self._store.new_seid()
            # Nothing passes before the OCS has said something.
            adapted = rules.adapt(
                message.ies, forwarding, own=rules.OWN_URR, open_=False, detour=self._upf.detour(seid)
            )
        except NumberTaken as error:
            log.warning("a session is refused: %s", error)
            return answer(Cause.NO_RESOURCES)
        ies = [*self._own_f_seid(adapted, seid), rules.create_urr(rules.OWN_URR, rules.CLOSED)]
        made, cause = await self._ask_upf(Message(Type.SESSION_ESTABLISHMENT_REQUEST, 0, ies, seid=0))
        upf_seid = made.first(IeType.F_SEID) if made is not None else None
        if made is None or cause != Cause.ACCEPTED or upf_seid is None:
            return answer(cause if cause != Cause.ACCEPTED else Cause.REJECTED)
        node = smf_address or peer[0]
        self._smfs[node] = peer
        session = Session(
            seid=seid, smf_seid=smf_seid, smf=(node, peer[1]), upf_seid=codec.parse_f_seid(upf_seid)[0], imsi=imsi,
            dnn=name, own_urr=rules.OWN_URR, open=False, limits=rules.CLOSED, nchf_ref=None, nchf_sequence=0, octets=0,
            deleted=False, forwarding=forwarding, qers=rules.qer_rates(message.ies, {}),
            addresses=tuple(sorted(addresses | rules.addresses(made.ies))), untold=True,
        )  # fmt: skip
        keeping = self._store.keep(session)
        if self._store.keeps_up:
            # What the SMF says next of it waits until it is kept.
            self.gate.begin(session, lambda: self._kept(session, keeping))
        else:
            await self._kept(session, keeping)
            self.gate.begin(session)
        return Message(made.type, 0, self._own_f_seid(made.ies, seid), seid=smf_seid)

    async def _kept(self, session: Session, keeping: asyncio.Future[None]) -> None:
        """Until a new session is kept. One that cannot be ends on the UPF, and what the database raises is raised."""
        try:
            await asyncio.shield(keeping)
        except TROUBLE as error:
            log.warning("a new session could not be kept: %s", error, extra={"seid": session.seid})
            # The SMF does not get it, or not any further, and asks for another one: nobody would ever end this.
            await self._ask_upf(Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=session.upf_seid or 0))
            self.gate.never_was(session.seid)
            raise

    async def _ask_upf(self, message: Message) -> tuple[Message | None, int]:
        """(answer, cause); SYSTEM_FAILURE where there is no answer, or none that can be read."""
        try:
            made = await self._upf.request(message)
            return made, codec.number(made.first(IeType.CAUSE), 1)
        except (NoAnswer, OSError, PfcpError) as error:
            log.warning("UPF: %s", error, extra={"type": message.type})
            return None, Cause.SYSTEM_FAILURE

    async def _modify(self, message: Message) -> Message:
        session = await self._store.session(message.seid or 0)
        kind = Type.SESSION_MODIFICATION_RESPONSE
        if session is None or session.deleted or session.ending or session.upf_seid is None:
            return Message(kind, 0, [_cause(Cause.SESSION_NOT_FOUND)], seid=session.smf_seid if session else 0)
        async with self.gate.switch.locks[session.seid]:
            session = await self._store.session(session.seid) or session
            assert session.upf_seid is not None
            changes: dict[str, Any] = {}
            smf_seid = message.first(IeType.F_SEID)
            if smf_seid is not None:
                session.smf_seid, moved = codec.parse_f_seid(smf_seid, ipv6=":" in self._own)
                changes = {"smf_seid": session.smf_seid, "smf_address": moved or session.smf[0]}
            known = {*session.addresses, *rules.addresses(message.ies)}
            try:
                forwarding = session.forwarding.after(message.ies, ipv6=_has_ipv6(known))
                adapted = rules.adapt(
                    message.ies, forwarding, own=session.own_urr, open_=session.open,
                    detour=self._upf.detour(session.seid), throttle=session.throttle,
                )  # fmt: skip
                ies = self._own_f_seid(adapted, session.seid)
            except NumberTaken as error:
                log.warning("a modification is refused: %s", error)
                return Message(kind, 0, [_cause(Cause.NO_RESOURCES)], seid=session.smf_seid)
            qers = rules.qer_rates(message.ies, session.qers)
            made, cause = await self._ask_upf(Message(message.type, 0, ies, seid=session.upf_seid))
            # What the UPF refused did not happen: the gate must not restore it later.
            if cause == Cause.ACCEPTED:
                if forwarding != session.forwarding:
                    changes["forwarding"] = forwarding
                if qers != session.qers:
                    changes["qers"] = qers
                if known != set(session.addresses):
                    changes["addresses"] = sorted(known)
            ours = session.revision + self._store.revises(changes)
            revision: int | None = None
            if changes:
                revision = await self._store.update(session.seid, **changes)
            else:
                # What the UPF reported has to be kept whether this can be known or not.
                with contextlib.suppress(*TROUBLE):
                    now = await self._store.session(session.seid)
                    revision = None if now is None else now.revision
            if revision not in (None, ours):
                # Another instance has turned the gate meanwhile, and the UPF may have heard it before us.
                await self._store.update(session.seid, untold=True)
                self.gate.work(session.seid)
        if made is None:
            return Message(kind, 0, [_cause(cause)], seid=session.smf_seid)
        return await self._for_smf(session, made)

    async def _for_smf(self, session: Session, made: Message) -> Message:
        """The UPF's answer without the CTF's own usage, which is kept before the SMF gets the answer."""
        own, rest = rules.split_usage(made.ies, session.own_urr)
        if own:
            await self.gate.owe(session.seid, own)
        return Message(made.type, 0, self._own_f_seid(rest, session.seid), seid=session.smf_seid)

    async def _delete(self, message: Message) -> Message:
        session = await self._store.session(message.seid or 0)
        if session is None or session.deleted or session.ending or session.upf_seid is None:
            seid = session.smf_seid if session else 0
            return Message(Type.SESSION_DELETION_RESPONSE, 0, [_cause(Cause.SESSION_NOT_FOUND)], seid=seid)
        return Message(Type.SESSION_DELETION_RESPONSE, 0, await self._end(session), seid=session.smf_seid)

    async def _end(self, session: Session, *, patient: bool = False) -> list[Ie]:
        """Delete a session on the UPF and owe the OCS its last usage and the release; what the SMF gets to know.

        `patient`: without an answer of the UPF the session stays, to be ended later.
        """
        async with self.gate.switch.locks[session.seid]:
            made, _ = await self._ask_upf(Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=session.upf_seid or 0))
            if made is None and patient:
                return []
            own, rest = rules.split_usage(made.ies, session.own_urr) if made is not None else ([], [])
            await self._store.mark_deleted(session.seid)
            await self.gate.owe(session.seid, own, release=True)
        SESSIONS.labels("deleted").inc()
        # A UPF that is gone, or knows nothing of the session, has ended it as well.
        return [_cause(Cause.ACCEPTED), *(ie for ie in rest if ie.type != IeType.CAUSE)]

    async def _report(self, message: Message) -> Message | None:
        try:
            session = await self._store.session(message.seid or 0)
        except TROUBLE:
            # Some user planes give a report up after a few repetitions. Better kept by us until the database is back.
            session = self.gate.switch.remembered(message.seid or 0)
            if session is None:
                raise
        if session is None:
            return Message(Type.SESSION_REPORT_RESPONSE, 0, [_cause(Cause.SESSION_NOT_FOUND)], seid=0)
        own, rest = rules.split_usage(message.ies, session.own_urr)
        if own:
            # Kept before it is acknowledged: an acknowledged report is never lost.
            await self.gate.owe(session.seid, own, session=session)
        kind = codec.number(message.first(IeType.REPORT_TYPE), 1)
        if not any(ie.type == IeType.USAGE_REPORT_REPORT for ie in rest):
            kind &= ~codec.REPORT_USAGE
        if not kind or session.deleted or session.ending:
            return Message(Type.SESSION_REPORT_RESPONSE, 0, [_cause(Cause.ACCEPTED)], seid=session.upf_seid or 0)
        # Downlink data, errors, usage by the SMF's own rules: the SMF's business.
        ies = [codec.u8(IeType.REPORT_TYPE, kind) if ie.type == IeType.REPORT_TYPE else ie for ie in rest]
        try:
            smf = self._smfs.get(session.smf[0], session.smf)
            made = await self.endpoint.request(Message(message.type, 0, ies, seid=session.smf_seid), smf)
        except NoAnswer:
            return None
        return Message(made.type, 0, self._own_f_seid(made.ies, session.seid), seid=session.upf_seid)
