"""`python -m mvnobox.core.sim smf|upf|dn --config FILE`, `… ue agent --config FILE`, `… ue COMMAND [options]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from mvnobox.core.sim.ue_command import add_commands, run_command

# Imports of the servers' own are made when one starts: a command of the UE is to be quick.


async def _with_health(run: Any, ready: Callable[[], Awaitable[str | None]], http: str) -> None:
    from starlette.applications import Starlette

    from mvnobox.service.settings import address
    from mvnobox.service.web import health_routes, run_until_signal, serve_http

    await run_until_signal(run, serve_http(Starlette(routes=health_routes(ready)), *address(http)))


async def _serve(role: str, config: str) -> None:
    from mvnobox.core.sim.settings import DnSettings, SmfSettings, UeSettings, UpfSettings
    from mvnobox.service.settings import load_settings

    if role == "smf":
        from mvnobox.core.sim.smf import Smf

        # With a password it comes by the environment.
        smf = Smf(settings := load_settings(SmfSettings, config), os.environ.get("DIRECTORY_URI"))
        await _with_health(smf.run(), smf.ready, settings.http)
    elif role == "upf":
        from mvnobox.core.sim.upf import Upf

        upf = Upf(plane := load_settings(UpfSettings, config))
        await _with_health(upf.run(), upf.ready, plane.http)
    elif role == "ue":
        from mvnobox.core.sim.ue import Ue

        ue = Ue(phone := load_settings(UeSettings, config))
        await _with_health(ue.run(), ue.ready, phone.http)
    else:
        from mvnobox.core.sim.dn import DataNetwork
        from mvnobox.service.web import run_until_signal

        await run_until_signal(DataNetwork(load_settings(DnSettings, config)).run())


def main() -> int:
    """Parse and run; the exit code of a command tells whether it succeeded."""
    parser = argparse.ArgumentParser(prog="python -m mvnobox.core.sim", description="A simulated 5G core.")
    roles = parser.add_subparsers(dest="role", required=True)
    for role in ("smf", "upf", "dn"):
        roles.add_parser(role).add_argument("--config", required=True)
    ue = roles.add_parser("ue").add_subparsers(dest="command", required=True)
    ue.add_parser("agent").add_argument("--config", required=True)
    add_commands(ue)
    arguments = parser.parse_args()
    if arguments.role == "ue" and arguments.command != "agent":
        return run_command(arguments)
    import uvloop

    from mvnobox.service.logs import configure_logs

    configure_logs()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(arguments.role, arguments.config))
        except (OSError, RuntimeError) as error:
            print(json.dumps({"level": "error", "msg": str(error), "simulation": True}), flush=True)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
