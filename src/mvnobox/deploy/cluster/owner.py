"""Whose embedded cluster it is: a machine has one, but each user's home can hold an installation's state."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from mvnobox.deploy.paths import cluster_dir, cluster_notes, home_dir
from mvnobox.errors import EnvironmentUnfit

_DOES = {"up": "works on that one", "down": "removes that one, with its customers"}


def _record() -> Path:
    return cluster_dir() / "home"


def claim() -> None:
    """Write down that the state of what runs on the embedded cluster lies in this user's home."""
    _record().write_text(f"{home_dir().resolve()}\n", encoding="utf-8")
    # Whoever may not read it could not be told.
    _record().chmod(0o644)


def elsewhere() -> Path | None:
    """The other home whose installation runs on the embedded cluster; None where it is ours or nobody's.

    A home that holds no installation any more has no say: what it left there can only be removed.
    """
    try:
        home = Path(_record().read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None
    if home == home_dir().resolve():
        return None
    try:
        return home if any(map(_runs_embedded, cluster_notes(home).values())) else None
    except PermissionError:
        # Another user's, who may have something in it.
        return home
    except OSError:
        return None


def _runs_embedded(note: Path) -> bool:
    try:
        return bool(json.loads(note.read_text(encoding="utf-8"))["kind"] == "embedded")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def refusal(home: Path, verb: str) -> EnvironmentUnfit:
    """Why `mvno <verb>` would touch an installation of another home, and what to do."""
    return EnvironmentUnfit(
        f"this machine's embedded cluster runs an installation whose state is in {home}, not in {home_dir().resolve()}",
        f"MVNO_HOME={shlex.quote(str(home))} ./mvno {verb} ... {_DOES[verb]}; "
        "sudo and a root login can have different homes",
    )
