"""Stack settings: `Pulumi.<stack>.yaml` in the installation, linked into the checkout.

So a fresh clone takes an installation over, and plain `pulumi` in the checkout reads and writes the same file.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pulumi.automation import ConfigValue

from mvnobox.deploy.paths import home_dir, project_root
from mvnobox.deploy.pulumi.environment import passphrase_file
from mvnobox.errors import EnvironmentUnfit


def settings_dir() -> Path:
    """Where the settings files lie."""
    return home_dir() / "stacks"


def settings_file(stack: str) -> Path:
    """A stack's settings file in the installation."""
    return settings_dir() / f"Pulumi.{stack}.yaml"


def link(stack: str) -> None:
    """Make the checkout's settings file a link to the installation's; a plain file of the checkout is adopted.

    Raises EnvironmentUnfit when both are files and say different things.
    """
    kept, seen = settings_file(stack), project_root() / f"Pulumi.{stack}.yaml"
    kept.parent.mkdir(parents=True, exist_ok=True)
    if seen.is_symlink():
        if Path(os.readlink(seen)) == kept:
            return
        seen.unlink()
    elif seen.exists():
        if kept.exists() and kept.read_bytes() != seen.read_bytes():
            raise EnvironmentUnfit(
                f"{seen} and {kept} are both settings of the stack {stack} and differ",
                "keep one of them: remove or rename the other",
            )
        shutil.move(seen, kept)
        kept.chmod(0o600)
    seen.symlink_to(kept)


def unlink(stack: str) -> None:
    """Forget a stack's settings: the file, its link and what is remembered of it."""
    seen = project_root() / f"Pulumi.{stack}.yaml"
    if seen.is_symlink():
        seen.unlink()
    settings_file(stack).unlink(missing_ok=True)
    _memory(stack).unlink(missing_ok=True)


def _memory(stack: str) -> Path:
    return settings_dir() / f"{stack}.digests.json"


def _digests(config: Mapping[str, ConfigValue]) -> dict[str, str]:
    # Keyed by the passphrase: the digests say nothing about a secret to who cannot read the state anyway.
    key = passphrase_file().read_bytes()
    return {
        name: hmac.new(key, f"{int(value.secret)}:{name}={value.value}".encode(), hashlib.sha256).hexdigest()[:32]
        for name, value in config.items()
    }


def changed(stack: str, config: Mapping[str, ConfigValue]) -> tuple[dict[str, ConfigValue], list[str]]:
    """(settings that differ from what was last written, names that were written and are wanted no more).

    Reading them from Pulumi would cost a process and a slow key derivation on every run.
    """
    remembered: dict[str, str] = {}
    file = settings_file(stack)
    if file.exists() and _memory(stack).exists():
        try:
            said = json.loads(_memory(stack).read_text(encoding="utf-8"))
            if said.get("file") == hashlib.sha256(file.read_bytes()).hexdigest():
                remembered = said["values"]
        except (ValueError, KeyError):
            remembered = {}
    wanted = _digests(config)
    new = {name: value for name, value in config.items() if remembered.get(name) != wanted[name]}
    return new, sorted(set(remembered) - set(wanted))


def remember(stack: str, config: Mapping[str, ConfigValue]) -> None:
    """Note what the settings file holds now."""
    file = settings_file(stack)
    if not file.exists():
        return
    file.chmod(0o600)
    place = _memory(stack)
    place.touch(mode=0o600)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    place.write_text(json.dumps({"file": digest, "values": _digests(config)}), encoding="utf-8")
