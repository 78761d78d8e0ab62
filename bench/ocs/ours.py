"""Our OCS for the bench: real processes over a PostgreSQL of its own, as shipped (fsync and synchronous commit on)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import asyncpg
import shipped
from common import FIRST_IMSI, GRANT, Unfit, free_port, wait_for_port

KEY = "5a" * 32
BRAND = "alpha"
QUOTA = 10 << 20


def _as_postgres(command: list[str]) -> list[str]:
    # PostgreSQL refuses to run as root.
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


class Postgres:
    """A throw-away server."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
        initdb = str(found[-1]) if found else shutil.which("initdb")
        if initdb is None:
            raise Unfit("PostgreSQL's server programs are not installed")
        self.folder, self._control, port = folder, str(Path(initdb).parent / "pg_ctl"), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
        self._data = str(folder / "db")
        subprocess.run(
            _as_postgres([initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]),
            **quiet,
        )  # type: ignore[call-overload]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c shared_buffers=512MB -c max_wal_size=4GB"
        command = [self._control, "-D", self._data, "-w", "-l", str(folder / "log"), "-o", options, "start"]
        subprocess.run(_as_postgres(command), **quiet)  # type: ignore[call-overload]
        self.dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def stop(self) -> None:
        command = [self._control, "-D", self._data, "-m", "fast", "-w", "stop"]
        subprocess.run(_as_postgres(command), stdout=subprocess.DEVNULL, cwd="/", check=False)


class Ours:
    """One or more replicas."""

    name = "mvno-in-a-box OCS"
    host = "ocs0.bench"

    def __init__(self, folder: Path, accounts: int, replicas: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder, self.accounts = folder, 0
        self.postgres = Postgres(folder / "postgresql")
        self.environment = {
            **os.environ,
            "DATABASE_URL": self.postgres.dsn,
            "OCS_TENANT_KEY": KEY,
            "PYTHONPATH": shipped.path(),
        }
        self.ports = [free_port() for _ in range(replicas)]
        self.http = [free_port() for _ in range(replicas)]
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(replicas):
                self._configure(number)
            done = subprocess.run(
                self._command("migrate", 0), env=self.environment, stdout=subprocess.PIPE, check=False
            )
            if done.returncode != 0:
                raise Unfit(f"the migrations failed: {done.stdout.decode()[-500:]}")
            self.fill(accounts)
            self.processes = [self._start(number) for number in range(replicas)]
        except BaseException:
            self.postgres.stop()
            raise

    @property
    def port(self) -> int:
        return self.ports[0]

    def way(self, front: str, *numbers: int) -> list[str]:
        """The client's options for a front end, `gy` or `http`, of some replicas: by default the first one alone."""
        ports = self.ports if front == "gy" else self.http
        addresses = ",".join(f"127.0.0.1:{ports[number]}" for number in numbers or (0,))
        if front == "gy":
            return ["-protocol", "gy", "-address", addresses]
        token = f"{BRAND}.{hmac.new(bytes.fromhex(KEY), BRAND.encode(), hashlib.sha256).hexdigest()}"
        return ["-protocol", "nchf", "-address", addresses, "-token", token]

    def _configure(self, number: int) -> None:
        settings = {
            "listen": f"127.0.0.1:{self.http[number]}",
            "quota": {"octets": QUOTA},
            "diameter": {
                "listen": f"127.0.0.1:{self.ports[number]}",
                "originHost": f"ocs{number}.bench",
                "originRealm": "bench",
                "peers": [{"host": name, "brand": BRAND} for name in ("pgw.bench", "pgw2.bench")],
            },
        }
        (self.folder / f"ocs{number}.yaml").write_text(json.dumps(settings))

    def _command(self, verb: str, number: int) -> list[str]:
        return [shipped.python(), "-m", "mvnobox.charging", verb, "--config", str(self.folder / f"ocs{number}.yaml")]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        with open(self.folder / f"ocs{number}.log", "ab") as log:
            process = subprocess.Popen(
                self._command("serve", number), env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        for port in (self.ports[number], self.http[number]):
            wait_for_port(port, process)
        return process

    def kill(self) -> None:
        """kill -9 of the first replica, and start it again."""
        self.processes[0].send_signal(signal.SIGKILL)
        self.processes[0].wait()
        self.processes[0] = self._start(0)

    def fill(self, accounts: int) -> None:
        """As many accounts as that, each with one bucket."""
        asyncio.run(self._fill(self.accounts, accounts))
        self.accounts = accounts

    async def _fill(self, first: int, end: int) -> None:
        connection = await asyncpg.connect(self.postgres.dsn)
        await connection.execute(
            """WITH made AS (
                   INSERT INTO account (brand, account_id, currency, timezone, status)
                   SELECT $1, 'a' || n, 'EUR', 'UTC', 'active' FROM generate_series($2::bigint, $3::bigint - 1) n
                   RETURNING aid, substr(account_id, 2)::bigint AS n
               ), known AS (
                   INSERT INTO subscriber (subscriber_id, aid)
                   SELECT 'imsi-' || lpad(($4::bigint + n)::text, 15, '0'), aid FROM made
               ), filled AS (
                   INSERT INTO bucket (aid, unit, granted, priority, source)
                   SELECT aid, 'octets', $5, 10, 'plan:bench' FROM made RETURNING aid, id, granted
               ) INSERT INTO entry (aid, bucket, unit, debit, credit, amount)
                 SELECT aid, id, 'octets', 'source', 'available', granted FROM filled""",
            BRAND, first, end, FIRST_IMSI, GRANT,
        )  # fmt: skip
        await connection.execute("ANALYZE account, subscriber, bucket, entry")
        await connection.execute("CHECKPOINT")
        await connection.close()

    def charged(self) -> int:
        """Octets that the ledger's entries put down as used."""

        async def sums() -> int:
            connection = await asyncpg.connect(self.postgres.dsn)
            try:
                found = await connection.fetchval("SELECT coalesce(sum(amount), 0) FROM entry WHERE credit = 'used'")
                return int(found)
            finally:
                await connection.close()

        return asyncio.run(sums())

    def check(self) -> str:
        """What `check` says of the ledger's invariants."""
        done = subprocess.run(
            self._command("check", 0), env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.postgres.stop()
