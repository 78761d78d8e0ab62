"""The directory's settings: the file, and the secrets of the environment."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl

from pydantic import Field, model_validator

from mvnobox.core.directory.scram import Credential
from mvnobox.service.settings import Settings, refuse

log = logging.getLogger(__name__)


class Tls(Settings):
    """Files in PEM; the certificate with its chain."""

    cert: str
    key: str


class AmfTls(Tls):
    """What the AMF is called with: our certificate as a client, and the authorities of its own."""

    ca: str


class DirectorySettings(Settings):
    listen: str = "0.0.0.0:27017"
    http: str = "0.0.0.0:8081"
    database: str = Field(default="open5gs", pattern=r"^[A-Za-z0-9_-]{1,63}$")
    tls: Tls | None = None
    # The root of the AMF's SBI, where one is to be told of subscribers that are withdrawn.
    amf: str | None = Field(default=None, pattern=r"^https?://[^/\s]+$")
    amf_tls: AmfTls | None = None

    @model_validator(mode="after")
    def _tls_over_https(self) -> DirectorySettings:
        if self.amf_tls is not None and not (self.amf or "").startswith("https:"):
            raise ValueError("amfTls is there, and amf is not https")
        return self


def tls_context(tls: Tls | None) -> ssl.SSLContext | None:
    """The server's side of TLS 1.2 and later. Ends the process where a file is missing or wrong."""
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        refuse(f"tls: {tls.cert}, {tls.key}: {error}")
    return context


def client_context(tls: AmfTls | None) -> ssl.SSLContext | None:
    """The client's side of TLS 1.2 and later, with a certificate. Ends the process where a file is missing or wrong."""
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        refuse(f"amfTls: {tls.ca}, {tls.cert}, {tls.key}: {error}")
    return context


async def renewed(tls: Tls, context: ssl.SSLContext, every: float = 60.0) -> None:
    """Take a certificate's new files for connections to come, looking every so many seconds; until cancelled."""

    def state() -> list[tuple[int, int]]:
        return [(found.st_mtime_ns, found.st_ino) for found in map(os.stat, (tls.cert, tls.key))]

    known = state()
    while True:
        await asyncio.sleep(every)
        try:
            if (now := state()) == known:
                continue
            context.load_cert_chain(tls.cert, tls.key)
        except (OSError, ssl.SSLError) as error:
            # The two files are not replaced at once: tried again the next time.
            log.warning("the new certificate is not taken: %s", error)
        else:
            known = now
            log.info("a new certificate is taken", extra={"cert": tls.cert})


def users(given: str) -> dict[str, Credential]:
    """Users out of DIRECTORY_USERS, JSON `{"name": "password"}`, which may be empty. Ends the process over a fault."""
    if not given:
        return {}
    try:
        known = json.loads(given)
        if not isinstance(known, dict) or not known or not all(isinstance(one, str) for one in known.values()):
            raise ValueError("it is no object of names and passwords")
        return {name: Credential.of(password) for name, password in known.items()}
    except ValueError as error:
        # json's own message would show a part of the text, which holds passwords
        cause = "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        refuse(f"the environment variable DIRECTORY_USERS: {cause}")
