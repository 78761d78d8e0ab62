"""Long commands with their output in a log, the last line as progress, and errors in words."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path

from mvnobox.deploy.report import Task
from mvnobox.errors import EnvironmentUnfit, Failed

TAIL_LINES = 15
_NO_SPACE = ("no space left on device", "not enough free space", "disk quota exceeded")


def run_logged(what: str, command: list[str], log: Path, task: Task, cwd: Path | None = None) -> None:
    """Run a command, its output appended to a log. Raises Failed with the log's end, EnvironmentUnfit on a full disk.

    An interruption ends the command too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        out.write(f"\n$ {' '.join(command)}\n".encode())
        out.flush()
        start = out.tell()
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd)
        except OSError as error:
            raise Failed(f"{what}: {command[0]} cannot be run: {error.strerror}", "see ./mvno doctor") from None
        try:
            while True:
                try:
                    code = process.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    task.update(_last_line(log))
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    if code == 0:
        return
    with open(log, "rb") as said:
        said.seek(start)
        text = said.read().decode(errors="replace")
    if any(sign in text.lower() for sign in _NO_SPACE):
        raise full_disk(what, log.parents[1])
    tail = "\n".join(f"    {line}" for line in text.strip().splitlines()[-TAIL_LINES:])
    raise Failed(f"{what} failed (exit code {code}):\n{tail}", f"the whole log is {log}")


def full_disk(what: str, place: Path) -> EnvironmentUnfit:
    """The error for a disk without room."""
    free = shutil.disk_usage(place).free
    return EnvironmentUnfit(
        f"{what}: the disk is full ({place} has {free / 2**30:.1f} GiB free)",
        "make room, or set MVNO_CACHE to a folder on a larger disk",
    )


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _last_line(log: Path) -> str:
    with open(log, "rb") as said:
        said.seek(0, 2)
        said.seek(max(0, said.tell() - 2000))
        lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:100] if lines else ""
