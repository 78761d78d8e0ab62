"""What a Pulumi process needs around it: programs on PATH, the state's place, the passphrase, the cluster."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
from pathlib import Path
from typing import cast

from mvnobox.deploy.paths import home_dir, project_root
from mvnobox.deploy.report import PlainReporter, Reporter
from mvnobox.deploy.toolchain import ensure_tool
from mvnobox.errors import EnvironmentUnfit


def state_dir() -> Path:
    """Pulumi's file backend (0700)."""
    return home_dir() / "pulumi"


def passphrase_file() -> Path:
    """The file that holds the installation's passphrase (0600)."""
    return home_dir() / "passphrase"


def standins_dir() -> Path:
    """The launchers of the two stand-ins."""
    return project_root() / "toolchain" / "standins" / "bin"


def _pulumi_home() -> Path:
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def _official(name: str, engine: Path) -> bool:
    found = shutil.which(name)
    if found and Path(found).resolve().parent != standins_dir():
        return True
    if (engine.resolve().parent / name).exists():
        return True
    kind, _, plugin = name.removeprefix("pulumi-").partition("-")
    return any(_pulumi_home().glob(f"plugins/{kind}-{plugin}-v*/{name}"))


def uses_standins(engine: Path) -> tuple[bool, bool]:
    """(language host, Kubernetes provider): whether the stand-in is used because there is no official one."""
    return not _official("pulumi-language-python", engine), not _official("pulumi-resource-kubernetes", engine)


def _private(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise EnvironmentUnfit(
            f"{error.filename or path}: {error.strerror}", "make room or give write access, or set MVNO_HOME"
        ) from error


def ensure_passphrase() -> Path:
    """The passphrase's file, with a new passphrase on the first call. It is never printed."""
    _private(home_dir())
    path = passphrase_file()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_size:
            return path
        if any(state_dir().rglob("stacks/**/*.json")):
            raise EnvironmentUnfit(
                f"{path} is empty, and the stacks' secrets were encrypted with what it held",
                "put it back from a backup; without it remove the installation with ./mvno down --all",
            ) from None
        handle = os.open(path, os.O_WRONLY)
    with os.fdopen(handle, "w") as out:
        out.write(secrets.token_urlsafe(32))
    return path


def environment(kubeconfig: Path | None, report: Reporter | None = None) -> dict[str, str]:
    """Variables to add to a process's environment so that `pulumi` in it works on this installation.

    Builds the engine and helm if they are not there. The stand-ins are on PATH only where the official plug-ins
    are missing, and then nothing is ever fetched.
    """
    told = report if report is not None else cast(Reporter, PlainReporter())
    engine = ensure_tool("pulumi", told)
    helm = ensure_tool("helm", told)
    _private(home_dir())
    _private(state_dir())
    language, provider = uses_standins(engine)
    # The virtual environment's own folder has kubectl.
    folders = [str(engine.parent), str(helm.parent), str(Path(sys.executable).parent)]
    result = {
        "PULUMI_BACKEND_URL": f"file://{state_dir()}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(ensure_passphrase()),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_CI_DETECTION": "true",
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
    }
    if language or provider:
        folders.insert(0, str(_chosen_launchers(language, provider)))
        result["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
        result["MVNO_PYTHON"] = str(Path(sys.prefix) / "bin" / "python")
    if provider:
        # Everything that Pulumi itself writes then lies in the installation; official plug-ins lie in ~/.pulumi.
        result["PULUMI_HOME"] = str(home_dir() / "pulumi-home")
    result["PATH"] = os.pathsep.join([*folders, os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")])
    if kubeconfig is not None:
        result["KUBECONFIG"] = str(kubeconfig)
    return result


def _chosen_launchers(language: bool, provider: bool) -> Path:
    if language and provider:
        return standins_dir()
    # One of the two is official: only the other's launcher may be found.
    folder = home_dir() / "standins"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = ("pulumi-language-python", "pulumi-language-python-exec") if language else ("pulumi-resource-kubernetes",)
    for name in names:
        (folder / name).symlink_to(standins_dir() / name)
    return folder


def shell_lines(kubeconfig: Path | None) -> str:
    """The same as lines for a shell: `eval` them, then plain `pulumi preview` works in the checkout."""
    return "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in sorted(environment(kubeconfig).items()) if value
    )
