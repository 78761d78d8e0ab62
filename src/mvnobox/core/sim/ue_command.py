"""`python -m mvnobox.core.sim ue COMMAND`: what a person or a test tells the phones of a pod."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from pathlib import Path
from typing import Any

from mvnobox.core.sim.ue_traffic import Source, download, iperf3, ping, split_url

AGENT_SECONDS = 120.0
COMMANDS = ("register", "session", "deregister", "status", "idle", "service-request", "ping", "download", "iperf3")


def add_commands(ue: Any) -> None:
    """The commands' arguments, on argparse's sub-parsers."""
    for name in COMMANDS:
        one = ue.add_parser(name)
        one.add_argument("--state", default="/run/mvno", help="the agent's directory")
        if name != "register":
            one.add_argument("--imsi", help="which phone; default: the one that was registered last")
    register = ue.choices["register"]
    register.add_argument("--beside", action="store_true", help="keep the phones that are registered already")
    ue.choices["ping"].add_argument("--target", required=True)
    ue.choices["ping"].add_argument("--count", type=int, default=5)
    fetch = ue.choices["download"]
    fetch.add_argument("--url", help="http://host[:port]/path, or --host, --port and --path")
    fetch.add_argument("--host")
    fetch.add_argument("--port", type=int, default=8080)
    fetch.add_argument("--path", default="/")
    fetch.add_argument("--timeout", type=float, default=60, help="seconds in all")
    fetch.add_argument("--stall", type=float, default=5, help="seconds without an octet")
    fetch.add_argument("--bytes-limit", type=int, help="stop after so many octets")
    fetch.add_argument("--report", choices=["progress"], help="a line a second on standard error")

    measure = ue.choices["iperf3"]
    for name in ("ping", "download", "iperf3"):
        ue.choices[name].add_argument("--ipv6", action="store_true", help="by IPv6 to a host that is given by name")
    measure.add_argument("--host", required=True)
    measure.add_argument("--port", type=int, default=5201)
    measure.add_argument("--octets", type=int, required=True)
    measure.add_argument("--direction", choices=["down", "up"], default="down")
    measure.add_argument("--timeout", type=float, default=60, help="seconds in all")


def run_command(arguments: argparse.Namespace) -> int:
    """Run a command: one JSON document on standard output, exit code 0 if it succeeded."""
    try:
        answer = _run(arguments)
    except (OSError, ValueError, TimeoutError) as error:
        answer = {"ok": False, "cause": f"{type(error).__name__}: {error}"}
    print(json.dumps({"simulation": True, **answer}))
    return 0 if answer.get("ok") else 1


def _ask(arguments: argparse.Namespace, **request: Any) -> dict[str, Any]:
    """Send a command to the agent of this pod; its answer. Raises OSError (TimeoutError too), ValueError."""
    imsi = getattr(arguments, "imsi", None)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(AGENT_SECONDS)
        agent.connect(str(Path(arguments.state) / "ue.sock"))
        agent.sendall(json.dumps(request | ({"imsi": imsi} if imsi else {})).encode() + b"\n")
        with agent.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise ConnectionError("the agent ended the connection")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.command == "register":
        # Keys come by standard input: an argument would be seen in the process list.
        return _ask(arguments, command="register", sim=json.load(sys.stdin), beside=arguments.beside)
    if arguments.command not in ("ping", "download", "iperf3"):
        return _ask(arguments, command=arguments.command)
    before = _ask(arguments, command="status")
    if not before["registered"]:
        return {"ok": False, "cause": "not registered"}
    source = Source(before["address"], before["interface"], before.get("address6"), arguments.ipv6)
    if arguments.command == "ping":
        return ping(source, arguments.target, arguments.count)
    if arguments.command == "iperf3":
        target = (arguments.host, arguments.port)
        answer = iperf3(source, target, arguments.octets, upload=arguments.direction == "up", timeout=arguments.timeout)
    else:
        answer = _download(source, arguments)
    after = _ask(arguments, command="status")
    down, up = (after[key] - before[key] for key in ("receivedOctets", "sentOctets"))
    return answer | {"carriedOctets": down + up, "carried": {"downlink": down, "uplink": up}}


def _download(source: Source, arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.url and not arguments.host:
        raise ValueError("download needs --url, or --host and --path")
    target = split_url(arguments.url) if arguments.url else (arguments.host, arguments.port, arguments.path)
    return download(
        source, target, timeout=arguments.timeout, stall=arguments.stall, limit=arguments.bytes_limit,
        report=_progress if arguments.report else None,
    )  # fmt: skip


def _progress(line: dict[str, Any]) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)
