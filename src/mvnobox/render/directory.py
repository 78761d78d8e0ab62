"""How a core reads the subscriber directory: MongoDB's wire protocol, with a password and perhaps over TLS."""

from __future__ import annotations

import json

from mvnobox.render.release import CLUSTER_DOMAIN
from mvnobox.render.sbi_tls import MOUNTED_AT

# Whom the directory lets in: the functions that read subscribers, under one name.
USER = "core"
# The Secret of a simulated core, with the URI under DIRECTORY_URI.
SIMULATED_SECRET = "smf-env"  # nosec B105: a name


def directory_uri(platform_namespace: str, password: str | None = None, *, tls: bool = False) -> str:
    """The directory's URI, with a user where there is a password, which is URL-safe."""
    user = f"{USER}:{password}@" if password else ""
    options = (["authSource=admin"] if password else []) + (
        ["tls=true", f"tlsCAFile={MOUNTED_AT}/ca.crt"] if tls else []
    )
    query = f"?{'&'.join(options)}" if options else ""
    return f"mongodb://{user}directory.{platform_namespace}.svc.{CLUSTER_DOMAIN}:27017/open5gs{query}"


def directory_users(password: str) -> str:
    """The directory's DIRECTORY_USERS."""
    return json.dumps({USER: password})
