"""A test peer between a scripted HSS and a scripted packet gateway, with tunnels that are none."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

from hostnetwork_peers import Hss, Pgw
from tests.ports import free_port

from mvnobox.core.hostnetwork.agent import Agent
from mvnobox.core.hostnetwork.settings import HostNetworkSettings
from mvnobox.core.sim.ue_tunnel import Tunnel, Tunnels


class Tubes:
    """In the place of TUN devices: what would have been opened. A user plane needs privileges that CI may not have."""

    def __init__(self) -> None:
        self.now: list[Tunnel] = []
        self.opened = 0

    def open(self, address: str, mtu: int, on_lost: Callable[[], None], teid: int | None = None) -> Tunnel:
        self.opened += 1
        tunnel = Tunnel(len(self.now), "none0", address, -1, teid or 0, on_lost)
        self.now.append(tunnel)
        return tunnel

    def close(self, tunnel: Tunnel) -> None:
        # What the device has carried.
        tunnel.received, tunnel.sent = tunnel.received + 1000, tunnel.sent + 100
        self.now.remove(tunnel)


class Lab:
    """HSS, packet gateway and the test peer, which is asked by its socket."""

    def __init__(self, hss: Hss, pgw: Pgw, agent: Agent, tubes: Tubes) -> None:
        self.hss, self.pgw, self.agent, self.tubes = hss, pgw, agent, tubes

    async def ask(self, command: str, **more: Any) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.agent.socket_path))
        writer.write(json.dumps({"command": command, **more}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(reader.readline(), 20))
        writer.close()
        return answer

    async def until(self, look: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not look():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def lab_of(state: Path, hss: Hss | None = None, *, ready: bool = True, **settings: Any) -> AsyncIterator[Lab]:
    s6a, s8, own = free_port(), free_port(), free_port()
    made = HostNetworkSettings.model_validate(
        {
            "mme": {"host": "mme.alpha.hostnetwork.test", "realm": "hostnetwork.test"},
            "hss": {"address": "127.0.0.1", "port": s6a, "realm": "test", "host": "hss.test"},
            "pgw": "127.0.0.1", "pgw_port": s8, "listen": "127.0.0.1", "gtpc_port": own,
            "plmn": {"mcc": "001", "mnc": "01"}, "t3": 0.1, "n3": 3, "state": str(state),
            **settings,
        }
    )  # fmt: skip
    tubes = Tubes()
    agent = Agent(made, cast(Tunnels, tubes))
    agent.mme.s6a._pause = 0.05
    async with (hss or Hss()).serving(s6a) as there, Pgw().serving(s8) as gateway:
        running = asyncio.ensure_future(agent.run())
        lab = Lab(there, gateway, agent, tubes)
        await lab.until(lambda: agent.socket_path.exists() and (not ready or agent.mme.s6a.problem is None))
        try:
            yield lab
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
