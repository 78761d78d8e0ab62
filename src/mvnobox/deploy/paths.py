"""Where the kit keeps things on a machine. Two places, so that `down --all` knows all of them."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The checkout: the folder that holds Pulumi.yaml."""
    return Path(__file__).resolve().parents[3]


def cache_dir() -> Path:
    """Built tools and images; kept by `down`, removed by `down --all`. Override: MVNO_CACHE."""
    return Path(os.environ.get("MVNO_CACHE") or Path.home() / ".cache" / "mvno-box")


def home_dir() -> Path:
    """An installation's state: passphrase, Pulumi state, stack settings, kubeconfig (0700). Override: MVNO_HOME."""
    return Path(os.environ.get("MVNO_HOME") or Path.home() / ".local" / "share" / "mvno-box")


def cluster_notes(home: Path) -> dict[str, Path]:
    """The files of a home that say which cluster an environment lives on, by environment. Raises OSError."""
    found = [name for name in sorted(os.listdir(home)) if name.startswith("cluster.") and name.endswith(".json")]
    return {name.removeprefix("cluster.").removesuffix(".json"): home / name for name in found}


def cluster_note(home: Path, env: str) -> Path:
    """The one of an environment."""
    return home / f"cluster.{env}.json"


def cluster_dir() -> Path:
    """The embedded cluster's data (needs root). Override: MVNO_CLUSTER_DIR."""
    return Path(os.environ.get("MVNO_CLUSTER_DIR") or "/var/lib/mvno-box")
