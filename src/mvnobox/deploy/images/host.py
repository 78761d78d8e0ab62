"""The building machine's own settings, lent to a build as mounted secrets: package sources, proxies, certificates.

None of them becomes part of a layer: a layer that names somebody's proxy works on nobody else's machine.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_INSIDE_CA = "/run/mvno-build/ca.pem"
_INSIDE_SOURCES = "/run/mvno-build/host.sources"
RELEASE = "bookworm"


def host_release() -> str:
    """VERSION_CODENAME of a Debian host, else an empty string."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_CODENAME", "").strip('"') if values.get("ID") == "debian" else ""


def ca_bundle() -> Path | None:
    """The certificates that this machine trusts, as one file."""
    for name in (os.environ.get("SSL_CERT_FILE"), os.environ.get("PIP_CERT"), *_BUNDLES):
        if name and Path(name).is_file():
            return Path(name)
    return None


def apt_sources() -> str | None:
    """This host's own package sources in deb822 form, where it is a Debian of the release that the images are."""
    if host_release() != RELEASE:
        return None
    parts = []
    for path in sorted(Path("/etc/apt").glob("sources.list.d/*.sources")):
        parts.append(path.read_text(encoding="utf-8").strip())
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt").glob("sources.list.d/*.list"))]:
        if path.is_file():
            parts += [_as_deb822(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # Others' repositories have keys that the image does not have, and nothing that it needs.
    wanted = [part for part in parts if part and f" {RELEASE}" in part and "debian" in part]
    return "\n\n".join(wanted) + "\n" if wanted else None


def _as_deb822(line: str) -> str:
    words = line.split("#", 1)[0].split()
    if len(words) < 4 or words[0] != "deb" or words[1].startswith("["):
        return ""
    return f"Types: deb\nURIs: {words[1]}\nSuites: {words[2]}\nComponents: {' '.join(words[3:])}"


def _apt_settings() -> str:
    # In a chroot build apt's own unprivileged user has no way to its files.
    lines = ['APT::Sandbox::User "root";', 'Acquire::Retries "3";']
    if apt_sources() is not None:
        lines += [f'Dir::Etc::sourcelist "{_INSIDE_SOURCES}";', 'Dir::Etc::sourceparts "/dev/null";']
    if ca_bundle() is not None:
        lines.append(f'Acquire::https::CAInfo "{_INSIDE_CA}";')
    try:
        said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    except OSError:
        said = ""
    lines += [
        line
        for line in said.splitlines()
        if line.lower().startswith(("acquire::http::proxy ", "acquire::https::proxy ")) and '""' not in line
    ]
    return "\n".join(lines) + "\n"


def _pip_settings() -> str:
    lines = ["[global]", "disable-pip-version-check = true"]
    if ca_bundle() is not None:
        lines.append(f"cert = {_INSIDE_CA}")
    try:
        said = subprocess.run(
            ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        said = ""
    found: dict[str, str] = {}
    for line in said.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2].replace("_", "-")
        if option in _PIP_OPTIONS:
            found[option] = value.strip("'\"")
    for option in _PIP_OPTIONS:
        found[option] = os.environ.get(f"PIP_{option.upper().replace('-', '_')}") or found.get(option, "")
    lines += [f"{option} = {value}" for option, value in found.items() if value]
    return "\n".join(lines) + "\n"


def write_secrets(folder: Path) -> dict[str, Path]:
    """The files that Containerfiles mount: id to path. The folder is removed after the build."""
    contents = {"apt": _apt_settings(), "pip": _pip_settings(), "sources": apt_sources() or ""}
    made = {}
    for name, text in contents.items():
        made[name] = folder / name
        made[name].write_text(text, encoding="utf-8")
        made[name].chmod(0o600)
    bundle = ca_bundle()
    made["ca"] = folder / "ca"
    made["ca"].write_bytes(bundle.read_bytes() if bundle else b"")
    return made
