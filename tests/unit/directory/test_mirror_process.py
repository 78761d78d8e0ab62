"""The mirror as a pod runs it: its readiness, its metrics, what it says, and the commands beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.ports import free_port

from mvnobox.core.directory.mirror.target import NO_STREAMS
from mvnobox.deploy.journey.run import HAS_STREAMS

IMSI, OTHER = "208930000000001", "208930000000002"
PASSWORD = "c0rrect-horse"


class Pod:
    """The service's commands with one environment."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.http, self.environment = free_port(), {**os.environ, **environment}
        self.config = folder / "directory.yaml"
        self.config.write_text(f"listen: 127.0.0.1:{free_port()}\nhttp: 127.0.0.1:{self.http}\n")

    async def start(self, verb: str, **changes: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mvnobox.core.directory", verb, "--config", str(self.config),
            env={**self.environment, **changes},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    async def run(self, verb: str, **changes: str) -> tuple[int | None, str]:
        process = await self.start(verb, **changes)
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, said.decode()

    async def get(self, path: str) -> tuple[int, str]:
        def read() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        return await asyncio.to_thread(read)

    async def until(self, path: str, status: int, word: str = "") -> str:
        async with asyncio.timeout(60):
            while True:
                found, said = await self.get(path)
                if found == status and word in said:
                    return said
                await asyncio.sleep(0.05)


@pytest.fixture
async def pod(directory: Any, mongodb: Any, tmp_path: Path) -> AsyncIterator[Pod]:
    yield Pod(
        tmp_path,
        {
            "DATABASE_URL": directory.dsn("directory"),
            "DIRECTORY_PRIVATE_KEY": bytes(directory.key).hex(),
            "DIRECTORY_MIRROR": mongodb.uri,
        },
    )


async def end(process: asyncio.subprocess.Process) -> str:
    process.send_signal(signal.SIGTERM)
    said, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    return said.decode()


async def test_a_service_with_a_mirror_and_the_commands_beside_it(directory: Any, mongodb: Any, pod: Pod) -> None:
    code, said = await pod.run("mirror-resync")
    assert (code, said) == (1, "the directory does not run with this mirror\n")
    service = await pod.start("serve")
    try:
        await directory.put(IMSI, "33639980001")
        await directory.put(OTHER)
        await pod.until("/readyz", 200)
        metrics = await pod.until("/metrics", 200, 'directory_mirror_documents_total{result="inserted"} 2.0')
        assert "directory_mirror_up 1.0" in metrics and "directory_mirror_oldest_seconds" in metrics
        async with asyncio.timeout(20):
            while (await pod.run("mirror-check"))[0]:
                pass
        code, said = await pod.run("mirror-check")
        alone = "" if mongodb.has_streams else f"; the MongoDB {NO_STREAMS}"
        assert said.splitlines()[-2:] == [
            f"2 compared, 0 wait to be written, 0 documents are not the directory's{alone}",
            "0 differences",
        ]
        # What people and faults may do to the documents.
        subscribers = mongodb.subscribers
        await asyncio.to_thread(
            subscribers.update_one, {"imsi": IMSI}, {"$set": {"ambr.uplink.value": 1, "imeisv": "1"}}
        )
        await asyncio.to_thread(subscribers.update_one, {"imsi": IMSI}, {"$set": {"security.k": "0" * 32}})
        await asyncio.to_thread(subscribers.delete_one, {"imsi": OTHER})
        await asyncio.to_thread(subscribers.insert_one, {"imsi": "9"})
        of = (await asyncio.to_thread(subscribers.find_one, {"imsi": IMSI}))["mirror"]["of"]
        await asyncio.to_thread(subscribers.insert_one, {"imsi": "208930000000003", "mirror": {"of": of, "label": 0}})
        code, said = await pod.run("mirror-check")
        assert code == 1 and said.splitlines() == [
            f"{IMSI}: ambr, security.k",
            f"{OTHER}: it is not there",
            "208930000000003: it is there, and no subscriber",
            f"3 compared, 0 wait to be written, 1 documents are not the directory's{alone}",
            "3 differences",
        ]
        assert (await pod.run("mirror-resync"))[0] == 0
        async with asyncio.timeout(60):
            while (await pod.run("mirror-check"))[0]:
                pass
        assert (await asyncio.to_thread(subscribers.find_one, {"imsi": IMSI}))["imeisv"] == "1"
    finally:
        said = await end(service)
    assert "the MongoDB follows" in said and "Traceback" not in said
    assert (NO_STREAMS in said) is not mongodb.has_streams


@pytest.mark.parametrize("mirror", [True, False])
async def test_a_journey_asks_in_the_pod_whether_an_hss_learns_of_changes(mongodb: Any, mirror: bool) -> None:
    environment = {**os.environ, "DIRECTORY_MIRROR": mongodb.uri if mirror else ""}
    asked = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HAS_STREAMS, env=environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(asked.communicate(), 30)
    assert json.loads(said) == {"streams": mongodb.has_streams if mirror else True}


async def test_a_mongodb_that_refuses_is_said_without_its_password(directory: Any, mongodb: Any, pod: Pod) -> None:
    """FerretDB without users refuses SCRAM as a MongoDB refuses a wrong password."""
    parts = urlsplit(mongodb.uri)
    uri = urlunsplit(parts._replace(netloc=f"somebody:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"))
    service = await pod.start("serve", DIRECTORY_MIRROR=uri)
    try:
        said = await pod.until("/readyz", 503, "does not answer (OperationFailure")
        await directory.put(IMSI)
        assert PASSWORD not in said + await pod.until("/readyz", 503, "; 1 subscribers wait")
        await pod.until("/metrics", 200, "directory_mirror_up 0.0")
        code, said = await pod.run("mirror-check", DIRECTORY_MIRROR=uri)
        assert code == 1 and said.startswith("the mirror's MongoDB does not answer (") and PASSWORD not in said
    finally:
        said = await end(service)
    assert "does not answer (OperationFailure" in said and PASSWORD not in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        (f"postgresql://a:{PASSWORD}@db.example/open5gs", "is no mongodb://"),
        (f"mongodb://a:{PASSWORD}@db.example:27017", "is no mongodb://"),
        (f"mongodb://a:{PASSWORD}@db.example:99999/open5gs", "its options"),
        (f"mongodb://a:{PASSWORD}@db.example/open5gs?tls=true&tlsCAFile=/nowhere", "its options"),
    ],
)
async def test_a_uri_that_cannot_be_used_is_refused_without_being_shown(pod: Pod, uri: str, cause: str) -> None:
    code, said = await pod.run("serve", DIRECTORY_MIRROR=uri)
    assert code == 2 and "DIRECTORY_MIRROR" in said and cause in said
    assert PASSWORD not in said and "Traceback" not in said
