"""A simulated core in network namespaces: UE, user plane and data network apart, as in pods.

```
 sim-ue ── sim-net (bridge) ── sim-upf ── sim-dn
               └── this namespace: directory (PostgreSQL), SMF
```
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from nacl.public import PrivateKey, SealedBox
from tests.ports import free_port

KI, OPC = "465b5ce8b199b49faa5f0a2ee238a6bc", "cd63cb71954a9f4e48a5994e37a02baf"
IMSI, OTHER = "208930000000001", "208930000000002"
# TEST-NET-2's neighbour for benchmarks (RFC 2544): nobody routes it.
HERE, UE, UPF, OUTSIDE, DN = "198.18.77.1", "198.18.77.2", "198.18.77.3", "198.18.78.3", "198.18.78.4"
POOL, GATEWAY = "10.45.0.0/16", "10.45.0.1"
POOL6, GATEWAY6 = "fd45:6a70:1c00::/48", "fd45:6a70:1c00::1"
# The data network's: unique local and, in the space for documentation (RFC 3849), as if it were the internet's.
OUTSIDE6, DN6 = ("fd78::3", "2001:db8:78::3"), ("fd78::4", "2001:db8:78::4", "fd78::5")
NAMESPACES = ("sim-net", "sim-ue", "sim-upf", "sim-dn")
SLICE = {"sst": 1, "sd": "000001"}
DOCUMENT = {
    "subscriber_status": 0,
    "operator_determined_barring": 0,
    "network_access_mode": 0,
    "ambr": {"downlink": {"value": 2, "unit": 3}, "uplink": {"value": 1, "unit": 3}},
    "slice": [{**SLICE, "default_indicator": True, "session": [{"name": "internet", "type": 1}]}],
}
FAST = {"t1": 0.5, "n1": 3, "heartbeat": 0.5}


class Directory:
    """The real subscriber directory on a throw-away database."""

    def __init__(self, port: int, dsn: Any, key: PrivateKey) -> None:
        self.port, self._dsn = port, dsn
        keys = json.dumps({"k": KI, "opc": OPC, "amf": "8000"}).encode()
        self._sealed = SealedBox(key.public_key).encrypt(keys)

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/open5gs"

    async def _execute(self, sql: str, *arguments: Any) -> None:
        connection = await asyncpg.connect(self._dsn("bss_alpha"))
        try:
            await connection.execute(sql, *arguments)
        finally:
            await connection.close()

    async def put(self, imsi: str = IMSI, *, megabits: int | None = None, type_: int = 1) -> None:
        """A subscriber, whose session may have so many Mbit/s downlink and a fifth of it uplink (else 2 Gbit/s).

        `type_` is that of the session: 1 IPv4, 3 IPv4v6.
        """
        document: dict[str, Any] = copy.deepcopy(DOCUMENT)
        document["slice"][0]["session"][0]["type"] = type_
        if megabits is not None:
            rates = {"downlink": {"value": megabits, "unit": 2}, "uplink": {"value": megabits // 5, "unit": 2}}
            document["ambr"] = rates
        await self._execute(
            "SELECT directory.put_subscriber($1, $2, $3, $4)",
            imsi, ["33639980" + imsi[-3:]], self._sealed, json.dumps(document),
        )  # fmt: skip

    async def set_status(self, status: int, imsi: str = IMSI) -> None:
        await self._execute("SELECT directory.set_subscriber_status($1, $2, 0)", imsi, status)


@pytest.fixture
async def directory(pg_database: Any, tmp_path: Path) -> AsyncIterator[Directory]:
    """The directory's process, with the subscribers IMSI and OTHER."""
    key = PrivateKey.generate()
    port, http = free_port(), free_port()
    config = tmp_path / "directory.yaml"
    config.write_text(yaml.safe_dump({"listen": f"127.0.0.1:{port}", "http": f"127.0.0.1:{http}"}))
    environment = {"DATABASE_URL": pg_database.dsn("directory"), "DIRECTORY_PRIVATE_KEY": bytes(key).hex()}
    log = tmp_path / "directory.log"

    def run(verb: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mvnobox.core.directory", verb, "--config", str(config)]
        with log.open("ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})

    assert await asyncio.to_thread(run("migrate").wait, 60) == 0, log.read_text()
    process = run("serve")
    try:
        made = Directory(port, pg_database.dsn, key)
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.1)
        await made.put(IMSI)
        await made.put(OTHER)
        yield made
    finally:
        process.terminate()
        process.wait(10)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _remove() -> None:
    subprocess.run(["ip", "link", "delete", "sim-here"], capture_output=True, check=False)
    for name in NAMESPACES:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.fixture
def namespaces() -> Iterator[None]:
    """The namespaces and their wires, gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not shutil.which("ip") or not shutil.which("nft"):
        pytest.skip("iproute2 and nftables are not installed")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this kernel has no /dev/net/tun")
    _remove()
    for name in NAMESPACES:
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
    _run("ip", "-n", "sim-net", "link", "add", "bridge", "type", "bridge")
    _run("ip", "-n", "sim-net", "link", "set", "bridge", "up")
    for name, address, space in (("sim-here", HERE, ""), ("eth0", UE, "sim-ue"), ("eth0", UPF, "sim-upf")):
        port = f"to-{space or 'here'}"
        here = ["netns", space] if space else []
        _run("ip", "-n", "sim-net", "link", "add", port, "type", "veth", "peer", "name", f"{port}-x")
        _run("ip", "-n", "sim-net", "link", "set", port, "master", "bridge", "up")
        there = here or ["netns", "1"]
        _run("ip", "-n", "sim-net", "link", "set", f"{port}-x", "name", name, *there)
        within = ["-n", space] if space else []
        _run("ip", *within, "address", "add", f"{address}/24", "dev", name)
        _run("ip", *within, "link", "set", name, "up")
    _run("ip", "-n", "sim-upf", "link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", "sim-dn")
    for space, device, address in (("sim-upf", "eth1", OUTSIDE), ("sim-dn", "eth0", DN)):
        _run("ip", "-n", space, "address", "add", f"{address}/24", "dev", device)
        _run("ip", "-n", space, "link", "set", device, "up")
    _run("ip", "netns", "exec", "sim-upf", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    try:
        yield
    finally:
        _remove()


class Core:
    """Processes of the simulated core, each where it belongs."""

    here, ue_node, upf_node, dn, pool, gateway = HERE, UE, UPF, DN, POOL, GATEWAY
    pool6, gateway6 = POOL6, GATEWAY6
    # Allowed, the internet, closed.
    dn6, internet6, closed6 = DN6
    imsi, other, ki, opc = IMSI, OTHER, KI, OPC

    def __init__(self, folder: Path, directory: Directory | None) -> None:
        self.folder = folder
        if directory is not None:
            self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.smf_http = free_port()
        common = {"dnns": [{"name": "internet", "pool": POOL, "gateway": GATEWAY, "mtu": 1400}]}
        self.config: dict[str, dict[str, Any]] = {
            "smf": common | {
                "listen": f"{HERE}:8500", "n4": {"listen": HERE, "advertise": HERE, "peer": UPF, **FAST},
                "directory": directory.uri if directory else "", "plmn": {"mcc": "208", "mnc": "93"}, "slice": SLICE,
                "http": f"127.0.0.1:{self.smf_http}", "watchSeconds": 0.3,
            },
            "upf": common | {
                "n4": {"listen": UPF, **FAST}, "n3": {"advertise": UPF}, "allow": [f"{DN}/32"],
                "deny": ["10.0.0.0/8", "198.18.0.0/15"], "http": "127.0.0.1:8081",
            },
            "ue": {"smf": f"{HERE}:8500", "state": str(folder / "ue"), "http": "127.0.0.1:8081"},
            "dn": {"listen": "0.0.0.0:8080"},
        }  # fmt: skip

    def with_ipv6(self, pool: str = POOL6, gateway: str = GATEWAY6) -> None:
        """IPv6 besides IPv4 for UEs whose subscription has it, and a data network that has both."""
        for role in ("smf", "upf"):
            self.config[role]["dnns"][0] |= {"pool6": pool, "gateway6": gateway}
        self.config["upf"]["allow"] = [f"{DN}/32", f"{self.dn6}/128"]
        self.config["upf"]["deny"] = [*self.config["upf"]["deny"], "::/3", "4000::/2", "8000::/1", "2002::/16"]
        self.config["dn"]["listen"] = "[::]:8080"
        for space, device, addresses in (("sim-upf", "eth1", OUTSIDE6), ("sim-dn", "eth0", DN6)):
            for address in addresses:
                _run("ip", "-n", space, "address", "add", f"{address}/64", "dev", device, "nodad")
        _run("ip", "netns", "exec", "sim-upf", "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")

    def sim(self, **changes: Any) -> dict[str, Any]:
        """What `ue register` reads."""
        return {"imsi": IMSI, "ki": KI, "opc": OPC, "dnn": "internet", **SLICE, **changes}

    def start(self, role: str) -> None:
        path = self.folder / f"{role}.yaml"
        path.write_text(yaml.safe_dump(self.config[role]))
        space = [] if role == "smf" else ["ip", "netns", "exec", f"sim-{role}"]
        verb = ["ue", "agent"] if role == "ue" else [role]
        command = [*space, sys.executable, "-m", "mvnobox.core.sim", *verb, "--config", str(path)]
        with open(self.folder / f"{role}.log", "ab") as log:
            self.processes[role] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, role: str, *, kill: bool = False) -> int:
        """End a process; its exit code."""
        process = self.processes.pop(role)
        process.kill() if kill else process.terminate()
        return process.wait(10)

    def log(self, role: str) -> str:
        path = self.folder / f"{role}.log"
        return path.read_text() if path.exists() else ""

    def ue_start(self, *arguments: str, **popen: Any) -> subprocess.Popen[str]:
        """A command of the UE that runs on."""
        command = ["ip", "netns", "exec", "sim-ue", sys.executable, "-m", "mvnobox.core.sim", "ue", *arguments]
        return subprocess.Popen(
            [*command, "--state", self.config["ue"]["state"]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen,
        )  # fmt: skip

    async def ue(self, *arguments: str, stdin: Any = None) -> dict[str, Any]:
        """A command of the UE and its answer."""
        process = self.ue_start(*arguments)
        out, err = await asyncio.to_thread(process.communicate, json.dumps(stdin) if stdin is not None else None, 90)
        assert out.count("\n") == 1, out + err
        answer: dict[str, Any] = json.loads(out)
        assert answer["simulation"] is True and process.returncode == (0 if answer.get("ok") else 1)
        return answer

    async def until(self, what: str, condition: Any, seconds: float = 15) -> Any:
        """Wait until a condition (a coroutine function or a function) holds; its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            value = await value if asyncio.iscoroutine(value) else value
            if value:
                return value
            await asyncio.sleep(0.1)
        logs = "\n".join(f"--- {path.stem}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))
        raise AssertionError(f"{what}: not within {seconds} s\n{logs}")

    async def up(self, *roles: str) -> None:
        """Start processes and wait until they serve."""
        for role in roles or ("dn", "upf", "smf", "ue"):
            self.start(role)
        for role, mark in (
            ("dn", "network is up"),
            ("upf", "UPF is up"),
            ("smf", "associated on N4"),
            ("ue", "waiting"),
        ):
            if role in (roles or self.config):
                await self.until(f"{role} is up", lambda r=role, m=mark: m in self.log(r), 60)

    async def metric(self, role: str, name: str, *default: float) -> float:
        """A process's metric, by its HTTP."""
        port = self.smf_http if role == "smf" else 8081
        script = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        space = [] if role == "smf" else ["ip", "netns", "exec", f"sim-{role}"]
        out = await asyncio.to_thread(subprocess.check_output, [*space, sys.executable, "-c", script], text=True)
        found = (float(line.split()[-1]) for line in out.splitlines() if line.startswith(name + " "))
        return next(found, *default)

    async def register(self, **changes: Any) -> dict[str, Any]:
        """Register the UE; it has to succeed."""
        answer = await self.ue("register", stdin=self.sim(**changes))
        assert answer["ok"], answer
        return answer


@contextlib.contextmanager
def _core(directory: Directory | None) -> Iterator[Core]:
    # Short: the name of a local socket has 107 octets at most.
    folder = Path(tempfile.mkdtemp(prefix="sim-"))
    made = Core(folder, directory)
    try:
        yield made
    finally:
        for role in list(made.processes):
            made.stop(role, kill=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def core(namespaces: None, directory: Directory) -> Iterator[Core]:
    """A core whose processes are not started yet."""
    with _core(directory) as made:
        yield made


@pytest.fixture
def plane(namespaces: None) -> Iterator[Core]:
    """The same for the user plane alone: without a directory."""
    with _core(None) as made:
        yield made
