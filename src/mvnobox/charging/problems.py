"""ProblemDetails (RFC 9457) with the causes of TS 29.500 clause 5.2.7.2 and TS 32.291 clause 6.1.7."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import asyncpg

log = logging.getLogger(__name__)
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    503: "Service Unavailable",
}
RETRY = {"retry-after": "1"}
# What the database refuses because of its content, not because of its own state.
UNFIT = (
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.UntranslatableCharacterError,
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.InvalidTimeZoneDisplacementValueError,
    asyncpg.DatetimeFieldOverflowError,
)


class Problem(Exception):
    """An answer that is a problem: HTTP status, cause of the protocol, words, further members, headers."""

    def __init__(
        self, status: int, cause: str | None = None, detail: str | None = None, *,
        headers: dict[str, str] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(detail or cause or TITLES.get(status, "Error"))
        self.status, self.cause, self.detail, self.headers, self.more = status, cause, detail, headers or {}, more

    def body(self) -> bytes:
        """The document."""
        members = {
            "status": self.status,
            "title": TITLES.get(self.status, "Error"),
            "cause": self.cause,
            "detail": self.detail,
            **self.more,
        }
        return json.dumps({key: value for key, value in members.items() if value is not None}).encode()


def invalid(errors: Sequence[Any], *, skip: int = 0) -> Problem:
    """A problem from Pydantic's errors: every wrong attribute by its path; `skip` leading parts are not of the body."""
    if any(one["type"] == "json_invalid" for one in errors):
        return Problem(400, "INVALID_MSG_FORMAT", "the body is not JSON")
    params = [
        {"param": ".".join(str(part) for part in one["loc"][skip:]) or "body", "reason": one["msg"]}
        for one in errors[:20]
    ]
    missing = all(one["type"] == "missing" for one in errors)
    return Problem(400, "MANDATORY_IE_MISSING" if missing else "MANDATORY_IE_INCORRECT", invalidParams=params)


def database_problem(error: BaseException) -> Problem:
    """What went wrong in the database, without its words: they may hold what a customer sent."""
    if isinstance(error, UNFIT):
        return Problem(400, "OPTIONAL_IE_INCORRECT", "an amount or a text is more than the ledger can hold")
    log.error("the database failed a request", extra={"error": type(error).__name__})
    return Problem(
        503, "SYSTEM_FAILURE", "the ledger cannot be reached at the moment; repeat the request", headers=RETRY
    )
