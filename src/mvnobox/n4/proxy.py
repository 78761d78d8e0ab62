"""The proxy: the SMF's rules reach the UPF with the quota in them; usage goes to the OCS; credit opens the gate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import defaultdict

from prometheus_client import Counter, Gauge, Histogram

from mvnobox.n4 import rules
from mvnobox.n4.nchf import Nchf, OcsUnavailable, Verdict
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.store import Pending, Session, Store
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, Ie, IeType, Message, Type
from mvnobox.pfcp.endpoint import Address, Endpoint, NoAnswer

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 5.0
REASSOCIATE_SECONDS = 1.0
REFRESH_SECONDS = 1800.0
SESSIONS = Counter("ctf_sessions_total", "PFCP sessions", ["event"])
REPORTS = Counter("ctf_usage_reports_total", "Usage reports", ["fresh"])
OCTETS = Counter("ctf_octets_total", "Octets taken into account")
GATES = Counter("ctf_gate_total", "Gate changes", ["to"])
OCS_SECONDS = Histogram("ctf_ocs_seconds", "Time of an Nchf request")
ASSOCIATED = Gauge("ctf_upf_associated", "Whether the UPF is associated")


def _cause(value: Cause) -> Ie:
    return codec.u8(IeType.CAUSE, value)


class Ctf:
    """One instance; several may run on one database during a change-over."""

    def __init__(self, settings: CtfSettings, store: Store, nchf: Nchf) -> None:
        self._settings, self._store, self._nchf = settings, store, nchf
        self._endpoint: Endpoint | None = None
        self._own = ""
        self._recovery = 0
        self._upf_recovery: int | None = None
        self._upf_features: Ie | None = None
        self._associated = asyncio.Event()
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._workers: dict[int, asyncio.Task[None]] = {}
        # Sessions with something new since their worker last looked.
        self._dirty: set[int] = set()

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return await self._store.ready()

    # Life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve N4 until cancelled."""
        self._own = await self._resolved(self._settings.own_address)
        self._recovery = await self._store.recovery_time()
        self._endpoint = await Endpoint.open(self._settings.listen, self._settings.port, self._handle)
        log.info("serving N4", extra={"own": self._own, "upf": self._settings.upf})
        try:
            for seid in await self._store.owing():
                self._work(seid)
            await asyncio.gather(self._keep_association(), self._housekeeping())
        finally:
            self._endpoint.close()
            for worker in self._workers.values():
                worker.cancel()

    @property
    def endpoint(self) -> Endpoint:
        assert self._endpoint is not None
        return self._endpoint

    @staticmethod
    async def _resolved(resolve: object) -> str:
        while True:
            try:
                return str(await asyncio.to_thread(resolve))  # type: ignore[arg-type]
            except OSError as error:
                log.info("waiting for a name: %s", error)
                await asyncio.sleep(0.5)

    async def _upf(self) -> Address:
        address = await asyncio.to_thread(socket.gethostbyname, self._settings.upf)
        return address, self._settings.upf_port

    async def _to_upf(self, message: Message) -> Message:
        return await self.endpoint.request(message, await self._upf())

    async def _keep_association(self) -> None:
        """Associate with the UPF, keep the heartbeat, notice its restarts."""
        while True:
            try:
                if not self._associated.is_set():
                    await self._associate()
                answer = await self._to_upf(Message(Type.HEARTBEAT_REQUEST, 0, [codec.recovery(self._recovery)]))
                await self._upf_alive(codec.number(answer.first(IeType.RECOVERY_TIME_STAMP), 4))
                await asyncio.sleep(HEARTBEAT_SECONDS)
            except (NoAnswer, OSError, codec.PfcpError) as error:
                log.warning("UPF: %s", error)
                self._associated.clear()
                ASSOCIATED.set(0)
                await asyncio.sleep(REASSOCIATE_SECONDS)

    async def _associate(self) -> None:
        answer = await self._to_upf(
            Message(Type.ASSOCIATION_SETUP_REQUEST, 0, [codec.node_id(self._own), codec.recovery(self._recovery)])
        )
        if codec.number(answer.first(IeType.CAUSE), 1) != Cause.ACCEPTED:
            raise NoAnswer("the UPF refused the association")
        self._upf_features = answer.first(IeType.UP_FUNCTION_FEATURES)
        await self._upf_alive(codec.number(answer.first(IeType.RECOVERY_TIME_STAMP), 4))
        self._associated.set()
        ASSOCIATED.set(1)
        log.info("associated with the UPF")

    async def _upf_alive(self, recovery: int) -> None:
        """A new recovery time stamp means that the UPF has forgotten its sessions (TS 29.244 clause 6.2.2)."""
        if self._upf_recovery is None:
            known = await self._store.get_setting("upf-recovery")
            self._upf_recovery = int(known) if known else None
        if self._upf_recovery == recovery:
            return
        if self._upf_recovery is not None:
            log.warning("the UPF has restarted; its sessions are closed")
            for session in await self._store.live_sessions():
                await self._store.mark_deleted(session.seid)
                await self._owe(session.seid, [], release=True)
            # The SMF learns by our own time stamp and sets its sessions up again.
            await asyncio.sleep(1)
            self._recovery = await self._store.recovery_time(renew=True)
            self._associated.clear()
        self._upf_recovery = recovery
        await self._store.set_setting("upf-recovery", str(recovery))

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(15)
            with contextlib.suppress(OSError):
                await self._store.sweep()
                for seid in await self._store.stale(REFRESH_SECONDS):
                    await self._owe(seid, [])
                for seid in await self._store.owing():
                    self._work(seid)

    # Requests ------------------------------------------------------------------------------------------------------

    async def _handle(self, message: Message, peer: Address) -> Message | None:
        match message.type:
            case Type.HEARTBEAT_REQUEST:
                return Message(Type.HEARTBEAT_RESPONSE, 0, [codec.recovery(self._recovery)])
            case Type.ASSOCIATION_SETUP_REQUEST:
                return await self._association(message, peer)
            case Type.ASSOCIATION_RELEASE_REQUEST:
                return Message(Type.ASSOCIATION_RELEASE_RESPONSE, 0, [codec.node_id(self._own), _cause(Cause.ACCEPTED)])
            case Type.SESSION_ESTABLISHMENT_REQUEST:
                return await self._establish(message, peer)
            case Type.SESSION_MODIFICATION_REQUEST:
                return await self._modify(message, peer)
            case Type.SESSION_DELETION_REQUEST:
                return await self._delete(message)
            case Type.SESSION_REPORT_REQUEST:
                return await self._report(message)
        return None

    async def _association(self, message: Message, peer: Address) -> Message:
        """The SMF associates with us; it gets the UPF's features. A new time stamp of its own: it has restarted."""
        recovery = codec.number(message.first(IeType.RECOVERY_TIME_STAMP), 4)
        known = await self._store.get_setting(f"smf-recovery-{peer[0]}")
        if known is not None and int(known) != recovery:
            for session in await self._store.live_sessions(peer[0]):
                await self._end(session)
        await self._store.set_setting(f"smf-recovery-{peer[0]}", str(recovery))
        ies = [codec.node_id(self._own)]
        if not self._associated.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._associated.wait(), 2)
        if not self._associated.is_set():
            return Message(Type.ASSOCIATION_SETUP_RESPONSE, 0, [*ies, _cause(Cause.SYSTEM_FAILURE)])
        ies += [_cause(Cause.ACCEPTED), codec.recovery(self._recovery)]
        if self._upf_features is not None:
            ies.append(self._upf_features)
        return Message(Type.ASSOCIATION_SETUP_RESPONSE, 0, ies)

    async def _establish(self, message: Message, peer: Address) -> Message:
        smf_seid, smf_address = codec.parse_f_seid(message.need(IeType.F_SEID))
        imsi = codec.user_imsi(message.first(IeType.USER_ID))
        name = codec.parse_dnn(message.first(IeType.APN_DNN))

        def answer(cause: Cause, *more: Ie) -> Message:
            ies = [codec.node_id(self._own), _cause(cause), *more]
            return Message(Type.SESSION_ESTABLISHMENT_RESPONSE, 0, ies, seid=smf_seid)

        if imsi is None:
            log.warning("a session without a User ID is refused")
            return answer(Cause.MANDATORY_IE_MISSING, codec.u16(IeType.OFFENDING_IE, IeType.USER_ID))
        seid = await self._store.new_session(smf_seid, (smf_address or peer[0], peer[1]), imsi, name)
        verdict = await self._first_quota(imsi, seid, name)
        open_ = verdict.granted > 0
        threshold = verdict.granted or self._settings.reporting_quantum_octets
        adapted, urrs = rules.adapt(message.ies, threshold=threshold, open_=open_)
        await self._store.update(
            seid,
            fars=rules.far_actions(message.ies),
            urrs=urrs,
            open=open_,
            threshold=threshold,
            nchf_ref=verdict.ref,
        )
        replaced = {IeType.NODE_ID: codec.node_id(self._own), IeType.F_SEID: codec.f_seid(seid, self._own)}
        ies = [replaced.get(ie.type, ie) for ie in adapted]  # type: ignore[call-overload]
        try:
            made = await self._to_upf(Message(Type.SESSION_ESTABLISHMENT_REQUEST, 0, ies, seid=0))
            cause = codec.number(made.first(IeType.CAUSE), 1)
        except (NoAnswer, OSError) as error:
            log.warning("establishment: %s", error)
            made, cause = None, Cause.SYSTEM_FAILURE
        upf_seid = made.first(IeType.F_SEID) if made is not None else None
        if made is None or cause != Cause.ACCEPTED or upf_seid is None:
            await self._store.mark_deleted(seid)
            await self._owe(seid, [], release=True)
            SESSIONS.labels("refused").inc()
            return answer(Cause(cause) if cause in list(Cause) and cause != Cause.ACCEPTED else Cause.REJECTED)
        await self._store.update(seid, upf_seid=codec.parse_f_seid(upf_seid)[0])
        SESSIONS.labels("open" if open_ else "closed").inc()
        made.seid = smf_seid
        made.ies = [replaced.get(ie.type, ie) for ie in made.ies]  # type: ignore[call-overload]
        return made

    async def _first_quota(self, imsi: str, seid: int, name: str | None) -> Verdict:
        """Ask before the first packet; without an answer the session starts closed and opens when there is one."""
        for _ in range(2):
            try:
                with OCS_SECONDS.time():
                    return await self._nchf.create(imsi, seid, name)
            except OcsUnavailable as error:
                log.warning("the OCS does not answer: %s", error)
        self._work(seid)
        return Verdict(0)

    async def _modify(self, message: Message, peer: Address) -> Message:
        session = await self._store.session(message.seid or 0)
        if session is None or session.deleted or session.upf_seid is None:
            return Message(
                Type.SESSION_MODIFICATION_RESPONSE,
                0,
                [_cause(Cause.SESSION_NOT_FOUND)],
                seid=session.smf_seid if session else 0,
            )
        async with self._locks[session.seid]:
            session = await self._store.session(session.seid) or session
            smf_seid = message.first(IeType.F_SEID)
            changes: dict[str, object] = {}
            if smf_seid is not None:
                session.smf_seid = codec.parse_f_seid(smf_seid)[0]
                changes["smf_seid"] = session.smf_seid
            adapted, urrs = rules.adapt(
                message.ies, threshold=session.threshold, open_=session.open, known_urrs=session.urrs
            )
            fars = {**session.fars, **rules.far_actions(message.ies)}
            for far in rules.removed_fars(message.ies):
                fars.pop(far, None)
            if fars != session.fars:
                changes["fars"] = fars
            if urrs != session.urrs:
                changes["urrs"] = urrs
            if changes:
                await self._store.update(session.seid, **changes)
            replaced = {IeType.F_SEID: codec.f_seid(session.seid, self._own)}
            ies = [replaced.get(ie.type, ie) for ie in adapted]  # type: ignore[call-overload]
            try:
                made = await self._to_upf(Message(Type.SESSION_MODIFICATION_REQUEST, 0, ies, seid=session.upf_seid))
            except (NoAnswer, OSError):
                made = Message(Type.SESSION_MODIFICATION_RESPONSE, 0, [_cause(Cause.SYSTEM_FAILURE)])
        await self._take(session.seid, rules.usage_reports(made.ies))
        made.seid = session.smf_seid
        return made

    async def _delete(self, message: Message) -> Message:
        session = await self._store.session(message.seid or 0)
        if session is None or session.upf_seid is None:
            seid = session.smf_seid if session else 0
            return Message(Type.SESSION_DELETION_RESPONSE, 0, [_cause(Cause.SESSION_NOT_FOUND)], seid=seid)
        made = await self._end(session)
        made.seid = session.smf_seid
        return made

    async def _end(self, session: Session) -> Message:
        """Delete a session on the UPF and owe the OCS its last usage and the release."""
        try:
            made = await self._to_upf(Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=session.upf_seid or 0))
            reports = rules.usage_reports(made.ies)
        except (NoAnswer, OSError, codec.PfcpError):
            made, reports = Message(Type.SESSION_DELETION_RESPONSE, 0, [_cause(Cause.ACCEPTED)]), []
        await self._store.mark_deleted(session.seid)
        await self._owe(session.seid, reports, release=True)
        SESSIONS.labels("deleted").inc()
        return made

    async def _report(self, message: Message) -> Message | None:
        session = await self._store.session(message.seid or 0)
        if session is None:
            return Message(Type.SESSION_REPORT_RESPONSE, 0, [_cause(Cause.SESSION_NOT_FOUND)], seid=0)
        # Kept before it is acknowledged: an acknowledged report is never lost.
        await self._take(session.seid, rules.usage_reports(message.ies))
        kind = codec.number(message.first(IeType.REPORT_TYPE), 1)
        if kind & ~codec.REPORT_USAGE and not session.deleted:
            return await self._forward_report(message, session, kind)
        return Message(Type.SESSION_REPORT_RESPONSE, 0, [_cause(Cause.ACCEPTED)], seid=session.upf_seid or 0)

    async def _forward_report(self, message: Message, session: Session, kind: int) -> Message | None:
        """Reports that are not about usage (downlink data, errors) are the SMF's business."""
        ies = [
            codec.u8(IeType.REPORT_TYPE, kind & ~codec.REPORT_USAGE) if ie.type == IeType.REPORT_TYPE else ie
            for ie in message.ies
            if ie.type != IeType.USAGE_REPORT_REPORT
        ]
        try:
            made = await self.endpoint.request(
                Message(Type.SESSION_REPORT_REQUEST, 0, ies, seid=session.smf_seid), session.smf
            )
        except NoAnswer:
            return None
        made.seid = session.upf_seid
        return made

    # Charging ------------------------------------------------------------------------------------------------------

    async def _take(self, seid: int, reports: list[rules.Report]) -> None:
        if reports:
            await self._owe(seid, reports)

    async def _owe(self, seid: int, reports: list[rules.Report], *, release: bool = False) -> None:
        pending = await self._store.take_usage(seid, reports, release=release)
        REPORTS.labels(str(pending is not None).lower()).inc(len(reports))
        if pending is not None:
            OCTETS.inc(pending.used[0])
        self._work(seid)

    async def reauthorize(self, seid: int) -> bool:
        """The OCS says that there may be credit again: ask. False for an unknown session."""
        session = await self._store.session(seid)
        if session is None or session.deleted:
            return False
        await self._owe(seid, [])
        return True

    async def abort(self, seid: int) -> bool:
        """The OCS ends charging: no more traffic. False for an unknown session."""
        session = await self._store.session(seid)
        if session is None or session.deleted:
            return False
        await self._apply(seid, 0)
        return True

    def _work(self, seid: int) -> None:
        """See to it that someone settles what a session owes."""
        self._dirty.add(seid)
        worker = self._workers.get(seid)
        if worker is None or worker.done():
            self._workers[seid] = asyncio.ensure_future(self._settle(seid))

    async def _settle(self, seid: int) -> None:
        """Send what a session owes, oldest first, until nothing is left; the last answer decides over the gate."""
        verdict: Verdict | None = None
        delay, waited = 0.1, 0.0
        while True:
            self._dirty.discard(seid)
            session = await self._store.session(seid)
            if session is None or session.imsi is None:
                return
            try:
                if session.nchf_ref is None:
                    if session.deleted:
                        return
                    verdict = await self._nchf.create(session.imsi, seid, session.dnn)
                    if verdict.ref is None:
                        return
                    await self._store.update(seid, nchf_ref=verdict.ref)
                    pending: Pending | None = None
                else:
                    pending = await self._store.next_pending(seid)
                    if pending is not None:
                        with OCS_SECONDS.time():
                            verdict = await self._nchf.report(
                                session.imsi, seid, session.nchf_ref, pending.sequence, pending.used,
                                release=pending.release,
                            )  # fmt: skip
                        await self._store.settled(pending)
                delay, waited = 0.1, 0.0
            except OcsUnavailable as error:
                if waited <= self._settings.ocs_patience_seconds < waited + delay and not session.deleted:
                    log.warning("no credit without the OCS: %s", error)
                    await self._apply(seid, 0)
                await asyncio.sleep(delay)
                waited, delay = waited + delay + 0.001, min(delay * 2, 5.0)
                continue
            if await self._store.next_pending(seid) is None:
                if verdict is not None and not session.deleted:
                    await self._apply(seid, verdict.granted)
                if seid not in self._dirty:
                    self._workers.pop(seid, None)
                    return

    async def _apply(self, seid: int, granted: int) -> None:
        """Let the UPF know what the OCS said: a threshold, and the gate open or closed."""
        async with self._locks[seid]:
            session = await self._store.session(seid)
            if session is None or session.deleted or session.upf_seid is None:
                return
            open_ = granted > 0
            threshold = min(granted, self._settings.reporting_quantum_octets) if open_ else session.threshold
            ies: list[Ie] = []
            if threshold != session.threshold:
                ies += rules.thresholds(session.urrs, threshold)
            if open_ != session.open:
                ies += rules.gate(session.fars, open_=open_)
            if not ies:
                return
            # Kept first: if we die now, the next one repeats the same change.
            await self._store.update(seid, open=open_, threshold=threshold)
            try:
                made = await self._to_upf(Message(Type.SESSION_MODIFICATION_REQUEST, 0, ies, seid=session.upf_seid))
            except (NoAnswer, OSError) as error:
                log.warning("the UPF did not take a change: %s", error)
                await self._store.update(seid, open=session.open, threshold=session.threshold)
                return
            if open_ != session.open:
                GATES.labels("open" if open_ else "closed").inc()
                log.info("gate %s", "opened" if open_ else "closed", extra={"seid": seid, "granted": granted})
        await self._take(seid, rules.usage_reports(made.ies))
