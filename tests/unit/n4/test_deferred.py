"""Usage that comes while the database is away: none of it is lost, however often the database goes away again."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from mvnobox.n4.gate import Gate
from mvnobox.n4.rows import Session
from mvnobox.n4.rules import Report


class Database:
    """Takes usage, unless it is away; `away` moments are the test's, which a real server's ends are not."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.away = True
        self.slow: asyncio.Event | None = None

    async def take_usage(self, seid: int, reports: list[Report], *, release: bool, session: Session | None) -> None:
        if self.slow is not None:
            await self.slow.wait()
        if self.away:
            raise ConnectionRefusedError
        self.taken.append((seid, reports))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate.__new__(Gate)
    made._store = cast(Any, Database())
    made._deferred = []
    monkeypatch.setattr(made, "work", lambda seid: None)
    return made


def reports(*names: str) -> list[Report]:
    return cast(list[Report], list(names))


async def test_a_database_that_is_away_again_has_taken_nothing(gate: Gate) -> None:
    database = cast(Database, gate._store)
    assert await gate.owe(1, reports("a"))
    assert await gate.owe(1, reports("b"))
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await gate.take_deferred()
    database.away = False
    await gate.take_deferred()
    await gate.take_deferred()
    assert database.taken == [(1, ["a"]), (1, ["b"])]


async def test_two_that_take_at_once_take_everything(gate: Gate) -> None:
    database = cast(Database, gate._store)
    for name in "abc":
        await gate.owe(1, reports(name))
    database.away, database.slow = False, asyncio.Event()
    both = [asyncio.ensure_future(gate.take_deferred()) for _ in range(2)]
    await asyncio.sleep(0)
    database.slow.set()
    await asyncio.gather(*both)
    # Some twice, which the database knows by their numbers; all at least once.
    assert {name for _, (name,) in database.taken} == {"a", "b", "c"}
