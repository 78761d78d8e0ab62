"""The engine's events as progress, and as the reasons of a failure."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from mvnobox.deploy.report import Task

_COLOUR = re.compile(r"<\{%.*?%\}>|\x1b\[[0-9;]*m")
# Told by the documentation and once by the reporter; not for every command.
_KNOWN_NOISE = ("from $PATH at",)
_PROBLEM = re.compile(r"^kubernetes:\S+ resource '[^']*' has a problem: ")
_CONSEQUENCES = ("the client connection is closing", "resource monitor shut down")
_SLOW_SECONDS = 3.0
_DOING = {
    "create": "making",
    "create-replacement": "making anew",
    "update": "changing",
    "delete": "removing",
    "delete-replaced": "removing the old",
    "replace": "replacing",
    "refresh": "reading",
    "read": "reading",
}


def _plain(text: str) -> str:
    return _COLOUR.sub("", text).strip()


def label(urn: str) -> str:
    """A resource for people: `Deployment platform-dev/ocs`."""
    parts = urn.split("::")
    if len(parts) < 4:
        return urn
    kind = parts[2].split("$")[-1].rpartition(":")[2]
    name = parts[3]
    # Children of a chart are called `<chart>:<namespace>/<name>`.
    return f"{kind} {name.partition(':')[2] or name}"


@dataclass
class Progress:
    """What runs, what has failed and what has changed."""

    task: Task
    running: dict[str, tuple[float, str]] = field(default_factory=dict)
    status: dict[str, str] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, event: dict[str, Any]) -> None:
        """Account for one engine event (JSON as the engine writes it)."""
        with self._lock:
            if said := event.get("resourcePreEvent"):
                step = said["metadata"]
                self.steps[step["urn"]] = step["op"]
                if step["op"] not in ("same", "read") and ":providers:" not in step["urn"]:
                    self.running[step["urn"]] = (time.monotonic(), _DOING.get(step["op"], step["op"]))
            elif said := event.get("resOutputsEvent"):
                self.running.pop(said["metadata"]["urn"], None)
                self.done += 1
            elif said := event.get("resOpFailedEvent"):
                self.running.pop(said["metadata"]["urn"], None)
                self.errors.setdefault(said["metadata"]["urn"], [])
            elif said := event.get("diagnosticEvent"):
                self._diagnostic(said)
            elif said := event.get("summaryEvent"):
                self.changes = {key: int(value) for key, value in (said.get("resourceChanges") or {}).items()}
        self.tell()

    def _diagnostic(self, said: dict[str, Any]) -> None:
        text, urn = _plain(said.get("message", "")), said.get("urn", "")
        if not text or any(noise in text for noise in _KNOWN_NOISE):
            return
        if said.get("ephemeral"):
            self.status[urn] = text
        elif said.get("severity") == "error":
            told = self.errors.setdefault(urn, [])
            if text not in told:
                told.append(text)
        elif said.get("severity") == "warning":
            self.warnings.append(f"{label(urn)}: {text}" if urn else text)

    def tell(self) -> None:
        """One line: the resource that takes longest and what it waits for."""
        with self._lock:
            slow = [
                (started, urn, doing)
                for urn, (started, doing) in self.running.items()
                if time.monotonic() - started > _SLOW_SECONDS
            ]
            if not slow:
                self.task.update(f"{self.done} resources")
                return
            slow.sort()
            _, urn, doing = next(((s, u, d) for s, u, d in slow if u in self.status), slow[0])
            text = f"{doing} {label(urn)}" + (f": {self.status[urn]}" if urn in self.status else "")
            more = f" (and {len(slow) - 1} more)" if len(slow) > 1 else ""
        self.task.update(text[:200] + more)

    def failures(self) -> list[tuple[str, str]]:
        """(resource, reason) of everything that failed, the resources themselves before what followed from them."""
        found = []
        for urn, texts in self.errors.items():
            reasons = [text for text in texts if text != "update failed" and not text.startswith("update canceled")]
            if "pulumi:pulumi:Stack" in urn or not urn:
                continue
            for text in reasons:
                found.append((label(urn), _cleaned(text)))
        if not found:
            for texts in self.errors.values():
                found += [("the program", _cleaned(text)) for text in texts if text != "update failed"]
        # When one resource fails the engine hangs up on the others; that is no news of theirs.
        causes = [pair for pair in found if not any(text in pair[1] for text in _CONSEQUENCES)]
        return list(dict.fromkeys(causes or found))


def _cleaned(text: str) -> str:
    lines = [line.strip(" *\t") for line in text.splitlines() if line.strip(" *\t")]
    if lines and re.fullmatch(r"\d+ errors? occurred:", lines[0]):
        lines = lines[1:]
    return _PROBLEM.sub("", "; ".join(lines))
