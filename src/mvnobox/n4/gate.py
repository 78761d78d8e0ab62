"""Usage to the OCS, credit to the UPF: what a session owes is sent in order, the last answer opens or closes its gate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from prometheus_client import Counter, Histogram

from mvnobox.n4 import forwarding, rules
from mvnobox.n4.nchf import Nchf, OcsUnavailable, Verdict
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.store import Pending, Session, Store
from mvnobox.n4.upf import Upf
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, Ie, IeType, Message, PfcpError, Type
from mvnobox.pfcp.endpoint import NoAnswer
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
REPORTS = Counter("ctf_usage_reports_total", "Usage reports of the CTF's own rule", ["counted"])
OCTETS = Counter("ctf_octets_total", "Octets taken into account")
GATES = Counter("ctf_gate_total", "Gate changes", ["to"])
THROTTLES = Counter("ctf_throttle_total", "Sessions slowed down and let go again", ["to"])
OCS_SECONDS = Histogram("ctf_ocs_seconds", "Time of an Nchf request")


# Reports that are kept in memory while the database is away.
DEFERRED = 10_000


class Gate:
    """The sessions' gates. One worker a session sends what it owes; none while it owes nothing."""

    def __init__(self, settings: CtfSettings, store: Store, nchf: Nchf, upf: Upf) -> None:
        self._settings, self._store, self._nchf, self._upf = settings, store, nchf, upf
        # Held while a session's rules change on the UPF.
        self.locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._workers: dict[int, asyncio.Task[None]] = {}
        # Sessions that are being set up: whether the OCS has had something to say meanwhile.
        self._being_made: dict[int, bool] = {}
        self._asking: set[asyncio.Task[bool]] = set()
        # Set when the sessions that are slowed down, or their rates, may be others than before.
        self.throttled = asyncio.Event()
        # Sessions with something new since their worker last looked.
        self._dirty: set[int] = set()
        # Reports that came while the database was away, in their order, and sessions as last seen.
        self._deferred: list[tuple[int, list[rules.Report]]] = []
        self._remembered: dict[int, Session] = {}

    def close(self) -> None:
        for worker in self._workers.values():
            worker.cancel()

    def limits(self, verdict: Verdict) -> rules.Limits:
        """What the UPF is told for an answer of the OCS."""
        quantum = self._settings.reporting_quantum_octets
        return rules.limits(verdict.granted, quantum=quantum, final=verdict.final)

    async def first_quota(self, imsi: str, seid: int, dnn: str | None) -> Verdict:
        """Ask before the first packet; without an answer the session starts closed and opens when there is one."""
        for _ in range(2):
            try:
                with OCS_SECONDS.time():
                    return await self._nchf.create(imsi, seid, dnn)
            except OcsUnavailable as error:
                log.warning("the OCS does not answer: %s", error)
        return Verdict(0)

    @contextlib.contextmanager
    def being_made(self, seid: int) -> Iterator[None]:
        """While a session is being set up, what the OCS says of it waits until it is."""
        self._being_made[seid] = False
        try:
            yield
        finally:
            if self._being_made.pop(seid):
                self._later(seid)

    def _later(self, seid: int) -> None:
        asking = asyncio.ensure_future(self.reauthorize(seid))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    def remembered(self, seid: int) -> Session | None:
        """A session as it was when its rules changed last; for while the database is away."""
        return self._remembered.get(seid)

    def remember(self, session: Session) -> None:
        """Keep a session for `remembered`; a deleted one is forgotten."""
        if session.deleted:
            self._remembered.pop(session.seid, None)
        else:
            self._remembered[session.seid] = session

    async def take_deferred(self) -> None:
        """Bring what came while the database was away into it. Raises what the database raises."""
        while self._deferred:
            await self.owe(*self._deferred[0])
            self._deferred.pop(0)

    async def owe(self, seid: int, reports: list[rules.Report], *, release: bool = False) -> None:
        """Keep usage (and the session's end) in the database, and see to it that the OCS gets to know.

        Use alone is kept in memory while the database is away, up to a bound; then, and for an end, what the database
        raises is raised.
        """
        try:
            pending = await self._store.take_usage(seid, reports, release=release)
        except TROUBLE:
            if release or not reports or len(self._deferred) >= DEFERRED:
                raise
            if (seid, reports) not in self._deferred:
                self._deferred.append((seid, reports))
            return
        if reports:
            REPORTS.labels(str(pending is not None).lower()).inc(len(reports))
        if pending is not None:
            OCTETS.inc(pending.used[0])
        self.work(seid)

    async def reauthorize(self, seid: int) -> bool:
        """The OCS says that there may be credit again: ask. False for an unknown session."""
        if seid in self._being_made:
            self._being_made[seid] = True
            return True
        session = await self._store.session(seid)
        if session is None or session.deleted:
            return False
        await self.owe(seid, [])
        return True

    async def abort(self, seid: int) -> bool:
        """The OCS ends charging: no more traffic. False for an unknown session."""
        if seid in self._being_made:
            # Asking the OCS again tells the same.
            self._being_made[seid] = True
            return True
        session = await self._store.session(seid)
        if session is None or session.deleted:
            return False
        await self._apply(seid, Verdict(0))
        return True

    def work(self, seid: int) -> None:
        """See to it that someone settles what a session owes."""
        self._dirty.add(seid)
        worker = self._workers.get(seid)
        if worker is None or worker.done():
            self._workers[seid] = asyncio.ensure_future(self._settle(seid))

    async def _settle(self, seid: int) -> None:
        try:
            await self._send_all(seid)
        finally:
            if self._workers.get(seid) is asyncio.current_task():
                del self._workers[seid]

    async def _send_all(self, seid: int) -> None:
        """Send what a session owes, oldest first, until nothing is left; the last answer decides over the gate."""
        verdict: Verdict | None = None
        delay, waited = 0.1, 0.0
        while True:
            self._dirty.discard(seid)
            try:
                session = await self._store.session(seid)
                if session is None or session.imsi is None:
                    return
                verdict, more = await self._send_next(session, verdict)
                delay, waited = 0.1, 0.0
            except OcsUnavailable as error:
                if waited <= self._settings.ocs_patience_seconds < waited + delay:
                    log.warning("no credit without the OCS: %s", error)
                    await self._apply(seid, Verdict(0))
                await asyncio.sleep(delay)
                waited, delay = waited + delay + 0.001, min(delay * 2, 5.0)
                continue
            except TROUBLE as error:
                log.warning("the database does not answer: %s", error)
                await asyncio.sleep(1)
                continue
            if more:
                continue
            if verdict is not None and not session.deleted:
                await self._apply(seid, verdict)
            if seid not in self._dirty:
                if session.deleted:
                    self.locks.pop(seid, None)
                    self._remembered.pop(seid, None)
                return

    async def _send_next(self, session: Session, verdict: Verdict | None) -> tuple[Verdict | None, bool]:
        """Send one request that is owed: the last answer, and whether there is more. Raises OcsUnavailable."""
        assert session.imsi is not None
        if session.nchf_ref is None:
            if session.deleted:
                return None, False
            verdict = await self._nchf.create(session.imsi, session.seid, session.dnn)
            if verdict.ref is None:
                return verdict, False
            await self._store.update(session.seid, nchf_ref=verdict.ref)
            return verdict, True
        pending: Pending | None = await self._store.next_pending(session.seid)
        if pending is None:
            return verdict, False
        with OCS_SECONDS.time():
            verdict = await self._nchf.report(
                session.imsi, session.seid, session.nchf_ref, pending.sequence, pending.used, release=pending.release
            )
        await self._store.settled(pending)
        return verdict, await self._store.next_pending(session.seid) is not None

    async def _apply(self, seid: int, verdict: Verdict) -> None:
        """Let the UPF know what the OCS said: limits, rates, and the gate open or closed."""
        async with self.locks[seid]:
            session = await self._store.session(seid)
            if session is None or session.deleted or session.upf_seid is None:
                return
            self.remember(session)
            open_, limits = verdict.granted > 0, self.limits(verdict)
            if not open_ and not session.open:
                return
            # A quota counts from the last report, so it is told anew even where it is the same number.
            ies: list[Ie] = [rules.update_urr(session.own_urr, limits)]
            change: dict[str, Any] = {"open": open_, "limits": limits}
            before: dict[str, Any] = {"open": session.open, "limits": session.limits}
            if open_ != session.open:
                ies += forwarding.gate(session.forwarding, open_=open_, detour=self._upf.detour(seid))
            if open_:
                # An open gate counts from the first packet.
                change["behind_gate"] = False
            # Behind a closed gate the rate is what it was; the answer that opens it says what it will be.
            slows = open_ and verdict.throttle != session.throttle
            if slows:
                ies += rules.rates(session.qers, verdict.throttle)
                change["throttle"], before["throttle"] = verdict.throttle, session.throttle
            # Kept first: if we die now, the next one repeats the same change.
            await self._store.update(seid, **change)
            try:
                made = await self._upf.request(
                    Message(Type.SESSION_MODIFICATION_REQUEST, 0, ies, seid=session.upf_seid)
                )
                accepted = codec.number(made.first(IeType.CAUSE), 1) == Cause.ACCEPTED
                own, _ = rules.split_usage(made.ies, session.own_urr)
            except (NoAnswer, OSError, PfcpError) as error:
                log.warning("the UPF did not take a change: %s", error)
                accepted, own = False, []
            if not accepted:
                await self._store.update(seid, **before)
            else:
                await self._applied(session, verdict, open_=open_, slows=slows)
        if own:
            await self.owe(seid, own)

    async def _applied(self, session: Session, verdict: Verdict, *, open_: bool, slows: bool) -> None:
        """The UPF does what the OCS said."""
        told = {"seid": session.seid, "granted": verdict.granted}
        if open_ != session.open:
            if not open_:
                await self._store.update(session.seid, behind_gate=True)
            GATES.labels("open" if open_ else "closed").inc()
            log.info("gate %s", "opened" if open_ else "closed", extra=told)
        if slows:
            self.throttled.set()
            THROTTLES.labels("lifted" if verdict.throttle is None else "slowed").inc()
            rate = None if verdict.throttle is None else f"{verdict.throttle.downlink} bit/s"
            log.info("throttle %s", "lifted" if rate is None else f"of {rate}", extra=told)
            if not session.qers:
                log.warning("a session without QERs cannot be slowed down on N4", extra={"seid": session.seid})
