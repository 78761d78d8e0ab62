"""A MongoDB of the user's own, which Open5GS reads its subscribers from and which follows the directory.

The URI has a password. Nothing here keeps it: only where the database is, which policies have to know.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mvnobox.errors import BadInput
from mvnobox.render.names import OBJECT_NAME

# Secret objects of the platform's namespace: the URI, under DB_URI, as Open5GS reads it from its environment.
SECRET = "subscribers"
# Where the Secret `subscribersTls` is mounted.
TLS_FOLDER = "/etc/mvno-mongodb"
PORT = 27017
_SHAPE = "mongodb://USER:PASSWORD@HOST:27017/open5gs, or mongodb+srv://…, with the password percent-encoded"
_SETTING = re.compile(
    r"(?P<scheme>[A-Za-z0-9+.-]*)://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^/?@]*)(?:/(?P<database>[^?]*))?(?:\?(?P<options>.*))?",
    re.DOTALL,
)
_HOST = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,62}))+\.?$")
_HOST_PORT = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")
_SERVICE = re.compile(r"^(?:[a-z0-9-]+\.)?[a-z0-9-]+\.(?P<namespace>[a-z0-9-]+)\.svc(?:\.cluster\.local)?\.?$")
# What MongoDB allows in a database's name, less what URIs would have to quote.
_DATABASE = re.compile(r"^[A-Za-z0-9_-]{1,63}$")
_FILES = ("tlscafile", "tlscertificatekeyfile", "sslcertificateauthorityfile", "sslclientcertificatekeyfile")
EVERYWHERE = "0.0.0.0/0"


def _refused(cause: str, remedy: str) -> BadInput:
    return BadInput(f"the setting subscribers {cause}", remedy)


@dataclass(frozen=True)
class Subscribers:
    """Where the MongoDB is: ports, and namespaces of this cluster or networks. Raises BadInput."""

    ports: tuple[int, ...]
    namespaces: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    # A Secret with ca.crt, and perhaps client.pem, for the URI's tlsCAFile and tlsCertificateKeyFile.
    tls_secret: str | None = None

    @property
    def values(self) -> dict[str, object]:
        """The charts' block: where to, and what to mount."""
        return {
            "secretName": SECRET,
            **({"tlsSecret": self.tls_secret} if self.tls_secret else {}),
            "ports": list(self.ports),
            "namespaces": list(self.namespaces),
            "networks": list(self.networks),
        }

    @classmethod
    def of_setting(
        cls, uri: str | None, *, encrypted: bool = True, tls_secret: str | None = None
    ) -> Subscribers | None:
        """From the platform stack's settings; None without one. Says nothing of what is in the URI. Raises BadInput.

        `encrypted`: whether the stack's file has it encrypted.
        """
        if tls_secret is not None and not OBJECT_NAME.match(tls_secret):
            raise BadInput(f"the setting subscribersTls is {tls_secret!r}", "the name of a Secret with ca.crt")
        if uri is None:
            if tls_secret is not None:
                raise BadInput("there is subscribersTls without subscribers", "pulumi config rm subscribersTls")
            return None
        if not encrypted:
            raise _refused("lies in the stack's file in plain text", "pulumi config set --secret subscribers …")
        match = _SETTING.fullmatch(uri)
        if match is None or match["scheme"] not in ("mongodb", "mongodb+srv") or re.search(r"\s", uri):
            raise _refused("is no URI of a MongoDB", _SHAPE)
        if not _DATABASE.match(match["database"] or ""):
            raise _refused("names no database of letters, digits, _ and -", f"put it behind the hosts: {_SHAPE}")
        _check_credentials(match["user"])
        _check_options(match["options"] or "", tls_secret)
        srv = match["scheme"] == "mongodb+srv"
        found = [_place(host, srv) for host in match["hosts"].split(",")]
        if srv and len(found) != 1:
            raise _refused("has mongodb+srv with several hosts", "one name, which DNS has the hosts of")
        return cls(
            ports=tuple(sorted({port for port, _, _ in found})),
            namespaces=tuple(sorted({one for _, one, _ in found if one})),
            networks=tuple(sorted({one for _, _, one in found if one})),
            tls_secret=tls_secret,
        )


def _check_credentials(user: str | None) -> None:
    if user is None:
        return
    name, colon, password = user.partition(":")
    whole = all(re.fullmatch(r"(?:[^%:@/\[\]?#]|%[0-9A-Fa-f]{2})*", part) for part in (name, password))
    if not name or not whole or (colon and not password):
        raise _refused("has a user or password that is not percent-encoded", f"as in {_SHAPE}")


def _check_options(options: str, tls_secret: str | None) -> None:
    for option in filter(None, re.split("[&;]", options)):
        name, _, value = option.partition("=")
        if name.lower() not in _FILES:
            continue
        if not value.replace("%2F", "/").replace("%2f", "/").startswith(f"{TLS_FOLDER}/"):
            raise _refused(
                f"has {name} with a file that pods do not have",
                f"a file in {TLS_FOLDER}, where the Secret of the setting subscribersTls is mounted",
            )
        if tls_secret is None:
            raise _refused(
                f"has {name}, and there is no setting subscribersTls",
                "name the Secret of the platform's namespace that has the file: pulumi config set subscribersTls NAME",
            )


def _place(host: str, srv: bool) -> tuple[int, str | None, str | None]:
    """(port, namespace of this cluster, network) of one host."""
    match = _HOST_PORT.fullmatch(host)
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise _refused("has something that is no HOST or HOST:PORT", _SHAPE)
    if srv and (match["port"] or match["literal"]):
        raise _refused("has mongodb+srv with a port or an address", "a name alone: DNS has its hosts and ports")
    name = match["literal"] or match["name"]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if not _HOST.match(name):
            raise _refused(
                "has a host that is no full name",
                "as mongodb.example.com, or mongodb.NAMESPACE.svc.cluster.local for one in this cluster",
            ) from None
        service = _SERVICE.match(name.lower())
        return (port, service["namespace"], None) if service else (port, None, EVERYWHERE)
    if srv or address.is_loopback or address.is_unspecified:
        raise _refused("is at an address that is each pod's own", "the address that pods reach the MongoDB at")
    return port, None, f"{address}/{address.max_prefixlen}"
