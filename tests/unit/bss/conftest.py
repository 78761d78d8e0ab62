"""Real BSS processes of several brands over one PostgreSQL with the real roles and migrations, and a real OCS process."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nacl.public import PrivateKey
from tests.ports import free_port

from mvnobox.service import database as service_database

ROOT = Path(__file__).resolve().parents[3]
OCS_KEY, SIM_KEY, ADMIN = "11" * 32, "22" * 32, "operators-own"
ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
PRODUCTS = "/tmf-api/productInventory/v4/product"
PARTIES = "/tmf-api/partyManagement/v4/individual"
OFFERS = "/tmf-api/productCatalogManagement/v4/productOffering"
BALANCE = "/tmf-api/prepayBalanceManagement/v4"


def wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(log.read_text())


def migrate(dsn: str, room: str) -> None:
    with ThreadPoolExecutor(1) as elsewhere:  # a test's own loop may be running
        folder = ROOT / "src/mvnobox" / room / "migrations"
        elsewhere.submit(lambda: asyncio.run(service_database.migrate(dsn, folder))).result()


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """Ask until there is a true answer."""
    deadline = time.monotonic() + seconds
    while not (found := await what()):
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.05)
    return found


@dataclass
class World:
    """One database, one OCS; brands are added as tests need them."""

    folder: Path
    admin_dsn: str
    name: str
    ocs_port: int = 0
    made: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def dsn(self, role: str, password: str) -> str:
        host = self.admin_dsn.rsplit("@", 1)[1].split("/", 1)[0]
        return f"postgresql://{role}:{password}@{host}/{self.name}"

    def psql(self, dsn: str, template: str, environment: dict[str, str], **values: Any) -> None:
        templates = Environment(
            loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, autoescape=False
        )
        sql = templates.get_template(template).render(database=self.name, **values)
        psql = shutil.which("psql")
        assert psql
        done = subprocess.run(
            [psql, "-X", "-q", dsn], input=sql, text=True, capture_output=True, env={**os.environ, **environment}
        )
        assert done.returncode == 0, done.stderr

    def start(self, module: str, config: Path, environment: dict[str, str], port: int) -> subprocess.Popen[bytes]:
        log = config.with_suffix(".log")
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "serve", "--config", str(config)],
                env={**os.environ, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        wait_ready(port, process, log)
        return process

    def start_ocs(self) -> subprocess.Popen[bytes]:
        self.ocs_port = self.ocs_port or free_port()
        config = self.folder / "ocs.yaml"
        config.write_text(f"listen: 127.0.0.1:{self.ocs_port}\n")
        environment = {"DATABASE_URL": self.dsn("ocs", "ocs-password"), "OCS_TENANT_KEY": OCS_KEY}
        return self.start("mvnobox.charging", config, environment, self.ocs_port)

    def brand(self, name: str, like: str, *, ocs: int | None = None, **changes: Any) -> Bss:
        """A brand with its role, schema and migrations; its BSS is not started yet."""
        data = yaml.safe_load((ROOT / "brands" / f"{like}.yaml").read_text())
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**data, "name": name, **changes}))
        password = {"BSS_PASSWORD": f"bss-{name}", "CTF_PASSWORD": f"ctf-{name}"}
        admin = self.admin_dsn.rsplit("/", 1)[0] + f"/{self.name}"
        self.psql(admin, "postgresql/tenant.sql.j2", password, brand=name)
        made = Bss(self, name, file, ocs or self.ocs_port)
        migrate(made.dsn, "bss")
        return made

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait(10)


@dataclass
class Bss:
    """One brand's BSS."""

    world: World
    name: str
    file: Path
    ocs_port: int
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return self.world.dsn(f"bss_{self.name}", f"bss-{self.name}")

    @property
    def ocs_token(self) -> str:
        return f"{self.name}.{hmac.new(bytes.fromhex(OCS_KEY), self.name.encode(), hashlib.sha256).hexdigest()}"

    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.dsn,
            "OCS_TOKEN": self.ocs_token,
            "DIRECTORY_PUBLIC_KEY": bytes(PrivateKey(bytes(range(32))).public_key).hex(),
            "SIM_KEY": SIM_KEY,
            "BSS_ADMIN_TOKEN": ADMIN,
        }

    def config(self) -> Path:
        self.port = self.port or free_port()
        config = self.world.folder / f"bss-{self.name}.yaml"
        settings = {
            "brandSpec": str(self.file),
            "listen": f"127.0.0.1:{self.port}",
            "ocs": f"http://127.0.0.1:{self.ocs_port}",
        }
        config.write_text(yaml.safe_dump(settings))
        return config

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mvnobox.bss", arguments[0], "--config", str(self.config()), *arguments[1:]],
            env={**os.environ, **self.environment()},
            capture_output=True,
            text=True,
        )

    def start(self) -> Bss:
        self.process = self.world.start("mvnobox.bss", self.config(), self.environment(), self.port)
        return self

    def kill(self) -> None:
        """As the machine's power fails."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def client(self, **options: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {ADMIN}", **options.pop("headers", {})}
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30, trust_env=False, **options
        )

    def public(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def ocs(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.world.ocs_port}",
            headers={"Authorization": f"Bearer {self.ocs_token}"},
            timeout=10,
            trust_env=False,
        )


async def roam(bss: Bss, subscriber: str, granted: int, used: int) -> None:
    """A session in the United States, where the plans of the tests' brands sell data by the unit: out of the balance."""
    charging = "/nchf-convergedcharging/v3/chargingdata"

    def request(sequence: int, **usage: Any) -> dict[str, Any]:
        return {
            "subscriberIdentifier": subscriber,
            "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
            "invocationTimeStamp": "2026-11-24T12:00:00Z",
            "invocationSequenceNumber": sequence,
            "multipleUnitUsage": [{"ratingGroup": 1, **usage}],
            "pDUSessionChargingInformation": {
                "pduSessionInformation": {"servingCNPlmnId": {"mcc": "310", "mnc": "260"}}
            },
        }

    async with bss.ocs() as ocs:
        opened = await ocs.post(charging, json=request(1, requestedUnit={"totalVolume": granted}))
        assert opened.status_code == 201, opened.text
        container = [{"localSequenceNumber": 1, "totalVolume": used}]
        done = await ocs.post(f"{opened.headers['location']}/release", json=request(2, usedUnitContainer=container))
        assert done.status_code == 204


def order(plan: str, **more: Any) -> dict[str, Any]:
    """An order of a customer who showed a passport."""
    return {
        "productOrderItem": [{"productOffering": {"id": plan}}],
        "relatedParty": [
            {
                "givenName": "Ada",
                "familyName": "Martin",
                "individualIdentification": [{"identificationType": "passport", "identificationId": "P1"}],
            }
        ],
        **more,
    }


async def completed(client: httpx.AsyncClient, placed: dict[str, Any], seconds: float = 20) -> dict[str, Any]:
    """The order when it has ended well."""

    async def ended() -> Any:
        found = (await client.get(placed["href"])).json()
        return found if found["state"] not in ("acknowledged", "inProgress") else None

    found: dict[str, Any] = await until(ended, seconds)
    assert found["state"] == "completed", found
    return found


async def line(client: httpx.AsyncClient, plan: str) -> dict[str, Any]:
    """A line that works: {id, msisdn, iccid}."""
    placed = await client.post(ORDERS, json=order(plan))
    assert placed.status_code == 201, placed.text
    product = (await completed(client, placed.json()))["productOrderItem"][0]["product"]
    return {"id": product["id"], **{c["name"]: c["value"] for c in product["productCharacteristic"]}}


@pytest.fixture(scope="session")
def world(pg_admin_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("bss"), pg_admin_dsn, f"bss_{secrets.token_hex(4)}")
    passwords = {"OCS_PASSWORD": "ocs-password", "DIRECTORY_PASSWORD": "directory-password"}
    made.psql(pg_admin_dsn, "postgresql/bootstrap.sql.j2", passwords)
    migrate(made.dsn("directory", "directory-password"), "core/directory")
    migrate(made.dsn("ocs", "ocs-password"), "charging")
    try:
        made.start_ocs()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def alpha(world: World) -> Bss:
    """A brand in France, where identity is verified first; its plans are billed."""
    return world.brand("alpha", "silverline").start()


@pytest.fixture(scope="session")
def beta(world: World) -> Bss:
    """A prepaid brand in Canada."""
    return world.brand("beta", "encore").start()


@pytest.fixture
async def a(alpha: Bss) -> AsyncIterator[httpx.AsyncClient]:
    async with alpha.client() as client:
        yield client


@pytest.fixture
async def b(beta: Bss) -> AsyncIterator[httpx.AsyncClient]:
    async with beta.client() as client:
        yield client


@pytest.fixture
async def database(world: World) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's view of everything."""
    connection = await asyncpg.connect(world.admin_dsn.rsplit("/", 1)[0] + f"/{world.name}")
    yield connection
    await connection.close()


@pytest.fixture
def fresh_brand(world: World) -> Callable[..., Bss]:
    """A brand of a test's own."""

    def make(**changes: Any) -> Bss:
        # The directory is everybody's: each brand has identities and numbers of its own.
        world.made += 1
        n = world.made
        own = {
            "plmn": {"mcc": "302", "mnc": f"{100 + n:03d}"},
            "numberRange": {"first": f"+14166{n:02d}0000", "last": f"+14166{n:02d}9999"},
        }
        return world.brand(f"brand{n}", "encore", **{**own, **changes})

    return make
