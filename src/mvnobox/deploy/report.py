"""How long work tells of itself. Nothing stays silent for more than ten seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

HEARTBEAT_SECONDS = 10.0


class Task(Protocol):
    """A piece of work under way."""

    def update(self, detail: str) -> None:
        """Say what the task is at now (one short line)."""


class Reporter(Protocol):
    """Where progress goes; the command line has a rich one, everything else the plain one below."""

    def note(self, message: str) -> None:
        """A fact or a choice with its reason, one line."""

    def task(self, title: str) -> _TaskContext:
        """Announce a piece of work; leaving the context ends it and prints the time it took."""


class _TaskContext(Protocol):
    def __enter__(self) -> Task: ...
    def __exit__(self, *exc: object) -> bool | None: ...


class _PlainTask:
    def __init__(self) -> None:
        self.detail = ""

    def update(self, detail: str) -> None:
        self.detail = detail


class PlainReporter:
    """Lines on a stream (standard error by default) with elapsed seconds; a heartbeat while a task runs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def _line(self, text: str) -> None:
        with self._lock:
            print(f"[{time.monotonic() - self._started:6.1f}s] {text}", file=self._stream, flush=True)

    def note(self, message: str) -> None:
        self._line(message)

    @contextmanager
    def task(self, title: str) -> Iterator[Task]:
        task = _PlainTask()
        done = threading.Event()
        started = time.monotonic()
        self._line(f"{title} ...")

        def beat() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                detail = f": {task.detail}" if task.detail else ""
                self._line(f"  {title}{detail} ({time.monotonic() - started:.0f} s so far)")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield task
        except BaseException:
            self._line(f"{title}: failed after {time.monotonic() - started:.1f} s")
            raise
        else:
            self._line(f"{title}: done in {time.monotonic() - started:.1f} s")
        finally:
            done.set()
            thread.join()
