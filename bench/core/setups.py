"""PFCP session set-ups through the CTF: how many on one core, and what the CTF adds to one.

Everything but the CTF is kept off the CTF's core. The CTF and its PostgreSQL are as shipped (fsync and synchronous
commit on). Beside the rate by the clock, which others on the machine take part in, stands the CTF's own time on the
processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import shipped
from common import Unfit, free_port, wait_for_port
from ours import BRAND, KEY, Ours, Postgres
from peers import ACCOUNTS
from processes import cpu_seconds

HERE = Path(__file__).resolve().parent
SMF, CTF, UPF = "127.0.19.1", "127.0.19.2", "127.0.19.3"
OUTSTANDING = 32
# Between two set-ups that come one at a time, as phones do.
PAUSE_SECONDS = 0.02
SETTLED_SECONDS = 30


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _token() -> str:
    import hashlib
    import hmac

    return f"{BRAND}." + hmac.new(bytes.fromhex(KEY), BRAND.encode(), hashlib.sha256).hexdigest()


class Ctf:
    """The CTF between the bench's peers. `core`: the one it has for itself, None where there is one only."""

    def __init__(self, folder: Path, dsn: str, ocs: str, core: int | None) -> None:
        self.folder, self._core = folder, core
        folder.mkdir(parents=True, exist_ok=True)
        http = free_port()
        settings = {
            "brand": BRAND, "listen": CTF, "advertise": CTF, "upf": UPF, "http": f"127.0.0.1:{http}",
            "notifyUri": f"http://127.0.0.1:{http}", "ocs": ocs,
        }  # fmt: skip
        (folder / "ctf.yaml").write_text(json.dumps(settings))
        self._environment = {**os.environ, "DATABASE_URL": dsn, "OCS_TOKEN": _token(), "PYTHONPATH": shipped.path()}
        done = subprocess.run(self._command("migrate"), env=self._environment, capture_output=True, check=False)
        if done.returncode != 0:
            raise Unfit(f"the migrations failed: {done.stdout.decode()[-500:]}")
        with open(folder / "ctf.log", "ab") as log:
            self._process = subprocess.Popen(
                self._pinned(self._command("serve")), env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        wait_for_port(http, self._process)

    def _command(self, verb: str) -> list[str]:
        profile = os.environ.get("BENCH_PROFILE")
        how = ["-m", "cProfile", "-o", profile, "-m"] if profile and verb == "serve" else ["-m"]
        return [shipped.python(), *how, "mvnobox.n4", verb, "--config", str(self.folder / "ctf.yaml")]

    def _pinned(self, command: list[str]) -> list[str]:
        return command if self._core is None else ["taskset", "-c", str(self._core), *command]

    def cpu_seconds(self) -> float:
        """Time on the processor so far, all threads."""
        return cpu_seconds(self._process.pid)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def _peer(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, str(HERE / "peers.py"), *arguments])
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _drive(peer: str, seconds: float, outstanding: int, pause: float = 0.0) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "peers.py"), "smf", SMF, peer, str(seconds), str(outstanding), str(pause)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Unfit(f"the SMF's side ended with exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _count(dsn: str, *, settled: bool = False) -> int:
    """Sessions whose gate the UPF has opened; `settled`: as soon as there is none whose opening is under way."""
    connection = await asyncpg.connect(dsn)
    try:
        deadline = time.monotonic() + SETTLED_SECONDS
        while settled and await connection.fetchval("SELECT EXISTS (SELECT FROM session WHERE untold)"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"sessions that are not open {SETTLED_SECONDS} s after the last was answered")
            await asyncio.sleep(0.01)
        return int(await connection.fetchval("SELECT count(*) FROM session WHERE open AND NOT untold"))
    finally:
        await connection.close()


def _rounds(name: str, ctf: Ctf, dsn: str, seconds: float, rounds: int) -> dict[str, float]:
    """Medians of rounds with many outstanding, then of rounds with one."""
    ones: list[dict[str, float]] = []
    for number in range(rounds):
        before, used = asyncio.run(_count(dsn, settled=True)), ctf.cpu_seconds()
        one = _drive(CTF, seconds, OUTSTANDING)
        answered = time.monotonic()
        kept = asyncio.run(_count(dsn, settled=True)) - before
        late, used = time.monotonic() - answered, ctf.cpu_seconds() - used
        # A set-up whose gate opens after the time was up took that time as well.
        one["rate"] *= seconds / (seconds + late)
        one["core_ms"] = used / kept * 1000
        say(
            f"{name}, round {number + 1}: {one['rate']:.0f} set-ups/s, p50 {one['p50']:.1f} ms, p99 {one['p99']:.1f} ms,"
            f" {one['core_ms']:.2f} ms of the core each; {kept} kept, {one['refused']} refused, {one['lost']} lost"
        )
        if kept < one["made"]:
            raise RuntimeError(f"{one['made']} set-ups were answered and {kept} are kept")
        if one["refused"] or one["lost"]:
            raise RuntimeError(f"{one['refused']} set-ups were refused and {one['lost']} not answered")
        ones.append(one)
    alone = [[_drive(peer, min(seconds, 5), 1, PAUSE_SECONDS) for peer in (CTF, UPF)] for _ in range(rounds)]
    return {
        **{key: statistics.median(one[key] for one in ones) for key in ("rate", "p50", "p99", "core_ms")},
        "alone": statistics.median(with_["p50"] for with_, _ in alone),
        "without": statistics.median(without["p50"] for _, without in alone),
    }


def setups(folder: Path, figure: Any, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Figures. Raises Unfit where the machine cannot run it."""
    cores = sorted(os.sched_getaffinity(0))
    core = cores[-1] if len(cores) > 1 else None
    if core is not None:
        os.sched_setaffinity(0, set(cores[:-1]))
    figures: dict[str, Any] = {}
    try:
        with _peer("upf", UPF):
            port = free_port()
            postgres = Postgres(folder / "alone")
            try:
                with _peer("ocs", str(port)) as responder:
                    wait_for_port(port, responder)
                    ctf = Ctf(folder / "ctf", postgres.dsn, f"http://127.0.0.1:{port}", core)
                    try:
                        found = _rounds("CTF alone", ctf, postgres.dsn, seconds, rounds)
                    finally:
                        ctf.stop()
            finally:
                postgres.stop()
            figures["set-ups, CTF alone"] = figure(found["rate"], "1/s", 1000)
            figures["set-ups a second of one core, CTF alone"] = figure(1000 / found["core_ms"], "1/s", 1000)
            figures["set-ups, CTF alone: p50"] = figure(found["p50"], "ms")
            figures["set-ups, CTF alone: p99"] = figure(found["p99"], "ms")
            figures["one at a time through the CTF: p50"] = figure(found["alone"], "ms")
            figures["one at a time without the CTF: p50"] = figure(found["without"], "ms")
            figures["one at a time, with to without"] = figure(found["alone"] / found["without"], "ratio")
            ours = Ours(folder / "ocs", ACCOUNTS)
            # The OCS's tables are in `public` here: the CTF's must not meet them.
            dsn = ours.postgres.dsn.rsplit("/", 1)[0] + "/ctf"
            try:
                asyncio.run(_make_database(ours.postgres.dsn, "ctf"))
                ctf = Ctf(folder / "ctf-ocs", dsn, f"http://127.0.0.1:{ours.http[0]}", core)
                try:
                    found = _rounds("with the OCS", ctf, dsn, seconds, rounds)
                finally:
                    ctf.stop()
            finally:
                ours.stop()
            figures["set-ups with the OCS"] = figure(found["rate"], "1/s")
            figures["set-ups with the OCS: p99"] = figure(found["p99"], "ms")
            figures["one at a time through CTF and OCS: p50"] = figure(found["alone"], "ms")
    finally:
        os.sched_setaffinity(0, set(cores))
    return figures


async def _make_database(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
