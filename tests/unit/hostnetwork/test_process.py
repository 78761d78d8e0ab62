"""The process itself in a network namespace: its TUN device, G-PDUs on S8-U, the commands that the journey gives."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostnetwork_peers import SIM, Hss, Pgw, Upf
from tests.ports import free_port

NAME, OUTSIDE, INSIDE = "mvno-hostnet", "198.18.79.1", "198.18.79.2"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or not Path("/dev/net/tun").exists(),
    reason="makes a network namespace and a TUN device: needs root, iproute2 and /dev/net/tun",
)


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    ip("netns", "del", NAME, check=False)
    ip("netns", "add", NAME)
    try:
        ip("link", "add", "hostnet0", "type", "veth", "peer", "name", "eth0", "netns", NAME)
        ip("address", "add", f"{OUTSIDE}/30", "dev", "hostnet0")
        ip("link", "set", "hostnet0", "up")
        for words in (["address", "add", f"{INSIDE}/30", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            ip("-n", NAME, *words)
        ip("-n", NAME, "link", "set", "lo", "up")
        yield NAME
    finally:
        ip("netns", "del", NAME)


async def command(state: Path, *words: str, stdin: str = "") -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", NAME, sys.executable, "-m", "mvnobox.core.sim", "ue", *words, "--state", str(state),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
    answer: dict[str, Any] = json.loads(out)
    return answer


async def test_a_ping_over_s8(namespace: str, tmp_path: Path) -> None:
    s6a, s8 = free_port(), free_port()
    config = tmp_path / "hostnetwork.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "mme": {"host": "mme.alpha.hostnetwork.test", "realm": "hostnetwork.test"},
                "hss": {"address": OUTSIDE, "port": s6a, "realm": "test"},
                "pgw": OUTSIDE, "pgwPort": s8, "plmn": {"mcc": "001", "mnc": "01"},
                "state": str(tmp_path), "http": "127.0.0.1:8081",
            }
        )
    )  # fmt: skip
    async with Hss().serving(s6a, OUTSIDE) as hss, Pgw().serving(s8, OUTSIDE) as pgw:
        loop = asyncio.get_running_loop()
        plane, upf = await loop.create_datagram_endpoint(lambda: Upf(pgw), local_addr=(OUTSIDE, 2152))
        process = await asyncio.create_subprocess_exec(
            "ip",
            "netns",
            "exec",
            NAME,
            sys.executable,
            "-m",
            "mvnobox.core.hostnetwork",
            "serve",
            "--config",
            str(config),
        )
        try:
            async with asyncio.timeout(20):
                while not hss.asked or not (tmp_path / "ue.sock").exists():
                    await asyncio.sleep(0.05)
            answer = await command(tmp_path, "register", stdin=json.dumps(SIM))
            assert answer["ok"] and answer["address"] == "10.45.128.2", answer
            pinged = await command(tmp_path, "ping", "--target", "10.45.0.1", "--count", "3")
            assert (pinged["ok"], pinged["received"]) == (True, 3)
            # Three pings of 76 octets each way; the header has neither sequence number nor extension.
            status = await command(tmp_path, "status")
            assert (status["receivedOctets"], status["sentOctets"]) == (228, 228)
            assert set(upf.headers) == {bytes.fromhex("30ff004c00007001")}
            upf.forgets = True
            lost = await command(tmp_path, "ping", "--target", "10.45.0.1", "--count", "1")
            assert not lost["ok"]
            upf.forgets = False
            async with asyncio.timeout(10):
                while (status := await command(tmp_path, "status"))["recoveries"] == 0:
                    await asyncio.sleep(0.05)
            # Another session, another address; what was carried before counts on.
            assert status["address"] == "10.45.128.3" and status["sentOctets"] == 304
        finally:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 10) == 0
            plane.close()
        # It said good-bye: Delete Session, Purge UE, Disconnect Peer.
        assert pgw.kinds()[-1] == 36 and [number for number, _ in hss.asked][-2:] == [321, 282]
