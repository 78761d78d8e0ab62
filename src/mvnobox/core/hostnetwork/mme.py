"""The MME's part on S6a: who is attached, with which subscription, and what the HSS changes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mvnobox.core.hostnetwork import eps_aka, ies, s6a
from mvnobox.core.hostnetwork.diameter_peer import DiameterPeer, Unreachable
from mvnobox.core.hostnetwork.s6a import Content, Refused, Subscription
from mvnobox.core.hostnetwork.settings import HostNetworkSettings
from mvnobox.core.sim import aka
from mvnobox.core.sim.phone import Numbers, Sim
from mvnobox.diameter.codec import DiameterError, Header
from mvnobox.diameter.codes import Avp, Result

log = logging.getLogger(__name__)
_CAUSES = {0: "another MME has the phone", 2: "the subscription is withdrawn"}


class Mme:
    """S6a. `on_detached` of a phone is called when the HSS sends it away, with the reason."""

    def __init__(self, settings: HostNetworkSettings) -> None:
        self._settings = settings
        self.network = ies.plmn(settings.plmn.mcc, settings.plmn.mnc)
        hss = settings.hss
        self.s6a = DiameterPeer(settings.mme.host, settings.mme.realm, (hss.address, hss.port), self._requested)
        self._attached: dict[str, tuple[Subscription, Callable[[str], None]]] = {}

    async def _ask(self, name: str, command: int, imsi: str, body: bytes) -> Content:
        hss = self._settings.hss
        common = s6a.session(self.s6a.own, imsi, hss.host, hss.realm)
        try:
            return s6a.expect_success(await self.s6a.request(command, common + body), name)
        except DiameterError as error:
            raise Unreachable(f"no S6a: {name}'s answer: {error.reason}") from None

    async def authenticate(self, sim: Sim, numbers: Numbers) -> None:
        """AIR, the SIM's answer, the comparison; once more where the SIM's numbers are ahead (TS 33.401 clause 6.1).

        Raises Unreachable, Refused, aka.MacFailure, eps_aka.NotTheSim.
        """
        again: bytes | None = None
        for _ in range(2):
            body = s6a.authentication_information(self.network, again)
            answer = await self._ask("AIR", s6a.Command.AUTHENTICATION_INFORMATION, sim.imsi, body)
            try:
                vector = s6a.vector(answer)
            except DiameterError as error:
                raise Unreachable(f"no S6a: {error.reason}") from None
            try:
                res, kasme = eps_aka.answer(sim.k, sim.opc, numbers.state, self.network, vector.rand, vector.autn)
            except aka.SynchronisationFailure as failure:
                again = vector.rand + failure.auts
                continue
            numbers.keep()
            eps_aka.compare(vector, res, kasme)
            return
        raise eps_aka.NotTheSim("Authentication Reject: the HSS does not catch up with the SIM's sequence number")

    async def update_location(self, imsi: str, on_detached: Callable[[str], None]) -> Subscription:
        """ULR: the HSS then knows where the phone is. Raises Unreachable, Refused."""
        body = s6a.update_location(self.network)
        answer = await self._ask("ULR", s6a.Command.UPDATE_LOCATION, imsi, body)
        try:
            found = s6a.subscription(answer)
        except DiameterError as error:
            raise Unreachable(f"no S6a: the subscription: {error.reason}") from None
        self._attached[imsi] = found, on_detached
        return found

    def subscription(self, imsi: str) -> Subscription | None:
        """What the HSS has last said of an attached phone."""
        known = self._attached.get(imsi)
        return known[0] if known else None

    async def purge(self, imsi: str) -> None:
        """PUR: the phone is gone and forgotten here. Raises Unreachable, Refused."""
        if self._attached.pop(imsi, None) is not None:
            await self._ask("PUR", s6a.Command.PURGE_UE, imsi, b"")

    # -- what the HSS asks

    def _requested(self, header: Header, content: Content) -> bytes:
        imsi, session_id = content.text(Avp.USER_NAME), content.octets(Avp.SESSION_ID)
        if imsi is None or session_id is None:
            raise DiameterError(Result.MISSING_AVP, "a request without Session-Id or User-Name")
        if header.command == s6a.Command.CANCEL_LOCATION:
            # Success also where the phone is not known (clause 5.2.1.2.1).
            known = self._attached.pop(imsi, None)
            if known is not None:
                kind = content.number(s6a.CANCELLATION_TYPE)
                known[1](f"Cancel Location: {_CAUSES.get(kind or 0, f'type {kind}')}")
            return s6a.acknowledgement(self.s6a.own, session_id, Result.SUCCESS)
        if header.command == s6a.Command.INSERT_SUBSCRIBER_DATA:
            known = self._attached.get(imsi)
            if known is None:
                return s6a.acknowledgement(self.s6a.own, session_id, s6a.USER_UNKNOWN)
            changed = known[0].updated(s6a.subscription(content))
            self._attached[imsi] = changed, known[1]
            log.info("subscription changed", extra={"testPeer": True, "imsi": imsi, "barred": bool(changed.barred)})
            if changed.barred:
                del self._attached[imsi]
                known[1]("Detach Request: the subscriber is barred")
            return s6a.acknowledgement(self.s6a.own, session_id, Result.SUCCESS)
        raise DiameterError(Result.COMMAND_UNSUPPORTED, "this command is not served")


__all__ = ["Mme", "Refused", "Unreachable"]
