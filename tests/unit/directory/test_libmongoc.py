"""libmongoc, the client library that Open5GS is linked to, making Open5GS's calls."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

IMSI, MSISDN = "208930000000001", "33639980001"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """open5gs_calls, compiled."""
    if not (shutil.which("gcc") and shutil.which("pkg-config")):
        pytest.skip("gcc or pkg-config is not installed")
    asked = subprocess.run(["pkg-config", "--cflags", "--libs", "libmongoc-1.0"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip("libmongoc's headers are not installed (Debian: libmongoc-dev)")
    made = tmp_path_factory.mktemp("libmongoc") / "open5gs_calls"
    source = Path(__file__).parent / "open5gs_calls.c"
    command = ["gcc", "-Wall", "-Werror", "-Wno-deprecated-declarations", "-o", made, source, *asked.stdout.split()]
    subprocess.run([str(part) for part in command], check=True)
    return made


async def run(program: Path, uri: str, *more: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        program, uri, IMSI, MSISDN, *more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, said.decode()


async def test_open5gs_calls(served: Any, program: Path) -> None:
    await served.put(IMSI, MSISDN)
    code, said = await run(program, served.uri, *([] if served.has_streams else ["unfollowed"]))
    assert code == 0, said
    assert ("ok change says what" in said) is served.has_streams


async def test_open5gs_calls_as_a_user(start: Any, program: Path) -> None:
    async with start(users={"open5gs": "c0rrect-horse"}) as directory:
        await directory.put(IMSI, MSISDN)
        there = f"127.0.0.1:{directory.port}/open5gs?authSource=admin"
        code, said = await run(program, f"mongodb://open5gs:c0rrect-horse@{there}")
        assert code == 0, said
        for wrong in ("open5gs:wrong@", "nobody:wrong@", ""):
            code, said = await run(program, f"mongodb://{wrong}{there}")
            assert code == 1 and ("uthentication" in said)


async def test_a_database_name_of_another_kind_holds_nobody(directory: Any, program: Path) -> None:
    await directory.put(IMSI, MSISDN)
    code, said = await run(program, f"mongodb://127.0.0.1:{directory.port}/other")
    assert code == 1 and "WRONG found by number" in said


async def test_open5gs_calls_over_tls(start: Any, program: Path, certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with start(users={"open5gs": "c0rrect-horse"}, tls=context) as directory:
        await directory.put(IMSI, MSISDN)
        there = f"127.0.0.1:{directory.port}/open5gs?authSource=admin&tls=true&tlsCAFile={certificate[0]}"
        code, said = await run(program, f"mongodb://open5gs:c0rrect-horse@{there}")
        assert code == 0, said
