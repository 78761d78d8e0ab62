"""The UE's agent: phones in a pod, commanded over a local socket with one JSON object a line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from mvnobox.core.sim.phone import Lost, Phone, Sim, Unusable
from mvnobox.core.sim.settings import UeSettings
from mvnobox.core.sim.tun import HostError, forget_routes
from mvnobox.core.sim.ue_tunnel import ROUTING_TABLE, Tunnels
from mvnobox.core.sim.upf import gtp_socket

log = logging.getLogger(__name__)
REQUEST_SECONDS = 10.0
PHONES = 64


class Ue:
    """The phones of one pod (a simulation)."""

    def __init__(self, settings: UeSettings) -> None:
        self._settings = settings
        self._state = Path(settings.state)
        self._phones: dict[str, Phone] = {}
        self._tunnels: Tunnels | None = None

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return None if self._tunnels is not None else "not started"

    @property
    def socket_path(self) -> Path:
        return self._state / "ue.sock"

    async def run(self) -> None:
        """Serve commands until cancelled."""
        self._state.mkdir(parents=True, exist_ok=True)
        self.socket_path.unlink(missing_ok=True)
        # Rules of an earlier process in the same network namespace; its devices went with it.
        for index in range(PHONES):
            forget_routes(ROUTING_TABLE + index)
        self._tunnels = Tunnels(gtp_socket())
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._command, self.socket_path)
        finally:
            os.umask(before)
        log.info("simulated UE is waiting for commands", extra={"simulation": True})
        try:
            await server.serve_forever()
        finally:
            server.close()
            self.socket_path.unlink(missing_ok=True)
            for phone in list(self._phones.values()):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(phone.deregister(), 2)

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await asyncio.wait_for(reader.readline(), REQUEST_SECONDS))
            answer = await self._run(request)
        except (Lost, HostError, Unusable) as error:
            answer = {"ok": False, "registered": False, "cause": str(error)}
        except (ValueError, KeyError, TypeError, TimeoutError, OSError) as error:
            answer = {"ok": False, "cause": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps({"simulation": True, **answer}).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request["command"]
        if command == "register":
            return await self._register(Sim.parse(request["sim"]), beside=bool(request.get("beside")))
        phone = self._phone(request.get("imsi"))
        match command:
            case "status":
                known = {"ok": True, "phones": [one.status() for one in self._phones.values()]}
                return known | (phone.status() if phone is not None else _NOBODY)
            case "deregister":
                if phone is not None:
                    del self._phones[phone.sim.imsi]
                    await phone.deregister()
                return {"ok": True}
            case "session" | "idle" | "service-request" if phone is None:
                return {"ok": False, "cause": "not registered"}
            case "session" if phone is not None:
                return await phone.new_session()
            case "idle" if phone is not None:
                return await phone.idle()
            case "service-request" if phone is not None:
                return await phone.service_request()
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
        assert self._tunnels is not None
        phone = Phone(sim, self._settings.smf, self._state, self._tunnels)
        self._phones[sim.imsi] = phone
        try:
            answer = await phone.register()
        except BaseException:
            self._phones.pop(sim.imsi, None)
            raise
        if not answer["ok"]:
            self._phones.pop(sim.imsi, None)
        return answer


_NOBODY = {
    "registered": False, "imsi": None, "address": None, "address6": None, "interface": None, "released": "",
    "recoveries": 0, "receivedOctets": 0, "sentOctets": 0,
}  # fmt: skip
