"""The subscriber directory: look-ups (find by IMSI over the wire) at 1,000 and 100,000 subscribers, provisioning. JSON.

The server runs as in a pod, as one process held on one core; PostgreSQL and the clients have the other cores. Eight
clients ask for subscribers at random, each as soon as it is answered (Open5GS's NFs hold one connection each), then
three thousand times a second in all. The best of sixteen short rounds counts, because a machine that does other things
besides disturbs single ones; the processor time that the server takes for one look-up does not depend on them.
Provisioning goes past the server, straight into PostgreSQL, and has all cores.
`--most 1000000` adds that size. Run by `./mvno bench directory_lookup --json`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import asyncpg
import bson
import shipped
import uvloop
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nacl.public import PrivateKey, SealedBox
from processes import cpu_seconds, parent

ROOT = Path(__file__).resolve().parents[1]
SIZES = (1_000, 100_000)
CLIENTS = 8
ROUNDS, SECONDS = 16, 1.0
RATE = 3_000
FIRST_IMSI = 208_930_000_000_000
KEYS = {"k": "465b5ce8b199b49faa5f0a2ee238a6bc", "opc": "cd63cb71954a9f4e48a5994e37a02baf", "amf": "8000"}
Figures = dict[str, tuple[float, str, float | None]]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """`host:port/database` of a throw-away server with the platform's roles; all passwords are `bench`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not found:
        raise SystemExit("PostgreSQL's server programs are not installed")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data, port = Path(tempfile.mkdtemp(prefix="mvno-bench-")), free_port()
    if as_user:
        shutil.chown(data, "postgres", "postgres")

    def quietly(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

    control = [str(found[-1] / "pg_ctl"), "-D", str(data / "db"), "-w"]
    quietly(str(found[-1] / "initdb"), "-D", str(data / "db"), "-U", "postgres", "-A", "trust")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {data} -c shared_buffers=256MB -c max_wal_size=4GB"
    quietly(*control, "-l", str(data / "log"), "-o", options, "start")
    try:
        templates = Environment(loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined)
        names = {f"{name}_PASSWORD": "bench" for name in ("OCS", "DIRECTORY", "BSS", "CTF")}
        for file, database in (("bootstrap", "postgres"), ("tenant", "mvno")):
            sql = templates.get_template(f"postgresql/{file}.sql.j2").render(database="mvno", brand="bench")
            there = f"postgresql://postgres@127.0.0.1:{port}/{database}"
            psql = ["psql", "-X", "-q", there]
            environment = {**os.environ, **names}
            subprocess.run(psql, input=sql, text=True, env=environment, check=True, stdout=subprocess.DEVNULL)
        yield f"127.0.0.1:{port}/mvno"
    finally:
        quietly(*control, "-m", "immediate", "stop")
        shutil.rmtree(data, ignore_errors=True)


def documents() -> list[str]:
    """What the plans of a few brands look like."""
    rate = {"downlink": {"value": 50, "unit": 2}, "uplink": {"value": 10, "unit": 2}}
    arp = {"priority_level": 8, "pre_emption_capability": 1, "pre_emption_vulnerability": 2}
    session = {"name": "internet", "type": 1, "qos": {"index": 9, "arp": arp}, "ambr": rate, "pcc_rule": []}
    rest = {"subscriber_status": 0, "operator_determined_barring": 0, "network_access_mode": 0}
    rest |= {"access_restriction_data": 32, "subscribed_rau_tau_timer": 12}
    slices = [{"sst": 1, "sd": f"{plan:06x}", "default_indicator": True, "session": [session]} for plan in range(20)]
    return [json.dumps({"ambr": rate, "slice": [one], **rest}) for one in slices]


async def fill(dsn: str, size: int, sealed: bytes) -> None:
    """As many subscribers as that, each with a number; straight into the tables, for speed."""
    connection = await asyncpg.connect(f"postgresql://directory:bench@{dsn}")
    await connection.execute(
        """INSERT INTO subscriber (imsi, owner, sealed, document, msisdn)
            SELECT ($1::bigint + i)::text, 'bench', $2, ($3::jsonb[])[1 + i % 20], ARRAY[(33600000000 + i)::text]
            FROM generate_series((SELECT count(*) FROM subscriber), $4 - 1) i""",
        FIRST_IMSI,
        sealed,
        documents(),
        size,
        timeout=1200,
    )
    await connection.execute("VACUUM ANALYZE subscriber", timeout=600)
    await connection.close()
    # What filling left to write would be written meanwhile.
    connection = await asyncpg.connect(f"postgresql://postgres@{dsn}")
    await connection.execute("CHECKPOINT", timeout=600)
    await connection.close()


class Client(asyncio.Protocol):
    """One connection that asks for one subscriber after the other."""

    def __init__(self, size: int) -> None:
        imsi = b"0" * 15
        body = bson.encode({"find": "subscribers", "filter": {"imsi": imsi.decode()}, "$db": "open5gs"})
        at = body.index(imsi)
        self._head = struct.pack("<iiiiI", 21 + len(body), 1, 0, 2013, 0) + b"\0" + body[:at]
        self._tail = body[at + 15 :]
        self._size = size
        self._answer: asyncio.Future[bytes] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) == int.from_bytes(self._data[:4], "little") and self._answer is not None:
            self._answer.set_result(self._data)
            self._data = b""

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the directory closed a connection"))

    async def ask(self) -> None:
        imsi = str(FIRST_IMSI + random.randrange(self._size)).encode()
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(self._head + imsi + self._tail)
        answer = await self._answer
        if imsi not in answer or b"security" not in answer:
            raise ValueError(f"a wrong answer: {answer!r:.200}")


def percentile(times: list[float], part: float) -> float:
    """In milliseconds."""
    return round(1000 * sorted(times)[int(part * (len(times) - 1))], 2)


async def load(port: int, size: int, seconds: float, rate: float = 0) -> tuple[float, list[float]]:
    """(answers a second, seconds each): as fast as they come, or at a rate."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: Client(size), "127.0.0.1", port))[1] for _ in range(CLIENTS)]
    times: list[float] = []
    began = time.perf_counter()

    async def work(number: int, client: Client) -> None:
        turn = began + number / rate if rate else 0.0
        while (now := time.perf_counter()) - began < seconds:
            if turn > now:
                await asyncio.sleep(turn - now)
                now = time.perf_counter()
            await client.ask()
            times.append(time.perf_counter() - now)
            turn += CLIENTS / rate if rate else 0.0

    await asyncio.gather(*(work(number, client) for number, client in enumerate(clients)))
    for client in clients:
        client.transport.close()
    return len(times) / (time.perf_counter() - began), times


async def spread(dsn: str, cores: set[int]) -> None:
    """Let this process and PostgreSQL's next ones run on these cores."""
    connection = await asyncpg.connect(f"postgresql://directory:bench@{dsn}")
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    postmaster = parent(backend)
    await connection.close()
    for process in (0, postmaster):
        os.sched_setaffinity(process, cores)


async def provision(dsn: str, first: int, sealed: bytes) -> float:
    """Subscribers a second through directory.put_subscriber, a transaction each, four at a time."""
    plans = documents()
    pool = await asyncpg.create_pool(f"postgresql://bss_bench:bench@{dsn}", min_size=4, max_size=4)
    numbers = iter(range(first, first + 4_000))

    async def work() -> None:
        async with pool.acquire() as connection:
            statement = await connection.prepare("SELECT directory.put_subscriber($1, $2, $3, $4)")
            for i in numbers:
                await statement.fetchval(str(FIRST_IMSI + i), [str(33_600_000_000 + i)], sealed, plans[i % 20])

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(4)))
    took = time.perf_counter() - began
    await pool.close()
    return 4_000 / took


async def provision_many(dsn: str, first: int, sealed: bytes) -> float:
    """Subscribers a second through directory.put_subscribers, a thousand a transaction, one after the other."""
    plans = documents()
    connection = await asyncpg.connect(f"postgresql://bss_bench:bench@{dsn}")
    began = time.perf_counter()
    for start in range(first, first + 10_000, 1_000):
        some = range(start, start + 1_000)
        await connection.fetchval(
            "SELECT directory.put_subscribers($1, $2, $3, $4)",
            [str(FIRST_IMSI + i) for i in some],
            [str(33_600_000_000 + i) for i in some],
            [sealed] * 1_000,
            [plans[i % 20] for i in some],
        )
    took = time.perf_counter() - began
    await connection.close()
    return 10_000 / took


@contextlib.contextmanager
def directory(dsn: str, key: PrivateKey, core: int) -> Iterator[tuple[int, int]]:
    """(port, process id) of a directory server, held on one core."""
    port = free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": f"postgresql://directory:bench@{dsn}",
        "DIRECTORY_PRIVATE_KEY": bytes(key).hex(),
        "LOG_LEVEL": "WARNING",
        "PYTHONPATH": shipped.path(),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as settings:
        settings.write(f"listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{free_port()}\n")
        settings.flush()
        base = [shipped.python(), "-m", "mvnobox.core.directory"]
        subprocess.run([*base, "migrate", "--config", settings.name], env=environment, check=True, stdout=sys.stderr)
        server = subprocess.Popen([*base, "serve", "--config", settings.name], env=environment, stdout=sys.stderr)
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the directory did not start")
                time.sleep(0.1)
            for thread in Path(f"/proc/{server.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
            yield port, server.pid
        finally:
            server.terminate()
            server.wait(10)


async def measure(dsn: str, key: PrivateKey, sizes: list[int], port: int, pid: int, cores: list[int]) -> Figures:
    """{figure: (value, unit, target)}."""
    figures: Figures = {}
    sealed = SealedBox(key.public_key).encrypt(json.dumps(KEYS).encode())
    medians = []
    for size in sizes:
        say(f"{size} subscribers")
        await fill(dsn, size, sealed)
        await load(port, size, 2)
        used = cpu_seconds(pid)
        rounds = [await load(port, size, SECONDS) for _ in range(ROUNDS)]
        used = (cpu_seconds(pid) - used) / sum(len(times) for _, times in rounds)
        per_second = max(one[0] for one in rounds)
        # What half of the look-ups took: a machine that is busy besides changes the slower half.
        medians.append(sorted(percentile(one[1], 0.5) for one in rounds)[len(rounds) // 2])
        figures[f"look-ups at {size}"] = (round(per_second), "1/s", 3_000)
        figures[f"p50, {CLIENTS} clients at {size}"] = (medians[-1], "ms", None)
        figures[f"p99, {CLIENTS} clients at {size}"] = (min(percentile(one[1], 0.99) for one in rounds), "ms", 3)
        figures[f"processor time of a look-up at {size}"] = (round(1e6 * used), "µs", None)
        rounds = [await load(port, size, SECONDS, RATE) for _ in range(ROUNDS)]
        paced, times = min(rounds, key=lambda one: percentile(one[1], 0.99))
        figures[f"p99 at {RATE}/s and {size}"] = (percentile(times, 0.99), "ms", 3)
        figures[f"reached of {RATE}/s at {size}"] = (round(paced), "1/s", None)
    figures[f"slower at {sizes[-1]} than at {sizes[0]}"] = (round(medians[-1] / medians[0], 2), "times", 1.2)
    # The server, which is held on a core, has no part in provisioning.
    await spread(dsn, set(cores))
    many = [await provision_many(dsn, sizes[-1] + 10_000 * i, sealed) for i in range(1, 4)]
    figures["provisioning, a thousand a call"] = (round(max(many)), "1/s", 2_000)
    single = [await provision(dsn, 2 * sizes[-1] + 4_000 * i, sealed) for i in range(3)]
    figures["provisioning, one a call, four at a time"] = (round(max(single)), "1/s", 2_000)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the largest number of subscribers")
    most = parser.parse_args().most
    sizes = sorted({size for size in (*SIZES, most) if size <= most})
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))  # PostgreSQL, started from here, inherits it
    key = PrivateKey.generate()
    loops = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with postgresql() as dsn, directory(dsn, key, cores[0]) as (port, pid), loops as runner:
        figures = runner.run(measure(dsn, key, sizes, port, pid, cores))
    document = {
        "bench": "directory_lookup",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {shipped.said()}",
        "figures": {
            name: {
                "value": value,
                "unit": unit,
                "target": target,
                "met": None if target is None else (value >= target if unit == "1/s" else value <= target),
            }
            for name, (value, unit, target) in figures.items()
        },
        "peer": None,
        "ratio": None,
    }
    print(json.dumps(document))


main()
