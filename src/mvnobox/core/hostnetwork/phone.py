"""One phone on the stand-in's cell: attach, PDN connection, what network and user plane take away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from pathlib import Path
from typing import Any

from mvnobox.core.hostnetwork.eps_aka import NotTheSim
from mvnobox.core.hostnetwork.mme import Mme, Refused, Unreachable
from mvnobox.core.hostnetwork.s6a import PDN_IPV6, Subscription
from mvnobox.core.hostnetwork.sgw import Connection, Rejected, ServingGateway, Wanted
from mvnobox.core.sim import aka, gtpu
from mvnobox.core.sim.phone import Numbers, Sim
from mvnobox.core.sim.tun import HostError
from mvnobox.core.sim.ue_tunnel import Tunnel, Tunnels

log = logging.getLogger(__name__)
DEFAULT_MTU = 1400
# Pauses between attempts to get a PDN connection back, the last one again and again, and how many there are.
PAUSES, ATTEMPTS = (0.5, 1.0, 2.0, 3.0), 200


class Phone:
    """The attachment of one SIM."""

    def __init__(
        self, sim: Sim, mme: Mme, gateway: ServingGateway, tunnels: Tunnels, state: Path, charging: bytes
    ) -> None:
        self.sim, self._mme, self._gateway, self._tunnels = sim, mme, gateway, tunnels
        self._charging = charging
        self._numbers = Numbers(state, sim.imsi)
        self._turn = asyncio.Lock()
        self._recovery: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None
        self._carried = (0, 0)
        self.tunnel: Tunnel | None = None
        self.attached = False
        self.released = ""
        self.recoveries = 0

    def status(self) -> dict[str, Any]:
        """What is known of the phone; octets since `register`, whatever the network took away in between."""
        received, sent = self._carried
        if self.tunnel is not None:
            more = self.tunnel.octets()
            received, sent = received + more[0], sent + more[1]
        return {
            "registered": self.tunnel is not None,
            "imsi": self.sim.imsi,
            "address": self.tunnel.address if self.tunnel is not None else None,
            "interface": self.tunnel.name if self.tunnel is not None else None,
            "released": self.released,
            "recoveries": self.recoveries,
            "receivedOctets": received,
            "sentOctets": sent,
        }

    # Commands ------------------------------------------------------------------------------------------------------

    async def register(self) -> dict[str, Any]:
        """Attach: authentication, location update, PDN connection; what happened, step by step. Raises HostError."""
        steps: list[dict[str, Any]] = []
        answer: dict[str, Any] = {"ok": False, "registered": False, "steps": steps}
        async with self._turn:
            try:
                await self._timed(steps, "authentication", self._authenticate())
                await self._timed(steps, "location update", self._update_location())
                self.attached = True
                await self._timed(steps, "PDN connection", self._connect())
            except (Refused, Unreachable, Rejected, NotTheSim) as error:
                await self._leave()
                return answer | {"cause": str(error)}
        return answer | self._accepted() | {"ok": True, "registered": True, "cause": None}

    async def new_session(self) -> dict[str, Any]:
        """The PDN connection anew, on the attachment that there is. Raises HostError."""
        async with self._turn:
            try:
                await self._disconnect()
                await self._connect()
            except (Unreachable, Rejected) as error:
                return {"ok": False, "cause": str(error)}
        return {"ok": True, "cause": None, **self._accepted()}

    async def deregister(self) -> None:
        """Detach: Delete Session and Purge UE."""
        if self._recovery is not None:
            self._recovery.cancel()
        async with self._turn:
            await self._leave()

    # Steps ---------------------------------------------------------------------------------------------------------

    @staticmethod
    async def _timed(steps: list[dict[str, Any]], name: str, work: Any) -> None:
        began, cause = time.monotonic(), None
        try:
            await work
        except Exception as error:
            cause = str(error)
            raise
        finally:
            seconds = round(time.monotonic() - began, 3)
            steps.append({"step": name, "seconds": seconds, "ok": cause is None, "cause": cause})

    async def _authenticate(self) -> None:
        try:
            await self._mme.authenticate(self.sim, self._numbers)
        except aka.MacFailure:
            raise NotTheSim("MAC failure: AUTN was not made with this SIM's key") from None

    async def _update_location(self) -> None:
        found = await self._mme.update_location(self.sim.imsi, self._detached)
        if found.barred:
            raise NotTheSim("Attach Reject: the subscriber is barred")

    async def _connect(self) -> None:
        subscription = self._mme.subscription(self.sim.imsi)
        if subscription is None:
            raise Unreachable("not attached")
        connection, teid = await self._create(subscription)
        self._connection = connection
        try:
            tunnel = self._tunnels.open(connection.address, connection.mtu or DEFAULT_MTU, self._lost, teid)
        except HostError:
            await self._disconnect()
            raise
        tunnel.upf, tunnel.uplink_teid = (connection.user.address, gtpu.PORT), connection.user.teid
        self.tunnel, self.released = tunnel, ""

    async def _create(self, subscription: Subscription) -> tuple[Connection, int]:
        apn = subscription.apn(self.sim.dnn)
        if apn is None:
            known = ", ".join(one.name for one in subscription.apns or ()) or "none"
            raise Rejected(f"Missing or unknown APN (ESM cause 27): {self.sim.dnn} is not subscribed, {known} is")
        if apn.pdn_type == PDN_IPV6:
            raise Rejected(f"the APN {apn.name} is for IPv6 only, which this peer has not")
        teid = secrets.randbits(31) + 1
        charging = bytes.fromhex(subscription.charging) if subscription.charging else self._charging
        wanted = Wanted(
            self.sim.imsi, subscription.msisdn, apn, self.sim.dnn, subscription.ambr, charging, teid
        )  # fmt: skip
        return await self._gateway.create(wanted, self._released), teid

    def _accepted(self) -> dict[str, Any]:
        assert self._connection is not None and self.tunnel is not None
        return {
            "address": self._connection.address,
            "mtu": self._connection.mtu or DEFAULT_MTU,
            "dns": list(self._connection.dns),
            "interface": self.tunnel.name,
        }

    async def _disconnect(self) -> None:
        """Take the PDN connection down; a gateway that does not answer keeps nobody here."""
        self._drop_tunnel()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Rejected):
                await self._gateway.delete(connection)

    async def _leave(self) -> None:
        self.attached = False
        await self._disconnect()
        with contextlib.suppress(Unreachable, Refused):
            await self._mme.purge(self.sim.imsi)

    def _drop_tunnel(self) -> None:
        if self.tunnel is not None:
            self._tunnels.close(self.tunnel)
            self._carried = (self._carried[0] + self.tunnel.received, self._carried[1] + self.tunnel.sent)
            self.tunnel = None

    # What the network takes away -----------------------------------------------------------------------------------

    def _detached(self, why: str) -> None:
        """The HSS sends the phone away."""
        log.info("detached: %s", why, extra={"imsi": self.sim.imsi, "testPeer": True})
        self.released, self.attached = why, False
        if self._recovery is not None:
            self._recovery.cancel()
        self._drop_tunnel()
        connection, self._connection = self._connection, None
        if connection is not None:
            task = asyncio.ensure_future(self._delete(connection))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _delete(self, connection: Connection) -> None:
        with contextlib.suppress(Rejected):
            await self._gateway.delete(connection)

    def _lost(self) -> None:
        """The user plane does not know the tunnel (error indication): the connection is gone (TS 23.007 clause 21)."""
        if self._connection is not None:
            self._gateway.forget(self._connection)
        self._released("the user plane does not know the tunnel")

    def _released(self, why: str) -> None:
        log.info("PDN connection lost: %s", why, extra={"imsi": self.sim.imsi, "testPeer": True})
        self.released, self._connection = why, None
        self._drop_tunnel()
        if self.attached and (self._recovery is None or self._recovery.done()):
            self._recovery = asyncio.ensure_future(self._come_back())

    async def _come_back(self) -> None:
        """Ask for the PDN connection until there is one: after a top-up it is given again."""
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            async with self._turn:
                if not self.attached or self.tunnel is not None:
                    return
                try:
                    await self._connect()
                except (Unreachable, Rejected, HostError) as error:
                    self.released = str(error)
                    continue
                self.recoveries += 1
                log.info("the PDN connection is back", extra={"imsi": self.sim.imsi, "testPeer": True})
                return
