"""Ways into the cluster for the journey: the BSS through a forwarded port, pods by exec, Secrets by the API."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from mvnobox.deploy.cluster import ClusterChoice
from mvnobox.deploy.journey.steps import StepFailed
from mvnobox.errors import EnvironmentUnfit, Failed

# How kubectl says that nobody answers.
_UNREACHABLE = ("was refused", "Unable to connect", "i/o timeout", "no route to host", "no such host")


class Kubectl:
    """kubectl against the chosen cluster."""

    def __init__(self, choice: ClusterChoice) -> None:
        program = Path(sys.executable).parent / "kubectl"
        self._base = [str(program), "--kubeconfig", str(choice.kubeconfig), "--context", choice.context]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run kubectl; its result, whatever it is."""
        try:
            return subprocess.run(
                [*self._base, *arguments], input=stdin, text=True, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(arguments, 124, "", f"no answer within {timeout:.0f} s")

    def json(self, *arguments: str) -> Any:
        """Run `kubectl … -o json`. Raises Failed."""
        done = self.run(*arguments, "-o", "json")
        if done.returncode == 0:
            return json.loads(done.stdout)
        said = done.stderr.strip()
        if any(word in said for word in _UNREACHABLE):
            raise EnvironmentUnfit(
                f"the cluster of this installation does not answer ({said.splitlines()[-1]})",
                "./mvno up brings an embedded cluster back; look after your own cluster where you named one",
            )
        raise Failed(f"kubectl {' '.join(arguments)}: {said}", "./mvno status says what is there")

    def secret(self, namespace: str, name: str, key: str) -> str:
        """A value of a Secret. Raises Failed."""
        return base64.b64decode(self.json("-n", namespace, "get", "secret", name)["data"][key]).decode()

    def exec_json(self, namespace: str, target: str, *command: str, stdin: str = "", timeout: float = 120) -> Any:
        """Run a program in a pod that prints one JSON document. Raises StepFailed."""
        done = self.run("-n", namespace, "exec", "-i", target, "--", *command, stdin=stdin, timeout=timeout)
        try:
            return json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise StepFailed(f"{target} said: {(done.stderr or done.stdout).strip()[-300:]}") from None

    @contextlib.contextmanager
    def forwarded(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """`host:port` on this machine that leads to a port in the cluster. Raises Failed."""
        process = subprocess.Popen(
            [*self._base, "-n", namespace, "port-forward", target, f":{port}", "--address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            match = re.search(r"127\.0\.0\.1:(\d+)", line)
            if match is None:
                raise Failed(f"no way to {target} in {namespace}: {line.strip()}", "./mvno status says what is there")
            yield f"127.0.0.1:{match[1]}"
        finally:
            process.terminate()
            process.wait(10)


class Bss:
    """The operator's view of a brand's BSS."""

    def __init__(self, address: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=f"http://{address}", headers={"Authorization": f"Bearer {token}"}, timeout=15
        )

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call that has to succeed. Raises StepFailed."""
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise StepFailed(f"{method} {path}: {type(error).__name__}") from None
        if not response.is_success:
            raise StepFailed(f"{method} {path}: HTTP {response.status_code} {response.text[:300]}")
        return response.json()
