"""`python -m mvnobox.core.sim smf|upf|dn --config FILE`, `… ue agent --config FILE`, `… ue COMMAND [options]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from starlette.applications import Starlette

from mvnobox.core.sim.settings import DnSettings, SmfSettings, UeSettings, UpfSettings
from mvnobox.service.logs import configure_logs
from mvnobox.service.settings import address, load_settings
from mvnobox.service.web import health_routes, run_until_signal, serve_http


async def _with_health(run: Any, ready: Callable[[], Awaitable[str | None]], http: str) -> None:
    await run_until_signal(run, serve_http(Starlette(routes=health_routes(ready)), *address(http)))


async def _serve(role: str, config: str) -> None:
    if role == "smf":
        from mvnobox.core.sim.smf import Smf

        smf = Smf(settings := load_settings(SmfSettings, config))
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

        await run_until_signal(DataNetwork(load_settings(DnSettings, config)).run())


def _request(arguments: argparse.Namespace) -> dict[str, Any]:
    request: dict[str, Any] = {"command": arguments.command}
    if arguments.command == "register":
        # Keys come by standard input: an argument would be seen in the process list.
        request["sim"] = json.load(sys.stdin)
    elif arguments.command == "ping":
        request |= {"target": arguments.target, "count": arguments.count}
    elif arguments.command == "download":
        request |= {
            "host": arguments.host,
            "port": arguments.port,
            "path": arguments.path,
            "timeout": arguments.timeout,
            "stall": arguments.stall,
        }
    return request


def main() -> int:
    """Parse and run; the exit code of a command tells whether it succeeded."""
    parser = argparse.ArgumentParser(prog="python -m mvnobox.core.sim")
    roles = parser.add_subparsers(dest="role", required=True)
    for role in ("smf", "upf", "dn"):
        roles.add_parser(role).add_argument("--config", required=True)
    ue = roles.add_parser("ue").add_subparsers(dest="command", required=True)
    ue.add_parser("agent").add_argument("--config", required=True)
    for name in ("register", "deregister", "status", "idle", "service-request", "ping", "download"):
        command = ue.add_parser(name)
        command.add_argument("--state", default="/run/mvno")
        if name == "ping":
            command.add_argument("--target", required=True)
            command.add_argument("--count", type=int, default=5)
        if name == "download":
            command.add_argument("--host", required=True)
            command.add_argument("--port", type=int, default=8080)
            command.add_argument("--path", required=True)
            command.add_argument("--timeout", type=float, default=60)
            command.add_argument("--stall", type=float, default=5)
    arguments = parser.parse_args()
    if arguments.role == "ue" and arguments.command != "agent":
        from mvnobox.core.sim.ue import command as send

        try:
            answer = asyncio.run(send(arguments.state, _request(arguments), 120))
        except (OSError, ValueError, TimeoutError) as error:
            answer = {"ok": False, "cause": f"{type(error).__name__}: {error}", "simulation": True}
        print(json.dumps(answer))
        return 0 if answer.get("ok") else 1
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
