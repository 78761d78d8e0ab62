"""Usage to the OCS, credit to the UPF: what a session owes is sent in order, the last answer opens or closes its gate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from prometheus_client import Counter, Histogram

from mvnobox.n4 import rules
from mvnobox.n4.nchf import CONTINUE, ContextNotFound, Nchf, OcsUnavailable, Verdict
from mvnobox.n4.outage import Outage
from mvnobox.n4.renewal import Renewals
from mvnobox.n4.rows import Pending, Session
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.store import Store
from mvnobox.n4.switch import Switch
from mvnobox.n4.upf import Upf
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
SESSIONS = Counter("ctf_sessions_total", "PFCP sessions", ["event"])
_OPEN, _SHUT = SESSIONS.labels("open"), SESSIONS.labels("closed")
REPORTS = Counter("ctf_usage_reports_total", "Usage reports of the CTF's own rule", ["counted"])
OCTETS = Counter("ctf_octets_total", "Octets taken into account")
OCS_SECONDS = Histogram("ctf_ocs_seconds", "Time of an Nchf request")
CONTEXTS = Counter("ctf_contexts_lost_total", "Charging sessions that the OCS knew no more; each is begun anew")
LOST = Counter("ctf_octets_lost_total", "Octets of ended sessions that could be charged to nobody")
TRUSTED = Counter("ctf_trusted_total", "Quotas given without the OCS, which said CONTINUE")


# Reports that are kept in memory while the database is away.
DEFERRED = 10_000
# Before the OCS is asked of a new session: its news is on its way to the UE through functions that may share the machine.
HEAD_START_SECONDS = 0.01
# Between attempts to tell the UPF: from, to.
TELL_SECONDS = (0.2, 10.0)
Kept = TypeVar("Kept")


async def _patiently(do: Callable[[], Awaitable[Kept]]) -> Kept:
    """Do something, again and again while the database is away."""
    while True:
        try:
            return await do()
        except TROUBLE as error:
            log.warning("the database does not answer: %s", error)
            await asyncio.sleep(1)


class Gate:
    """The sessions' gates. One worker a session sends what it owes; none while it owes nothing."""

    def __init__(self, settings: CtfSettings, store: Store, nchf: Nchf, upf: Upf) -> None:
        self._settings, self._store, self._nchf = settings, store, nchf
        self.switch = Switch(settings, store, upf)
        self._workers: dict[int, asyncio.Task[None]] = {}
        # New sessions that the OCS's first answer is not kept of: whether it has had something to say meanwhile.
        self._unanswered: dict[int, bool] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self.renewals = Renewals(store, self.renew)
        # Sessions with something new since their worker last looked.
        self._dirty: set[int] = set()
        # Reports that came while the database was away, in their order.
        self._deferred: list[tuple[int, list[rules.Report]]] = []
        # Lets a worker that waits for the UPF go on.
        self._news: dict[int, asyncio.Event] = {}

    def close(self) -> None:
        self.renewals.close()
        for task in (*self._workers.values(), *self._background):
            task.cancel()

    def begin(self, session: Session, kept: Callable[[], Awaitable[None]] | None = None) -> None:
        """A new session, which the UPF has as closed, and the database once `kept` returns: the OCS is asked, and its answer
        opens the gate. Where `kept` raises TROUBLE there is no session.

        The SMF does not wait for it, and the UE is not quicker: it hears of its session some messages later. Where there is
        no answer the session would have begun closed all the same.
        """
        self.switch.remember(session)
        if self.busy(session.seid):
            # Found in the database as one that owes its first request: that worker does the same.
            self.work(session.seid)
            return
        self._unanswered[session.seid] = False
        self._employ(session.seid, self._begin(session, kept))

    async def _begin(self, session: Session, kept: Callable[[], Awaitable[None]] | None) -> None:
        seid = session.seid
        assert session.imsi is not None
        own: list[rules.Report] = []
        try:
            if kept is not None:
                try:
                    await kept()
                except TROUBLE:
                    self.switch.forget(seid)
                    return
            await asyncio.sleep(HEAD_START_SECONDS)
            verdict = await self.first_quota(session.imsi, seid, session.dnn)
            told, renewal = await _patiently(lambda: self.switch.begin(session, verdict, own))
            if own:
                await _patiently(lambda: self.owe(seid, own))
            if session.deleted and verdict.ref is not None:
                # When it ended there was nothing to release.
                await _patiently(lambda: self.owe(seid, [], release=True))
        finally:
            asked_again = self._unanswered.pop(seid)
        if asked_again:
            self._in_background(lambda: self.reauthorize(seid))
        if not session.deleted:
            (_OPEN if session.open else _SHUT).inc()
            if renewal is not None:
                self.renewals.note(seid, renewal)
        if seid in self._dirty or not told or verdict.ref is None:
            await self._settle(seid, verdict.after)

    def never_was(self, seid: int) -> None:
        """A new session is given up; whether the database has it is not known."""

        async def end() -> None:
            await self._store.mark_deleted(seid)
            await self.owe(seid, [], release=True)

        self._in_background(end)

    async def first_quota(self, imsi: str, seid: int, dnn: str | None) -> Verdict:
        """What the OCS says of a new session; without an answer nothing, or a quota on trust where it says so."""
        try:
            with OCS_SECONDS.time():
                return await self._nchf.create(imsi, seid, dnn)
        except OcsUnavailable as error:
            log.warning("the OCS does not answer: %s", error)
            if error.handling == CONTINUE:
                TRUSTED.inc()
                return Verdict(self._settings.quota_octets, after=error.after)
            return Verdict(0, after=error.after)

    def _in_background(self, do: Callable[[], Awaitable[object]]) -> None:
        """Do something, again and again while the database is away."""
        task = asyncio.ensure_future(_patiently(do))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def take_deferred(self) -> None:
        """Bring what came while the database was away into it. Raises what the database raises."""
        while self._deferred:
            first = self._deferred[0]
            # Not by `owe`: a database that is away again must not seem to have taken it.
            await self._take(*first)
            if self._deferred and self._deferred[0] is first:
                self._deferred.pop(0)

    async def owe(
        self, seid: int, reports: list[rules.Report], *, release: bool = False, session: Session | None = None
    ) -> bool:
        """Keep usage (and the session's end) in the database, and see to it that the OCS gets to know. Quicker with the
        `session` as it has just been read.

        False: nothing is owed for it, as the reports are known or of what was dropped.

        Use alone is kept in memory while the database is away, up to a bound; then, and for an end, what the database
        raises is raised.
        """
        try:
            return await self._take(seid, reports, release=release, session=session)
        except TROUBLE:
            if release or not reports or len(self._deferred) >= DEFERRED:
                raise
            if (seid, reports) not in self._deferred:
                self._deferred.append((seid, reports))
            return True

    async def _take(
        self, seid: int, reports: list[rules.Report], *, release: bool = False, session: Session | None = None
    ) -> bool:
        pending = await self._store.take_usage(seid, reports, release=release, session=session)
        if reports:
            REPORTS.labels(str(pending is not None).lower()).inc(len(reports))
        if pending is not None:
            OCTETS.inc(pending.used[0])
        self.work(seid)
        return pending is not None

    async def reauthorize(self, seid: int) -> bool:
        """The OCS says that there may be credit again: ask. False for an unknown session."""
        if seid in self._unanswered:
            self._unanswered[seid] = True
            return True
        session = await self._store.session(seid)
        if session is None or session.deleted:
            return False
        await self.owe(seid, [])
        return True

    async def abort(self, seid: int) -> bool:
        """The OCS ends charging: no more traffic. False for an unknown session. Raises what the database raises.

        True: it is kept that the gate closes, and it is told the UPF until that has taken it, over restarts too.
        """
        if seid in self._unanswered:
            # Asking the OCS again tells the same.
            self._unanswered[seid] = True
            return True
        if not await self.switch.close(seid):
            return False
        # An answer from before may still be on its way: what is asked for now is answered after it.
        await self.owe(seid, [])
        self._in_background(lambda: self._tell(seid))
        return True

    async def renew(self, seid: int) -> None:
        """A quota's time is about to end: what was used so far goes on its terms, and another one is asked for.

        Raises what the database raises.
        """
        own = await self.switch.used(seid)
        if own is None:
            return
        if not own or not await self.owe(seid, own):
            await self.owe(seid, [])

    def work(self, seid: int, after: float = 0.0) -> None:
        """See to it that someone settles what a session owes; not before so many seconds, where nobody does yet."""
        self._dirty.add(seid)
        if seid in self._news:
            self._news[seid].set()
        if not self.busy(seid):
            self._employ(seid, self._settle(seid, after))

    def busy(self, seid: int) -> bool:
        """Whether anything of a session is being settled."""
        worker = self._workers.get(seid)
        return worker is not None and not worker.done()

    def _employ(self, seid: int, work: Coroutine[Any, Any, None]) -> None:
        """Make some work that of a session's worker."""

        async def worker() -> None:
            try:
                await work
            finally:
                if self._workers.get(seid) is asyncio.current_task():
                    del self._workers[seid]

        self._workers[seid] = asyncio.ensure_future(worker())

    async def _settle(self, seid: int, after: float) -> None:
        await asyncio.sleep(after)
        await self._send_all(seid)

    async def _send_all(self, seid: int) -> None:
        """Send what a session owes, oldest first, until nothing is left; the last answer decides over the gate."""
        outage: Outage | None = None
        again = TELL_SECONDS[0]
        while True:
            self._dirty.discard(seid)
            try:
                session, pending = await self._store.owing_session(seid)
                if session is None or session.imsi is None:
                    return
                if session.without_ocs and pending is None and session.nchf_ref is not None and not session.deleted:
                    # Another instance has had the answer that was waited for, maybe before the gate was closed.
                    await self._take(seid, [])
                    continue
                try:
                    more, told = await self._send_next(session, pending)
                except (OcsUnavailable, ContextNotFound) as error:
                    outage = outage or Outage(self._settings.ocs_patience_seconds)
                    if isinstance(error, ContextNotFound) and not outage.begun_anew:
                        await self._begin_anew(session)
                        outage.begun_anew = True
                    else:
                        await self._wait(session, outage, error)
                    continue
            except TROUBLE as error:
                log.warning("the database does not answer: %s", error)
                await asyncio.sleep(1)
                continue
            if not more:
                outage = None
            if not told:
                await self._pause(seid, random.uniform(0.5, 1) * again)
                again = min(again * 2, TELL_SECONDS[1])
                continue
            if not more and seid not in self._dirty:
                if session.deleted:
                    self.switch.forget(seid)
                return

    async def _wait(self, session: Session, outage: Outage, error: OcsUnavailable | ContextNotFound) -> None:
        """Wait until the OCS may be asked again; what has to be done with the traffic meanwhile is done in time."""
        again = outage.again_at(error)
        # What the UPF does not take is told again after the next attempt.
        tried = False
        while True:
            if not (outage.decided or tried) and outage.decision_at() <= time.monotonic():
                outage.decided = await self._without_ocs(session.seid, outage)
                tried = True
            if (now := time.monotonic()) >= again:
                return
            until = again if outage.decided or tried else min(again, outage.decision_at())
            await self._pause(session.seid, max(0.0, until - now))
            if outage.handling == CONTINUE and session.seid in self._dirty:
                # A quota that was given on trust is used: another one.
                self._dirty.discard(session.seid)
                outage.decided = tried = False

    async def _pause(self, seid: int, seconds: float) -> None:
        """Wait so long, or until there is something new of a session."""
        news = self._news[seid] = asyncio.Event()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), seconds)
        finally:
            del self._news[seid]

    async def _send_next(self, session: Session, pending: Pending | None) -> tuple[bool, bool]:
        """Send the oldest request that is owed, and tell the UPF what the last one's answer says.

        Whether more is owed to the OCS, and whether the UPF does what it shall. Raises OcsUnavailable, ContextNotFound.
        """
        assert session.imsi is not None
        seid = session.seid
        verdict: Verdict | None = None
        if session.nchf_ref is None and (pending is not None or not session.deleted):
            with OCS_SECONDS.time():
                verdict = await self._nchf.create(session.imsi, seid, session.dnn)
            if verdict.ref is not None:
                # Due at once until the answer is applied, in case we die before.
                await self._store.update(seid, nchf_ref=verdict.ref, renew_seconds=0.0)
                if pending is not None:
                    return True, True
                now = await self._store.session(seid)
                if now is not None and (now.deleted or seid in self._dirty):
                    # Ended meanwhile, when there was nothing to release; or the OCS has said something since.
                    await self._take(seid, [], release=now.deleted)
                    return True, True
            elif session.deleted:
                lost = await self._store.give_up(seid)
                LOST.inc(lost)
                log.warning("an ended session's use is nobody's", extra={"seid": seid, "octets": lost})
            pending = None
        elif pending is not None:
            assert session.nchf_ref is not None
            with OCS_SECONDS.time():
                verdict = await self._nchf.report(
                    session.imsi, seid, session.nchf_ref, pending.sequence, pending.used, release=pending.release
                )
        told = True
        if verdict is not None and not session.deleted:
            # A first answer is overtaken by those to requests that came meanwhile.
            since = session.nchf_sequence if pending is None else pending.sequence
            told = await self._apply(seid, verdict, since=since)
        elif session.untold:
            told = await self._tell(seid)
        if pending is None:
            return False, told
        # Not before: who dies in between asks again and is answered the same.
        await self._store.settled(pending)
        return pending.followed, told

    async def _begin_anew(self, session: Session) -> None:
        """The OCS has lost a charging session: the use that it did not take goes into a new one."""
        CONTEXTS.inc()
        log.warning("the OCS does not know a charging session; another one is begun", extra={"seid": session.seid})
        await self._store.update(session.seid, nchf_ref=None)

    async def _without_ocs(self, seid: int, outage: Outage) -> bool:
        """The gate while there is no answer: closed, unless it is open and the OCS has said that traffic is to go on.

        Whether the UPF has taken it.
        """
        session, pending = await self._store.owing_session(seid)
        if session is None or (pending is None and session.nchf_ref is not None):
            # Another instance has had the answer.
            return await self._tell(seid)
        if outage.handling != CONTINUE:
            log.warning("no credit without the OCS: %s", outage.cause, extra={"seid": seid})
            return await self._apply(seid, Verdict(0), without_ocs=True)
        if not session.open:
            return await self._tell(seid)
        TRUSTED.inc()
        log.warning("a quota on trust, without the OCS: %s", outage.cause, extra={"seid": seid})
        return await self._apply(seid, Verdict(self._settings.quota_octets, throttle=session.throttle))

    async def _apply(self, seid: int, verdict: Verdict, *, since: int | None = None, without_ocs: bool = False) -> bool:
        """Whether the UPF does what the OCS said, in answer to the request `since`."""
        async with self._reports(seid) as own:
            told, renewal = await self.switch.apply(seid, verdict, own, since=since, without_ocs=without_ocs)
        if renewal is not None:
            self.renewals.note(seid, renewal)
        return told

    async def _tell(self, seid: int) -> bool:
        async with self._reports(seid) as own:
            return await self.switch.tell(seid, own)

    @contextlib.asynccontextmanager
    async def _reports(self, seid: int) -> AsyncIterator[list[rules.Report]]:
        """What the UPF reports while it is told something is owed, whatever is raised: it does not say it again."""
        own: list[rules.Report] = []
        try:
            yield own
        finally:
            if own:
                await self.owe(seid, own)
