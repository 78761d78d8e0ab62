"""The sessions on the UPF: what they shall be there is kept first, then told until the UPF has taken it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import defaultdict
from typing import Any

from prometheus_client import Counter

from mvnobox.n4 import forwarding, rules
from mvnobox.n4.nchf import Verdict
from mvnobox.n4.renewal import renew_in
from mvnobox.n4.rows import Session
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.store import Store
from mvnobox.n4.upf import Upf
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Cause, Ie, IeType, Message, PfcpError, Type
from mvnobox.pfcp.endpoint import NoAnswer

log = logging.getLogger(__name__)
GATES = Counter("ctf_gate_total", "Gate changes", ["to"])
THROTTLES = Counter("ctf_throttle_total", "Sessions slowed down and let go again", ["to"])
UNTOLD = Counter("ctf_untold_total", "Changes that the UPF did not take and that are told again")
# A session that the UPF does not have lets nothing pass.
_TOLD = (Cause.ACCEPTED, Cause.SESSION_NOT_FOUND)
# What the UPF reported by the CTF's rule with its answer.
Reports = list[rules.Report]


class Switch:
    """Opens and closes gates, sets limits and rates."""

    def __init__(self, settings: CtfSettings, store: Store, upf: Upf) -> None:
        self._settings, self._store, self._upf = settings, store, upf
        # Held while a session's rules change on the UPF.
        self.locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Set when the sessions that are slowed down, or their rates, may be others than before.
        self.throttled = asyncio.Event()
        # Sessions as they were when their rules changed last.
        self._remembered: dict[int, Session] = {}

    def limits(self, verdict: Verdict) -> rules.Limits:
        """What the UPF is told for an answer of the OCS."""
        quantum = self._settings.reporting_quantum_octets
        return rules.limits(verdict.granted, quantum=quantum, final=verdict.final)

    def remembered(self, seid: int) -> Session | None:
        """A session as it was when its rules changed last; for while the database is away."""
        return self._remembered.get(seid)

    def remember(self, session: Session) -> None:
        """Keep a session for `remembered`, until it is forgotten."""
        self._remembered[session.seid] = session

    def forget(self, seid: int) -> None:
        """A session has ended and owes nothing."""
        self.locks.pop(seid, None)
        self._remembered.pop(seid, None)

    async def begin(self, session: Session, verdict: Verdict, own: Reports) -> tuple[bool, float | None]:
        """The OCS's first word on a session that the UPF has closed: the UPF is told, then it is kept with the outcome.

        Whoever finds the session as it was added asks the OCS again, is answered the same, and tells the UPF again; use
        is counted from its first packet.

        Whether the UPF has taken it, and seconds until the quota has to be renewed (None: another instance sees to it).
        `session` becomes what is kept; the UPF's reports are added to `own`, whatever is raised.
        """
        seid = session.seid
        async with self.locks[seid]:
            kept = await self._store.session(seid)
            if kept is None:
                # A database that crashed meanwhile: see `rows.INSERT`.
                await self._store.add(session)
            elif kept.deleted:
                session.deleted = True
                if verdict.ref is not None:
                    await self._store.update(seid, nchf_ref=verdict.ref)
                return True, None
            elif kept.nchf_ref is not None and (verdict.ref is None or kept.nchf_sequence or not kept.untold):
                # Another instance has had the answer, and has gone on.
                session.open = kept.open
                return True, None
            else:
                # The SMF may have changed them.
                session.forwarding, session.qers = kept.forwarding, kept.qers
            revision = 0 if kept is None else kept.revision
            session.open, session.limits, session.throttle = verdict.granted > 0, self.limits(verdict), verdict.throttle
            session.nchf_ref, session.renew_seconds = verdict.ref, renew_in(verdict.validity)
            told = True
            if session.open:
                ies = [
                    rules.update_urr(session.own_urr, session.limits),
                    *forwarding.gate(session.forwarding, open_=True, detour=self._upf.detour(seid)),
                    *(rules.rates(session.qers, session.throttle) if session.throttle is not None else ()),
                ]
                cause, reports = await self._ask_upf(session, ies)
                own += reports
                told = cause in _TOLD
            session.untold, session.behind_gate = not told, not session.open
            await self._store.answered(session)
            kept = await self._store.session(seid)
            if kept is not None:
                # What is not under the lock: the end of all sessions of a UPF, and other instances.
                session.deleted, session.revision = kept.deleted, kept.revision
                as_kept = (kept.revision, kept.open, kept.limits, kept.untold, kept.behind_gate)
                ours = (revision + 1, session.open, session.limits, session.untold, session.behind_gate)
                if as_kept != ours and not kept.deleted:
                    session.open, told = kept.open, False
                    await self._store.update(seid, untold=True)
            self.remember(session)
        if session.throttle is not None:
            self.throttled.set()
        return told, session.renew_seconds

    async def apply(
        self, seid: int, verdict: Verdict, own: Reports, *, since: int | None = None, without_ocs: bool = False
    ) -> tuple[bool, float | None]:
        """Let the UPF know what the OCS said: limits, rates, and the gate open or closed.

        Whether it has taken it, and seconds until the quota has to be renewed (None: as before); its reports are added to
        `own`, whatever is raised. Nothing is told where there has been a later request than the one that was answered,
        `since`: that one's answer decides, which another instance may have told already. `without_ocs`: it did not say it,
        and has to be asked again.
        """
        open_ = verdict.granted > 0
        renewal = renew_in(verdict.validity) if open_ else None
        more: dict[str, Any] = {"without_ocs": without_ocs}
        if renewal is not None:
            more["renew_seconds"] = renewal
        async with self.locks[seid]:
            # Again where another instance has written since it was read.
            while True:
                session = await self._store.session(seid)
                if session is None or session.deleted or session.upf_seid is None:
                    return True, None
                if since is not None and session.nchf_sequence > since:
                    return True, None
                if not open_ and not session.open and not session.untold:
                    new = session.without_ocs and not without_ocs
                    if (
                        not new
                        or await self._store.update(seid, revision=session.revision, since=since, **more) is not None
                    ):
                        return True, None
                    continue
                wanted = dataclasses.replace(session, open=open_, limits=self.limits(verdict))
                if open_:
                    # Behind a closed gate the rate is what it was; the answer that opens it says what it will be.
                    wanted.throttle = verdict.throttle
                told = await self._change(session, wanted, own, since=since, **more)
                if told is not None:
                    return told, renewal

    async def close(self, seid: int) -> bool:
        """Keep it that a gate shall be closed, without telling. False for an unknown session."""
        async with self.locks[seid]:
            session = await self._store.session(seid)
            if session is None or session.deleted:
                return False
            if session.open:
                await self._store.update(seid, open=False, limits=rules.CLOSED, untold=True)
            return True

    async def tell(self, seid: int, own: Reports) -> bool:
        """Let the UPF know what it has not taken before. Whether it has taken it now; its reports are added to `own`."""
        async with self.locks[seid]:
            while True:
                session = await self._store.session(seid)
                if session is None or session.deleted or session.upf_seid is None or not session.untold:
                    return True
                told = await self._change(session, session, own)
                if told is not None:
                    return told

    async def used(self, seid: int) -> Reports | None:
        """What a session has used since its last report, so far as the UPF tells; None for one that is none (any more).

        Some user planes (Open5GS) do not know the query and report nothing.
        """
        async with self.locks[seid]:
            session = await self._store.session(seid)
            if session is None or session.deleted or session.upf_seid is None:
                return None
            if not session.open:
                return []
            _, own = await self._ask_upf(session, [rules.query_urr(session.own_urr)])
            return own

    async def _change(
        self, session: Session, wanted: Session, own: Reports, *, since: int | None = None, **more: Any
    ) -> bool | None:
        """Keep what the UPF shall do, with `more` columns, and tell it: all of it, where it did not take the one before.

        Whether it has taken it; its reports are added to `own`. The session's lock is held, of which another instance knows
        nothing: the session's revision tells of it. None: that one has written since `session` was read, nothing is told.
        Where it has written since then it is not known whom the UPF heard last: False, and what is kept is to be told.
        """
        self.remember(session)
        turns = session.untold or wanted.open == session.behind_gate or wanted.open != session.open
        slows = wanted.open and (session.untold or wanted.throttle != session.throttle)
        kept = {
            "open": wanted.open,
            "limits": wanted.limits,
            "untold": turns or slows,
            "behind_gate": session.behind_gate,
        }
        if wanted.throttle != session.throttle:
            kept["throttle"] = wanted.throttle
        if wanted.open:
            # An open gate counts from the first packet.
            kept["behind_gate"] = False
        # Kept first: if we die now, the next one tells it. A new quota alone does not wait for the disk: the request that it
        # answers stays until the UPF has been told.
        revision = await self._store.update(
            session.seid, lazily=not (turns or slows), revision=session.revision, since=since, **kept, **more
        )
        if revision is None:
            return None
        # A quota counts from the last report, so it is told anew even where it is the same number.
        ies: list[Ie] = [rules.update_urr(session.own_urr, wanted.limits)]
        if turns:
            ies += forwarding.gate(session.forwarding, open_=wanted.open, detour=self._upf.detour(session.seid))
        if slows:
            ies += rules.rates(session.qers, wanted.throttle)
        cause, reports = await self._ask_upf(session, ies)
        own += reports
        told = cause in _TOLD
        after = {"untold": not told, "behind_gate": not wanted.open if told else session.behind_gate}
        if after == {name: kept[name] for name in after}:
            now = await self._store.session(session.seid)
            alone = now is not None and now.revision == revision
        else:
            alone = await self._store.update(session.seid, revision=revision, **after) is not None
        if not alone:
            await self._store.update(session.seid, untold=True)
        elif told:
            self._told(session, wanted, slows=slows)
        if not (alone and told):
            UNTOLD.inc()
        return alone and told

    async def _ask_upf(self, session: Session, ies: list[Ie]) -> tuple[int, Reports]:
        """Change a session on the UPF: its cause (0: no answer) and what it reported by the CTF's rule."""
        assert session.upf_seid is not None
        try:
            made = await self._upf.request(Message(Type.SESSION_MODIFICATION_REQUEST, 0, ies, seid=session.upf_seid))
            own, _ = rules.split_usage(made.ies, session.own_urr)
            cause = codec.number(made.first(IeType.CAUSE), 1)
        except (NoAnswer, OSError, PfcpError) as error:
            log.warning("the UPF did not take a change: %s", error, extra={"seid": session.seid})
            return 0, []
        if cause != Cause.ACCEPTED:
            log.warning("the UPF did not take a change: cause %s", cause, extra={"seid": session.seid})
        return cause, own

    def _told(self, session: Session, wanted: Session, *, slows: bool) -> None:
        """The UPF does what the OCS said."""
        told = {"seid": session.seid, "quota": wanted.limits.quota}
        if wanted.open == session.behind_gate:
            GATES.labels("open" if wanted.open else "closed").inc()
            log.info("gate %s", "opened" if wanted.open else "closed", extra=told)
        if slows and (wanted.throttle != session.throttle or wanted.throttle is not None):
            self.throttled.set()
            THROTTLES.labels("lifted" if wanted.throttle is None else "slowed").inc()
            rate = None if wanted.throttle is None else f"{wanted.throttle.downlink} bit/s"
            log.info("throttle %s", "lifted" if rate is None else f"of {rate}", extra=told)
            if not session.qers:
                log.warning("a session without QERs cannot be slowed down on N4", extra={"seid": session.seid})
