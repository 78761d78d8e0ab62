"""Where the command line writes: progress and errors on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mvnobox.deploy.report import PlainReporter, Reporter, Task

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class _RichTask:
    def __init__(self, progress: Progress, task_id: Any, title: str) -> None:
        self._progress, self._id, self._title = progress, task_id, title

    def update(self, detail: str) -> None:
        self._progress.update(self._id, description=f"{self._title} [dim]{detail}[/]")


class RichReporter:
    """Progress on a terminal: a spinner with the elapsed time, then a line that stays."""

    def note(self, message: str) -> None:
        err.print(f"[cyan]•[/] {message}")

    @contextmanager
    def task(self, title: str) -> Iterator[Task]:
        started = time.monotonic()
        progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
        )
        with progress:
            try:
                yield _RichTask(progress, progress.add_task(title), title)
            except BaseException:
                err.print(f"[red]✗[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")
                raise
        err.print(f"[green]✓[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")


def reporter() -> Reporter:
    """A reporter for where standard error goes: a terminal, or a log that wants plain lines."""
    return cast(Reporter, RichReporter() if err.is_terminal else PlainReporter())


def print_json(document: Any) -> None:
    """One JSON document on standard output and nothing else."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()
