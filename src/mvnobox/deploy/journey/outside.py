"""4G's journey from outside of the cluster: the host network's stand-in in a network namespace of this machine.

The node is its router: it dials HSS, packet gateway and user plane by their addresses outside, and has one of the host
network's itself, which the policies let in.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.journey.phone import Phone
from mvnobox.deploy.journey.steps import StepFailed, StepSkipped
from mvnobox.deploy.paths import home_dir
from mvnobox.errors import EnvironmentUnfit, Failed
from mvnobox.render import Epc
from mvnobox.render.hostnetwork import outside_stand_in, stand_in_address
from mvnobox.spec import BrandSpec

NAMESPACE = "mvno-hostnetwork"
LINK = "mvno-hostnet"
# The node's end of the link: of this link alone (RFC 3927), whatever else the machine's networks are.
ROUTER = "169.254.113.1"
START_SECONDS = 20.0


def _ip(*arguments: str, check: bool = True) -> None:
    """Run `ip`. Raises EnvironmentUnfit."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise EnvironmentUnfit(
            f"ip {' '.join(arguments)}: {done.stderr.strip()}", "run as root on a kernel with network namespaces"
        )


def _remove() -> None:
    # By itself: a namespace that is deleted lives on, and its link with it, while another process's mounts hold it.
    _ip("link", "del", LINK, check=False)
    _ip("netns", "del", NAMESPACE, check=False)


@contextlib.contextmanager
def _network(address: str) -> Iterator[None]:
    """A namespace with one address, whose way to everywhere is the node; what an earlier run left is removed."""
    _remove()
    _ip("netns", "add", NAMESPACE)
    try:
        _ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
        _ip("address", "add", f"{ROUTER}/32", "dev", LINK)
        _ip("link", "set", LINK, "up")
        _ip("route", "add", f"{address}/32", "dev", LINK)
        for command in (
            ("address", "add", f"{address}/32", "dev", "eth0"),
            ("link", "set", "lo", "up"),
            ("link", "set", "eth0", "up"),
            ("route", "add", ROUTER, "dev", "eth0"),
            ("route", "add", "default", "via", ROUTER, "src", address),
        ):
            _ip("-n", NAMESPACE, *command)
        yield
    finally:
        _remove()


def _inside(*command: str) -> list[str]:
    return ["ip", "netns", "exec", NAMESPACE, sys.executable, "-m", *command]


def _await(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    """Until the stand-in takes commands. Raises Failed."""
    deadline = time.monotonic() + START_SECONDS
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines()
            raise Failed(
                f"the host network's stand-in did not start: {said[-1] if said else 'it said nothing'}", f"see {log}"
            )
        time.sleep(0.05)


class OutsidePhone(Phone):
    """The stand-in's phone. The cluster's names mean nothing where it is: Services are dialled by their addresses."""

    def __init__(self, kubectl: Kubectl, state: Path) -> None:
        super().__init__(kubectl, "", "open5gs", "4g")
        self._state = state

    def _run(self, *arguments: str, stdin: str = "", timeout: float = 120) -> dict[str, Any]:
        command = _inside("mvnobox.core.sim", "ue", *arguments, "--state", str(self._state))
        try:
            done = subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=timeout, check=False)
            answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            raise StepFailed(f"the host network's stand-in: no answer within {timeout:.0f} s") from None
        except (ValueError, IndexError):
            said = (done.stderr or done.stdout).strip()[-300:]
            raise StepFailed(f"the host network's stand-in said: {said}") from None
        return answer

    def _address(self, host: str) -> str:
        name, namespace, kind = host.split(".")[:3] if host.count(".") > 3 else (host, "", "")
        if kind != "svc":
            return host
        return str(self._kubectl.json("-n", namespace, "get", "service", name)["spec"]["clusterIP"])

    def download(self, host: str, octets: int, **more: Any) -> dict[str, Any]:
        return super().download(self._address(host), octets, **more)

    def iperf3(self, host: str, octets: int, direction: str) -> dict[str, Any]:
        if shutil.which("iperf3") is None:
            raise StepSkipped("iperf3 is not installed on this machine")
        return super().iperf3(self._address(host), octets, direction)


@contextlib.contextmanager
def outside_phone(spec: BrandSpec, epc: Epc, kubectl: Kubectl) -> Iterator[OutsidePhone]:
    """A phone on a host network outside, as long as the journey lasts. Raises BadInput, EnvironmentUnfit, Failed."""
    address = stand_in_address(epc)
    place = home_dir() / "hostnetwork" / spec.name
    state, log = place / "state", place / "log"
    shutil.rmtree(place, ignore_errors=True)
    state.mkdir(parents=True, mode=0o700)
    config = place / "hostnetwork.yaml"
    config.write_text(outside_stand_in(spec, epc, address, state), encoding="utf-8")
    with _network(address), open(log, "wb") as out:
        process = subprocess.Popen(
            _inside("mvnobox.core.hostnetwork", "serve", "--config", str(config)),
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
        try:
            _await(process, state / "ue.sock", log)
            yield OutsidePhone(kubectl, state)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
