"""A real OCS process over a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

KEY = "11" * 32


def token(brand: str) -> str:
    return f"{brand}.{hmac.new(bytes.fromhex(KEY), brand.encode(), hashlib.sha256).hexdigest()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Ocs:
    """One or more replicas; the first one's client."""

    folder: Path
    dsn: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mvnobox.charging", verb, "--config", str(self.folder / "ocs.yaml")],
            env=self.environment(),
            capture_output=True,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        return {**os.environ, "DATABASE_URL": self.dsn, "OCS_TENANT_KEY": KEY}

    async def start(self) -> int:
        port = free_port()
        config = self.folder / f"ocs-{port}.yaml"
        config.write_text(f"listen: 127.0.0.1:{port}\nquota: {{octets: 1000}}\n")
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "mvnobox.charging", "serve", "--config", str(config)],
                env=self.environment(),
                stdout=open(self.folder / f"ocs-{port}.log", "wb"),
                stderr=subprocess.STDOUT,
            )
        )
        self.ports.append(port)
        async with httpx.AsyncClient() as client:
            for _ in range(200):
                try:
                    if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                        return port
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError((self.folder / f"ocs-{port}.log").read_text())

    def client(self, brand: str = "alpha", replica: int = 0, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.ports[replica]}",
            headers={"Authorization": f"Bearer {token(brand)}"},
            timeout=10,
            **options,
        )


@pytest.fixture
async def ocs(pg_database: Any, tmp_path: Path) -> AsyncIterator[Ocs]:
    made = Ocs(tmp_path, pg_database.dsn("ocs"))
    (tmp_path / "ocs.yaml").write_text("listen: 127.0.0.1:1\n")
    done = made.run("migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    await made.start()
    yield made
    for process in made.processes:
        process.terminate()
    for process in made.processes:
        process.wait(10)
