"""What a look at an object says."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Verdict:
    """Ready, or what it waits for; `failed` when waiting longer cannot help."""

    ready: bool = False
    waiting_for: str = ""
    failed: list[str] = field(default_factory=list)


READY = Verdict(ready=True)


def waiting(text: str) -> Verdict:
    """Not yet."""
    return Verdict(waiting_for=text)


def failed(*reasons: str) -> Verdict:
    """Never, and why."""
    return Verdict(failed=list(reasons), waiting_for=reasons[0] if reasons else "")
