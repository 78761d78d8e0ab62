"""What more than one kind of test needs: a real PostgreSQL, and the closing table of what did not run."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tests.ports import free_port

# A machine that stands still for a moment is no fault of what is tested.
settings.register_profile("kit", deadline=None)
settings.load_profile("kit")

ROOT = Path(__file__).resolve().parents[1]
TENANTS = ("alpha", "beta")


def _postgres_bin() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def _as_postgres(command: list[str]) -> list[str]:
    # PostgreSQL refuses to run as root.
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@pytest.fixture(scope="session")
def pg_admin_dsn() -> Iterator[str]:
    """The superuser's DSN of a PostgreSQL server that lives as long as the test session (fsync on)."""
    binaries = _postgres_bin()
    if binaries is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    data = Path(tempfile.mkdtemp(prefix="mvno-pg-"))
    port = free_port()
    if os.geteuid() == 0:
        shutil.chown(data, "postgres", "postgres")
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run(
        _as_postgres(
            [
                str(binaries / "initdb"),
                "-D",
                str(data / "db"),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
            ]
        ),
        **run,
    )
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {data} -c max_connections=200"
    control = [str(binaries / "pg_ctl"), "-D", str(data / "db"), "-w"]
    subprocess.run(_as_postgres([*control, "-l", str(data / "log"), "-o", options, "start"]), **run)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(_as_postgres([*control, "-m", "immediate", "stop"]), **run)
        shutil.rmtree(data, ignore_errors=True)


@dataclass(frozen=True)
class Database:
    """A fresh database with the platform's and two tenants' roles, made by the SQL that the charts run."""

    host: str
    name: str
    admin_dsn: str
    passwords: dict[str, str]

    def dsn(self, role: str) -> str:
        return f"postgresql://{role}:{self.passwords[role]}@{self.host}/{self.name}"


def _psql(dsn: str, sql: str, env: dict[str, str]) -> None:
    psql = shutil.which("psql")
    assert psql, "psql is not installed"
    done = subprocess.run([psql, "-X", "-q", dsn], input=sql, text=True, capture_output=True, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr


@pytest.fixture
def pg_database(pg_admin_dsn: str) -> Iterator[Database]:
    """See `Database`. Roles are the server's, so their passwords are the same for a whole session."""
    name = f"mvno_{secrets.token_hex(4)}"
    templates = Environment(loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, autoescape=False)
    passwords = {"ocs": "ocs-password", "directory": "directory-password"}
    _psql(
        pg_admin_dsn,
        templates.get_template("postgresql/bootstrap.sql.j2").render(database=name),
        {"OCS_PASSWORD": passwords["ocs"], "DIRECTORY_PASSWORD": passwords["directory"]},
    )
    host = pg_admin_dsn.rsplit("@", 1)[1].split("/", 1)[0]
    admin = pg_admin_dsn.rsplit("/", 1)[0] + f"/{name}"
    for brand in TENANTS:
        tenant = {"BSS_PASSWORD": f"bss-{brand}", "CTF_PASSWORD": f"ctf-{brand}"}
        _psql(admin, templates.get_template("postgresql/tenant.sql.j2").render(database=name, brand=brand), tenant)
        passwords |= {f"bss_{brand}": tenant["BSS_PASSWORD"], f"ctf_{brand}": tenant["CTF_PASSWORD"]}
    yield Database(host=host, name=name, admin_dsn=admin, passwords=passwords)
    _psql(pg_admin_dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);', {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nothing is skipped silently: a closing table says what did not run and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        terminalreporter.write_line("Not run: nothing; every test ran.")
        return
    reasons: dict[str, list[str]] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    terminalreporter.section("Not run, and why")
    for reason, nodes in sorted(reasons.items()):
        terminalreporter.write_line(f"{len(nodes):4}  {reason}")
        for node in nodes:
            terminalreporter.write_line(f"      {node}")


@dataclass(frozen=True)
class Cluster:
    """The embedded cluster of this machine."""

    kubeconfig: str
    context: str


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A real Kubernetes, brought up if it is not there."""
    if os.geteuid() != 0:
        pytest.skip("the embedded cluster needs root")
    from mvnobox.deploy.cluster import EmbeddedCluster
    from mvnobox.deploy.cluster.embedded import CONTEXT
    from mvnobox.deploy.report import PlainReporter

    made = EmbeddedCluster()
    made.up(PlainReporter())
    return Cluster(str(made.kubeconfig), CONTEXT)
