"""The phone of the journey: what a UE can be told, whichever simulator or test peer is behind it."""

from __future__ import annotations

import json
from typing import Any, Literal

from mvnobox.deploy.journey.access import Kubectl

# By which radio access the journey goes.
Access = Literal["5g", "4g"]


class Phone:
    """The UE in a brand's user plane namespace: the simulated core's, UERANSIM's or 4G's, which take the same commands."""

    def __init__(self, kubectl: Kubectl, namespace: str, core: str = "simulated", access: Access = "5g") -> None:
        self._kubectl, self._namespace = kubectl, namespace
        self._target = "deploy/ran" if core == "open5gs" else "deploy/ue"
        if access == "4g":
            self._target = "deploy/hostnetwork"

    def _run(self, *arguments: str, stdin: str = "", timeout: float = 120) -> dict[str, Any]:
        answer: dict[str, Any] = self._kubectl.exec_json(
            self._namespace,
            self._target,
            "python",
            "-m",
            "mvnobox.core.sim",
            "ue",
            *arguments,
            stdin=stdin,
            timeout=timeout,
        )
        return answer

    def register(self, sim: dict[str, Any]) -> dict[str, Any]:
        """Attach with a SIM; keys go by standard input."""
        return self._run("register", stdin=json.dumps(sim))

    def deregister(self) -> dict[str, Any]:
        return self._run("deregister")

    def status(self) -> dict[str, Any]:
        return self._run("status")

    def ping(self, target: str, count: int) -> dict[str, Any]:
        return self._run("ping", "--target", target, "--count", str(count))

    def iperf3(self, host: str, octets: int, direction: str) -> dict[str, Any]:
        """So many octets through the tunnel by iperf3, `down` or `up`."""
        return self._run("iperf3", "--host", host, "--octets", str(octets), "--direction", direction, "--timeout", "60")

    def download(
        self, host: str, octets: int, *, port: int = 8080, stall: float = 3, timeout: float = 60
    ) -> dict[str, Any]:
        """Fetch so many octets over TCP through the tunnel."""
        return self._run(
            "download", "--host", host, "--port", str(port), "--path", f"/bytes/{octets}",
            "--stall", str(stall), "--timeout", str(timeout), timeout=timeout + 30,
        )  # fmt: skip
