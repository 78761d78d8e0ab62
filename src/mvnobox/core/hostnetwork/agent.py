"""The test peer's agent: phones commanded over a local socket with one JSON object a line, as the simulated core's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from mvnobox.core.hostnetwork.mme import Mme
from mvnobox.core.hostnetwork.phone import Phone
from mvnobox.core.hostnetwork.settings import HostNetworkSettings
from mvnobox.core.hostnetwork.sgw import Rejected, ServingGateway
from mvnobox.core.sim.phone import Sim, Unusable
from mvnobox.core.sim.tun import HostError, forget_routes
from mvnobox.core.sim.ue_tunnel import ROUTING_TABLE, Tunnels
from mvnobox.core.sim.upf import gtp_socket

log = logging.getLogger(__name__)
REQUEST_SECONDS = 10.0
PHONES = 64
_NOBODY: dict[str, Any] = {
    "registered": False, "imsi": None, "address": None, "interface": None, "released": "",
    "recoveries": 0, "receivedOctets": 0, "sentOctets": 0,
}  # fmt: skip


class Agent:
    """A host network's stand-in: one MME, one serving gateway, some phones."""

    def __init__(self, settings: HostNetworkSettings, tunnels: Tunnels | None = None) -> None:
        """`tunnels` stand in for TUN devices where there are none."""
        self._settings, self._tunnels = settings, tunnels
        self._state = Path(settings.state)
        self.mme = Mme(settings)
        self.gateway = ServingGateway(settings)
        self._phones: dict[str, Phone] = {}

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return "not started" if self._tunnels is None else self.mme.s6a.problem

    @property
    def socket_path(self) -> Path:
        return self._state / "ue.sock"

    def _restarts(self) -> int:
        """The restart counter: one more than last time (TS 23.007 clause 18); by the clock where none is kept."""
        path = self._state / "restarts"
        try:
            count = int(path.read_text()) + 1
        except (OSError, ValueError):
            count = int(time.time())
        path.write_text(str(count & 0xFF))
        return count & 0xFF

    async def run(self) -> None:
        """Serve commands until cancelled."""
        self._state.mkdir(parents=True, exist_ok=True)
        self.socket_path.unlink(missing_ok=True)
        await self.gateway.start(self._restarts())
        if self._tunnels is None:
            # Rules of an earlier process in the same network namespace; its devices went with it.
            for index in range(PHONES):
                forget_routes(ROUTING_TABLE + index)
            self._tunnels = Tunnels(gtp_socket(self._settings.listen), plain=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._command, self.socket_path)
        finally:
            os.umask(before)
        log.info("a host network's stand-in is waiting for commands: a test peer, not a network")
        s6a = asyncio.ensure_future(self.mme.s6a.run())
        parts = [s6a, asyncio.ensure_future(self.gateway.watch()), asyncio.ensure_future(server.serve_forever())]
        try:
            # Unlike gather it leaves them running when it is cancelled: phones still have to say good-bye.
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            self.socket_path.unlink(missing_ok=True)
            for phone in list(self._phones.values()):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(phone.deregister(), 2)
            for one in parts:
                one.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            self.gateway.close()

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await asyncio.wait_for(reader.readline(), REQUEST_SECONDS))
            answer = await self._run(request)
        except (HostError, Unusable, Rejected) as error:
            answer = {"ok": False, "registered": False, "cause": str(error)}
        except (ValueError, KeyError, TypeError, TimeoutError, OSError) as error:
            answer = {"ok": False, "cause": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps({"testPeer": True, **answer}).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request["command"]
        if command == "register":
            return await self._register(Sim.parse(request["sim"]), beside=bool(request.get("beside")))
        if command == "echo":
            await self.gateway.echo()
            return {"ok": True}
        phone = self._phone(request.get("imsi"))
        match command:
            case "status":
                return {"ok": True, **(phone.status() if phone is not None else _NOBODY)}
            case "deregister":
                if phone is not None:
                    del self._phones[phone.sim.imsi]
                    await phone.deregister()
                return {"ok": True}
            case "session":
                return await phone.new_session() if phone is not None else {"ok": False, "cause": "not registered"}
        return {"ok": False, "cause": f"no such command: {str(command)[:60]}"}

    def _phone(self, imsi: object) -> Phone | None:
        """The phone that is meant: by IMSI, or the one that was registered last."""
        if imsi is not None:
            return self._phones.get(str(imsi))
        return next(reversed(self._phones.values()), None)

    async def _register(self, sim: Sim, *, beside: bool) -> dict[str, Any]:
        for imsi in list(self._phones):
            if imsi == sim.imsi or not beside:
                await self._phones.pop(imsi).deregister()
        if len(self._phones) >= PHONES:
            return {"ok": False, "cause": f"{PHONES} phones are the most"}
        if self._tunnels is None:
            return {"ok": False, "cause": "not started"}
        charging = bytes.fromhex(self._settings.charging)
        phone = Phone(sim, self.mme, self.gateway, self._tunnels, self._state, charging)
        self._phones[sim.imsi] = phone
        try:
            answer = await phone.register()
        except BaseException:
            self._phones.pop(sim.imsi, None)
            raise
        if not answer["ok"]:
            self._phones.pop(sim.imsi, None)
        return answer
