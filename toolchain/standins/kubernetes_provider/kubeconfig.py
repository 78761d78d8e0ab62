"""Which cluster to talk to and with what credentials, from a kubeconfig."""

from __future__ import annotations

import atexit
import base64
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import ProviderError

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass
class Connection:
    """An apiserver's address and how to be somebody there."""

    server: str
    namespace: str = "default"
    tls: ssl.SSLContext | None = None
    headers: dict[str, str] = field(default_factory=dict)
    proxy: str | None = None
    server_name: str | None = None


# Folders for what a kubeconfig holds inline.
_PLACE = "mvno-kube-"


def _load(text_or_path: str | None) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if text_or_path and ("\n" in text_or_path or text_or_path.lstrip().startswith("{")):
        return yaml.load(text_or_path, Loader=loader) or {}
    given = text_or_path or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    paths = [Path(part).expanduser() for part in given.split(os.pathsep) if part]
    merged: dict[str, Any] = {}
    for path in paths:
        if not path.exists():
            continue
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {}
        for part in ("clusters", "users", "contexts"):
            known = {item["name"] for item in merged.get(part, [])}
            for item in document.get(part) or []:
                if item["name"] not in known:
                    merged.setdefault(part, []).append({**item, "_folder": str(path.parent)})
        merged.setdefault("current-context", document.get("current-context"))
    return merged


def connect(kubeconfig: str | None, context: str | None, cluster: str | None) -> Connection:
    """The connection that a kubeconfig (text, path or None for $KUBECONFIG) and an optional context stand for.

    Raises ProviderError with the context's name when it is not there.
    """
    config = _load(kubeconfig)
    if not config.get("clusters"):
        if (_SERVICE_ACCOUNT / "token").exists():
            return _in_cluster()
        where = kubeconfig if kubeconfig and "\n" not in kubeconfig else os.environ.get("KUBECONFIG", "~/.kube/config")
        raise ProviderError(f"there is no kubeconfig: {where} does not exist or names no cluster")
    name = context or config.get("current-context")
    entry = _named(config, "contexts", name) if name else {}
    if name and not entry:
        known = ", ".join(item["name"] for item in config.get("contexts", [])) or "none"
        raise ProviderError(f"the kubeconfig has no context {name!r}; it has: {known}")
    chosen = entry.get("context", {})
    cluster_name = cluster or chosen.get("cluster")
    where = _named(config, "clusters", cluster_name)
    if not where:
        raise ProviderError(f"the kubeconfig has no cluster {cluster_name!r}")
    who = _named(config, "users", chosen.get("user"))
    target = where["cluster"]
    connection = Connection(
        server=target["server"].rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        proxy=target.get("proxy-url"),
        server_name=target.get("tls-server-name"),
    )
    if connection.server.startswith("https"):
        connection.tls = _tls(target, where.get("_folder", ""))
    _credentials(connection, who.get("user", {}), who.get("_folder", ""), target)
    return connection


def _named(config: dict[str, Any], part: str, name: str | None) -> dict[str, Any]:
    return next((item for item in config.get(part, []) if item["name"] == name), {})


def _tls(target: dict[str, Any], folder: str) -> ssl.SSLContext:
    if data := target.get("certificate-authority-data"):
        tls = ssl.create_default_context(cadata=base64.b64decode(data).decode())
    elif path := target.get("certificate-authority"):
        tls = ssl.create_default_context(cafile=str(Path(folder, path)))
    else:
        tls = ssl.create_default_context()
    if target.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _credentials(connection: Connection, user: dict[str, Any], folder: str, target: dict[str, Any]) -> None:
    if "exec" in user:
        user = {**user, **_from_plugin(user["exec"], folder, target)}
    if "auth-provider" in user:
        raise ProviderError(
            "the kubeconfig's user has an auth-provider, which Kubernetes removed in 1.26; use an exec plug-in"
        )
    certificate = _file(user, "client-certificate", folder)
    key = _file(user, "client-key", folder)
    if certificate and key and connection.tls is not None:
        connection.tls.load_cert_chain(certificate, key)
        # Read; a process that is killed must not leave a key behind.
        for place in {Path(one).parent for one in (certificate, key)}:
            if place.name.startswith(_PLACE) and str(place.parent) == tempfile.gettempdir():
                shutil.rmtree(place, ignore_errors=True)
    if token := user.get("token"):
        connection.headers["Authorization"] = f"Bearer {token}"
    elif path := user.get("tokenFile"):
        connection.headers["Authorization"] = f"Bearer {Path(folder, path).read_text(encoding='utf-8').strip()}"
    elif "username" in user:
        pair = f"{user['username']}:{user.get('password', '')}"
        connection.headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()


def _file(user: dict[str, Any], key: str, folder: str) -> str | None:
    if data := user.get(f"{key}-data"):
        # ssl loads key pairs from files only; the folder is readable by this user alone and goes with the process.
        place = tempfile.mkdtemp(prefix=_PLACE)
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        path = Path(place, key)
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(data))
        return str(path)
    return str(Path(folder, user[key])) if user.get(key) else None


def _from_plugin(spec: dict[str, Any], folder: str, target: dict[str, Any]) -> dict[str, Any]:
    command = spec["command"]
    if os.sep in command:
        command = str(Path(folder, command))
    info: dict[str, Any] = {
        "apiVersion": spec.get("apiVersion"),
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    if spec.get("provideClusterInfo"):
        info["spec"]["cluster"] = {key: value for key, value in target.items() if not key.startswith("_")}
    environment = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    environment |= {item["name"]: item["value"] for item in spec.get("env") or []}
    try:
        done = subprocess.run(
            [command, *(spec.get("args") or [])],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        status = json.loads(done.stdout)["status"]
    except subprocess.CalledProcessError as error:
        raise ProviderError(f"the kubeconfig's credential plug-in {command} failed: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        raise ProviderError(f"the kubeconfig's credential plug-in {command} gave no credential: {error}") from error
    result: dict[str, Any] = {}
    if "token" in status:
        result["token"] = status["token"]
    for key in ("clientCertificateData", "clientKeyData"):
        if key in status:
            name = "client-certificate-data" if "Certificate" in key else "client-key-data"
            result[name] = base64.b64encode(status[key].encode()).decode()
    return result


def _in_cluster() -> Connection:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return Connection(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=(_SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip(),
        tls=ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt")),
        headers={"Authorization": "Bearer " + (_SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip()},
    )
