"""What a look at an object says."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Verdict:
    """Ready, or what it waits for; `failed` when waiting longer cannot help.

    `since` dates a failure that the cluster keeps on record: one that is as old as the first look is of an earlier try.
    """

    ready: bool = False
    waiting_for: str = ""
    failed: list[str] = field(default_factory=list)
    since: str = ""


READY = Verdict(ready=True)


def waiting(text: str) -> Verdict:
    """Not yet."""
    return Verdict(waiting_for=text)


def failed(*reasons: str, since: str = "") -> Verdict:
    """Never, and why; `since` when the cluster noted it."""
    return Verdict(failed=list(reasons), waiting_for=reasons[0] if reasons else "", since=since)
