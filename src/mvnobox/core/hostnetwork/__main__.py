"""`python -m mvnobox.core.hostnetwork serve --config FILE`; phones are commanded by `python -m mvnobox.core.sim ue`."""

from __future__ import annotations

from starlette.applications import Starlette

from mvnobox.core.hostnetwork.agent import Agent
from mvnobox.core.hostnetwork.settings import HostNetworkSettings
from mvnobox.service.command import run_command
from mvnobox.service.settings import address, load_settings
from mvnobox.service.web import health_routes, run_until_signal, serve_http


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    agent = Agent(settings := load_settings(HostNetworkSettings, config))
    await run_until_signal(
        agent.run(), serve_http(Starlette(routes=health_routes(agent.ready)), *address(settings.http))
    )


if __name__ == "__main__":
    run_command("hostnetwork", {"serve": serve})
