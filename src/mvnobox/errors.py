"""The errors that reach a user: each names its cause and the remedy, never a traceback.

Exit codes (documented in docs/cli.md): 0 done, 1 failed, 2 bad input, 3 an environment that cannot run it.
"""

from __future__ import annotations


class KitError(Exception):
    """Something the user must hear of. `cause` says what is wrong, `remedy` what to do about it."""

    exit_code = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause}\n  remedy: {self.remedy}" if self.remedy else self.cause


class Failed(KitError):
    """The kit tried and did not succeed (exit code 1)."""


class BadInput(KitError):
    """The user's input is wrong; nothing was changed (exit code 2)."""

    exit_code = 2


class EnvironmentUnfit(KitError):
    """This machine, cluster or account cannot run it (exit code 3)."""

    exit_code = 3
