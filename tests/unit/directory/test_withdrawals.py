"""Who is suspended, removed or on another SIM is named to the AMF: at least once, and nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.ports import free_port

from mvnobox.core.directory import withdrawals
from mvnobox.core.directory.settings import AmfTls, DirectorySettings, client_context
from mvnobox.core.directory.store import make_pool
from mvnobox.core.directory.withdrawals import Withdrawals
from mvnobox.render.certificates import issue
from mvnobox.service.settings import load_settings
from mvnobox.service.web import serve_http

IMSI = "208930000000001"
PUT = "SELECT directory.set_subscriber_status($1, $2, 0)"


class Amf:
    """Takes the UDM's callback as Open5GS's AMF does; `answers` are what it says next, then 204."""

    def __init__(self, tls: Path | None = None) -> None:
        """`tls`: the folder of tls.crt, tls.key and ca.crt; then whoever has no certificate of ca.crt is turned away."""
        self.port, self.tls = free_port(), tls
        self.told: asyncio.Queue[tuple[str, dict[str, Any], str]] = asyncio.Queue()
        self.answers: list[int] = []

    async def notify(self, request: Request) -> Response:
        self.told.put_nowait((request.path_params["supi"], await request.json(), request.scope["http_version"]))
        return Response(status_code=self.answers.pop(0) if self.answers else 204)

    async def run(self) -> None:
        app = Starlette(routes=[Route("/namf-callback/v1/{supi}/dereg-notify", self.notify, methods=["POST"])])
        if self.tls is None:
            await serve_http(app, "127.0.0.1", self.port)
            return
        files = {"ssl_cert": self.tls / "tls.crt", "ssl_key": self.tls / "tls.key", "ssl_ca": self.tls / "ca.crt"}
        server = Server(
            app,
            address="127.0.0.1",
            port=self.port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http2,
            log_enabled=False,
            ssl_client_verify=True,
            **files,
        )
        try:
            await server.serve()
        finally:
            server.stop()

    async def hears(self) -> str:
        return (await asyncio.wait_for(self.told.get(), 20))[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "AGAIN_SECONDS", 0.2)


@pytest.fixture
async def amf(directory: Any, pg_database: Any) -> AsyncIterator[Amf]:
    """With two replicas of the directory that tell it."""
    made = Amf()
    pools = [await make_pool(pg_database.dsn("directory")) for _ in range(2)]
    work = [Withdrawals(pool, f"http://127.0.0.1:{made.port}").run() for pool in pools]
    tasks = [asyncio.create_task(one) for one in (made.run(), *work)]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in pools:
            pool.terminate()


async def waiting(directory: Any) -> int:
    count: int = await directory.sql("SELECT count(*) FROM directory.withdrawal", role="directory")
    return count


async def nobody_waits(directory: Any) -> None:
    async with asyncio.timeout(20):
        while await waiting(directory):
            await asyncio.sleep(0.05)


async def test_suspension_removal_and_another_sim_are_told(directory: Any, amf: Amf, example: Any) -> None:
    sealed = await directory.put(IMSI)
    # A new plan on the same SIM is none of it, nor is a first provisioning.
    example["ambr"]["uplink"]["value"] = 99
    await directory.put(IMSI, document=example, sealed=sealed)
    assert await waiting(directory) == 0
    await directory.sql(PUT, IMSI, 1)
    supi, body, version = await asyncio.wait_for(amf.told.get(), 20)
    assert (supi, version) == (f"imsi-{IMSI}", "2")
    assert body == {"deregReason": "SUBSCRIPTION_WITHDRAWN", "accessType": "3GPP_ACCESS"}
    await nobody_waits(directory)
    await directory.sql(PUT, IMSI, 1)  # it is already
    await directory.sql(PUT, IMSI, 0)
    assert await waiting(directory) == 0
    await directory.put(IMSI, document=example)
    assert await amf.hears() == f"imsi-{IMSI}"
    await nobody_waits(directory)
    await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
    assert await amf.hears() == f"imsi-{IMSI}"
    await nobody_waits(directory)
    assert amf.told.empty()


async def test_an_amf_that_fails_is_told_again(directory: Any, amf: Amf) -> None:
    await directory.put(IMSI)
    amf.answers = [503, 500]
    await directory.sql(PUT, IMSI, 1)
    for _ in range(3):
        assert await amf.hears() == f"imsi-{IMSI}"
    await nobody_waits(directory)


async def test_who_is_about_to_attach_is_named_twice(directory: Any, amf: Amf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "AGAIN_SECONDS", 0.2)
    await directory.put(IMSI)
    amf.answers = [404, 404]
    await directory.sql(PUT, IMSI, 1)
    assert [await amf.hears() for _ in range(2)] == [f"imsi-{IMSI}"] * 2
    await nobody_waits(directory)


async def test_a_change_in_between_is_not_lost(directory: Any, pg_database: Any) -> None:
    """What is withdrawn again while the AMF answers is told again; who is resumed before is not told."""
    await directory.put(IMSI)
    await directory.sql(PUT, IMSI, 1)
    assert await waiting(directory) == 1
    await directory.sql(PUT, IMSI, 0)
    assert await waiting(directory) == 0
    await directory.sql(PUT, IMSI, 1)
    before = await directory.sql("SELECT at FROM directory.withdrawal", role="directory")
    await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
    pool = await make_pool(pg_database.dsn("directory"))
    try:
        await pool.execute("DELETE FROM withdrawal WHERE imsi = $1 AND at = $2", IMSI, before)
        assert await waiting(directory) == 1
        # Without an AMF nobody is to be told.
        task = asyncio.create_task(Withdrawals(pool, None).run())
        await nobody_waits(directory)
        task.cancel()
    finally:
        pool.terminate()


async def test_keys_that_open_nothing_are_shown_until_the_amf_has_let_go(
    pg_database: Any, start: Any, example: Any
) -> None:
    """Open5GS's UDM drops a subscriber without keys, and with it the goodbye of the SMF."""
    async with start(tells_amf=True) as directory:
        await directory.put(IMSI, "33639980001")
        find = directory.subscribers().find_one

        async def keys() -> Any:
            return (await asyncio.to_thread(find, {"imsi": IMSI}) or {}).get("security")

        own = await keys()
        where = {"mme_host": "mme.host.example", "mme_realm": "host.example"}
        await asyncio.to_thread(directory.subscribers().update_one, {"imsi": IMSI}, {"$set": where})
        await directory.sql(PUT, IMSI, 1)
        shown = await keys()
        assert set(shown) == {"k", "op", "opc", "amf", "sqn"} and shown["op"] is None
        assert shown["k"] not in (own["k"], (await keys())["k"]) and len(bytes.fromhex(shown["opc"])) == 16
        assert (await asyncio.to_thread(find, {"imsi": IMSI}))["slice"] == example["slice"]
        await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
        assert (await keys())["k"] != own["k"]
        # The HSS asks where the location is to be cancelled.
        assert where.items() <= (await asyncio.to_thread(find, {"imsi": IMSI})).items()
        pool = await make_pool(pg_database.dsn("directory"))
        task = asyncio.create_task(Withdrawals(pool, None).run())
        await nobody_waits(directory)
        task.cancel()
        pool.terminate()
        assert await keys() is None


# Over TLS -----------------------------------------------------------------------------------------------------------

# Within the authority's bounds; leads to this machine here.
AMF_NAME = "amf.platform-dev.svc.cluster.local"


def certificates(folder: Path, seed: str = "11" * 32, host: str = AMF_NAME) -> Path:
    """tls.crt, tls.key and ca.crt as the kit makes them for the platform's functions."""
    folder.mkdir()
    for name, text in issue(seed, "dev", "platform-dev", [host], dt.datetime.now(dt.UTC).year).items():
        (folder / name).write_text(text)
    return folder


def files_of(folder: Path, ca: Path | None = None) -> AmfTls:
    return AmfTls(cert=f"{folder}/tls.crt", key=f"{folder}/tls.key", ca=f"{ca or folder}/ca.crt")


@pytest.fixture
def tells(
    directory: Any, pg_database: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., contextlib.AbstractAsyncContextManager[Amf]]:
    """An AMF with the certificate of a folder, and a directory that tells it by its name with an `AmfTls`."""
    connect = anyio.connect_tcp
    monkeypatch.setattr(anyio, "connect_tcp", lambda remote_host, **more: connect("127.0.0.1", **more))

    @contextlib.asynccontextmanager
    async def running(server: Path, tls: AmfTls) -> AsyncIterator[Amf]:
        amf = Amf(server)
        pool = await make_pool(pg_database.dsn("directory"))
        work = Withdrawals(pool, f"https://{AMF_NAME}:{amf.port}", client_context(tls)).run()
        tasks = [asyncio.create_task(one) for one in (amf.run(), work)]
        try:
            yield amf
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pool.terminate()

    return running


async def test_an_amf_is_told_over_tls_with_a_certificate_on_both_sides(
    directory: Any, tells: Any, tmp_path: Path
) -> None:
    ours = certificates(tmp_path / "ours")
    await directory.put(IMSI)
    async with tells(ours, files_of(ours)) as amf:
        await directory.sql(PUT, IMSI, 1)
        supi, body, version = await asyncio.wait_for(amf.told.get(), 20)
        assert (supi, body["deregReason"], version) == (f"imsi-{IMSI}", "SUBSCRIPTION_WITHDRAWN", "2")
        await nobody_waits(directory)


@pytest.mark.parametrize("wrong", ["the server's name", "the server's authority", "our authority"])
async def test_nobody_else_is_told_nor_tells(directory: Any, tells: Any, tmp_path: Path, wrong: str) -> None:
    """It stays to be told: once the certificate is right, the AMF hears of it."""
    ours, others = certificates(tmp_path / "ours"), certificates(tmp_path / "others", "22" * 32)
    nrf = certificates(tmp_path / "nrf", host="nrf.platform-dev.svc.cluster.local")
    server, tls = {
        "the server's name": (nrf, files_of(ours)),
        "the server's authority": (others, files_of(ours)),
        # Ours is signed by somebody whom the AMF does not know, and we know the AMF's authority.
        "our authority": (ours, files_of(others, ca=ours)),
    }[wrong]
    await directory.put(IMSI)
    async with tells(server, tls) as amf:
        await directory.sql(PUT, IMSI, 1)
        async with asyncio.timeout(20):
            while not await directory.sql("SELECT max(attempts) > 1 FROM directory.withdrawal", role="directory"):
                await asyncio.sleep(0.05)
        assert amf.told.empty() and await waiting(directory) == 1
    async with tells(ours, files_of(ours)) as amf:
        assert await amf.hears() == f"imsi-{IMSI}"
        await nobody_waits(directory)


def test_settings_that_cannot_be_used_end_the_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, others = certificates(tmp_path / "ours"), certificates(tmp_path / "others", "22" * 32)
    (others / "tls.crt").write_text((ours / "tls.crt").read_text())
    for tls in (files_of(tmp_path / "nowhere"), files_of(others)):
        with pytest.raises(SystemExit):
            client_context(tls)
        assert "amfTls" in capsys.readouterr().err
    config = tmp_path / "directory.yaml"
    config.write_text("amf: http://amf:7777\namfTls: {ca: a, cert: b, key: c}\n")
    with pytest.raises(SystemExit):
        load_settings(DirectorySettings, config)
    assert "amf is not https" in capsys.readouterr().err
