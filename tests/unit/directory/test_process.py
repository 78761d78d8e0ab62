"""The service as a pod starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from nacl.public import PrivateKey
from tests.ports import free_port

KEY = PrivateKey.generate()
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def environment(pg_database: Any) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": pg_database.dsn("directory"),
        "DIRECTORY_PRIVATE_KEY": bytes(KEY).hex(),
        "DIRECTORY_USERS": '{"open5gs": "c0rrect-horse"}',
    }


def start(verb: str, config: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mvnobox.core.directory", verb, "--config", str(config)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_migrate_serve_and_stop(tmp_path: Path, environment: dict[str, str]) -> None:
    port, http = free_port(), free_port()
    config = tmp_path / "directory.yaml"
    config.write_text(f"listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{http}\ndatabase: open5gs\n")
    service = start("serve", config, environment)
    client = pymongo.MongoClient(
        "127.0.0.1", port, username="open5gs", password="c0rrect-horse", serverSelectionTimeoutMS=20_000
    )
    try:
        assert client.admin.command("ping")["ok"] == 1.0
        assert get(f"http://127.0.0.1:{http}/healthz") == (200, "ok")
        status, said = get(f"http://127.0.0.1:{http}/readyz")
        assert status == 503 and "migrations" in said
        migration = start("migrate", config, environment)
        out, _ = migration.communicate(timeout=60)
        assert migration.returncode == 0, out
        assert get(f"http://127.0.0.1:{http}/readyz") == (200, "ready")
        assert client["open5gs"]["subscribers"].find_one({"imsi": "208930000000001"}) is None
        assert 'directory_commands_total{command="find",ok="true"} 1.0' in get(f"http://127.0.0.1:{http}/metrics")[1]
        service.send_signal(signal.SIGTERM)
        began = time.monotonic()
        said, _ = service.communicate(timeout=10)
        assert service.returncode == 0 and time.monotonic() - began < 5
        assert '"msg": "serving subscribers"' in said
        for secret in (bytes(KEY).hex(), "c0rrect-horse", "directory-password"):
            assert secret not in said
    finally:
        client.close()
        service.kill()
        service.wait()


@pytest.mark.parametrize(
    ("text", "changes", "cause"),
    [
        ("lisen: 0.0.0.0:1", {}, "Known keys: listen, http, database, tls"),
        ("tls: {cert: /nowhere, key: /nowhere}", {}, "/nowhere"),
        ("{}", {"DIRECTORY_PRIVATE_KEY": "00"}, "32 octets"),
        ("{}", {"DIRECTORY_USERS": "open5gs:secret"}, "DIRECTORY_USERS: it is not JSON"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, environment: dict[str, str], text: str, changes: dict[str, str], cause: str
) -> None:
    config = tmp_path / "directory.yaml"
    config.write_text(text)
    process = start("serve", config, {**environment, **changes})
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2 and cause in said and "Traceback" not in said and "secret" not in said
