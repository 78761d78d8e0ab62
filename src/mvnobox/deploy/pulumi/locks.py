"""Locks of Pulumi's file backend: a killed run leaves one, and a live one must be respected."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from mvnobox.deploy.pulumi.environment import state_dir


@dataclass(frozen=True)
class Lock:
    """Who holds a stack. `dead` when it was a process of this machine that is gone."""

    path: Path
    pid: int
    user: str
    host: str
    since: str

    @property
    def dead(self) -> bool:
        return self.host == socket.gethostname() and not _is_engine(self.pid)


def _is_engine(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Numbers are used again: a process of that number which is no pulumi does not hold the lock.
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        return Path(os.fsdecode(program)).name.startswith("pulumi")
    except OSError:
        return True


def locks(project: str, stack: str) -> list[Lock]:
    """The locks on a stack."""
    found = []
    for path in (state_dir() / ".pulumi" / "locks" / "organization" / project / stack).glob("*.json"):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found.append(
            Lock(
                path,
                int(said.get("pid", 0)),
                said.get("username", ""),
                said.get("hostname", ""),
                said.get("timestamp", ""),
            )
        )
    return found
