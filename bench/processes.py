"""What the kernel says of a process (proc_pid_stat(5))."""

from __future__ import annotations

import os
from pathlib import Path


def _fields(pid: int) -> list[str]:
    """The fields after the name, which may hold anything: the third one, the state, is first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """Time on the processors so far, all threads."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parent(pid: int) -> int:
    """Who started it."""
    return int(_fields(pid)[1])
