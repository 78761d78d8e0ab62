"""The directory's settings: the file, and the secrets of the environment."""

from __future__ import annotations

import json
import ssl

from pydantic import Field

from mvnobox.core.directory.scram import Credential
from mvnobox.service.settings import Settings, refuse


class Tls(Settings):
    """Files in PEM; the certificate with its chain."""

    cert: str
    key: str


class DirectorySettings(Settings):
    listen: str = "0.0.0.0:27017"
    http: str = "0.0.0.0:8081"
    database: str = Field(default="open5gs", pattern=r"^[A-Za-z0-9_-]{1,63}$")
    tls: Tls | None = None


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
