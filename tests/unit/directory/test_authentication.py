"""SCRAM-SHA-256 and TLS with pymongo as the client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
from pathlib import Path
from typing import Any

import pymongo.errors
import pytest

from mvnobox.core.directory.scram import Conversation, Credential, Refused
from mvnobox.core.directory.settings import Tls, renewed, tls_context, users

IMSI = "208930000000001"
USERS = {"open5gs": "c0rrect-horse", "na,me=x": "other"}


async def test_only_users_read(start: Any) -> None:
    async with start(users=USERS) as directory:
        await directory.put(IMSI)
        for name, password in USERS.items():
            collection = directory.subscribers(username=name, password=password)
            assert (await asyncio.to_thread(collection.find_one, {"imsi": IMSI}))["imsi"] == IMSI
        strangers: list[dict[str, Any]] = [
            {"username": "open5gs", "password": "wrong"},
            {"username": "nobody", "password": "c0rrect-horse"},
            {"username": "open5gs", "password": "c0rrect-horse", "authMechanism": "SCRAM-SHA-1"},
            {},
        ]
        for stranger in strangers:
            collection = directory.subscribers(**stranger)
            with pytest.raises(pymongo.errors.OperationFailure) as caught:
                await asyncio.to_thread(collection.find_one, {"imsi": IMSI})
            assert caught.value.code == (18 if stranger else 13)
            assert "security" not in str(caught.value.details)


async def test_over_tls(start: Any, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with start(users=USERS, tls=context) as directory:
        await directory.put(IMSI)
        options = {"username": "open5gs", "password": "c0rrect-horse", "tls": True}
        collection = directory.subscribers(tlsCAFile=str(cert), **options)
        assert await asyncio.to_thread(collection.find_one, {"imsi": IMSI})
        reader, writer = await asyncio.open_connection("127.0.0.1", directory.port)
        writer.write(b"\x10\0\0\0" * 8)
        assert b"subscriber" not in await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_a_new_certificate_is_taken(start: Any, certificate: Any, make_certificate: Any, caplog: Any) -> None:
    tls = Tls(cert=str(certificate[0]), key=str(certificate[1]))
    context = tls_context(tls)
    assert context is not None
    watching = asyncio.create_task(renewed(tls, context, 0.01))

    async def shown(port: int) -> str:
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))

    async with start(tls=context) as directory:
        first = await shown(directory.port)
        # Rubbish meanwhile does no harm.
        certificate[0].write_text("half")
        async with asyncio.timeout(10):
            while "not taken" not in caplog.text:
                await asyncio.sleep(0)
        assert await shown(directory.port) == first
        make_certificate(certificate)
        async with asyncio.timeout(10):
            while (second := await shown(directory.port)) == first:
                await asyncio.sleep(0)
        assert second.strip() == certificate[0].read_text().strip()
    watching.cancel()


def proof(password: str, first: str, answer: str, final: str) -> str:
    """The client's side of RFC 5802, section 3, for what a test sends."""
    fields = dict(part.split("=", 1) for part in answer.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(client).digest(), f"{first},{answer},{final}".encode(), "sha256")
    return base64.b64encode(bytes(a ^ b for a, b in zip(client, signature, strict=True))).decode()


def conversation() -> tuple[Conversation, str, str]:
    begun = Conversation({"u": Credential.of("p")})
    first = "n=u,r=abc"
    return begun, first, begun.first(f"n,,{first}".encode()).decode()


def test_a_right_proof_is_taken_and_any_other_is_not() -> None:
    begun, first, answer = conversation()
    nonce = answer.split(",")[0]
    final = f"c=biws,{nonce}"
    assert begun.final(f"{final},p={proof('p', first, answer, final)}".encode()).startswith(b"v=")
    right = proof("p", first, answer, final)
    for wrong in (
        f"{final},p={proof('q', first, answer, final)}",
        f"c=eSws,{nonce},p={right}",
        f"c=biws,r=abc,p={right}",
        f"{final},p=AAAA",
        f"{final},p=%%%",
        f"{final}",
        "",
    ):
        begun._nonce = nonce[2:]
        with pytest.raises(Refused):
            begun.final(wrong.encode())


@pytest.mark.parametrize(
    "first", [b"", b"p=tls-unique,,n=u,r=a", b"n,a=x,n=u,r=a", b"n,,n=u", b"n,,r=a", b"\xff", b"n" * 9999]
)
def test_a_wrong_first_message_is_refused(first: bytes) -> None:
    with pytest.raises(Refused):
        Conversation({"u": Credential.of("p")}).first(first)


@pytest.mark.parametrize("given", ["{", "[]", "{}", '{"a": 1}', '{"a": ""}', '{"a": "pä"}'])
def test_wrong_users_end_the_start_without_showing_a_password(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        users(given)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "DIRECTORY_USERS" in said and "pä" not in said
