"""Statements in pipeline mode against a real PostgreSQL: order, failures, lost connections, locks; and binary arrays."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psycopg
import pytest

from mvnobox.service.arrays import BOOL, INT4, INT8, TEXT, TIMESTAMPTZ, UUID, Element, array, int4
from mvnobox.service.pipeline import Pipeline

# Waits while somebody else has the lock of that number; divides; answers with the text and its length.
ECHO = """SELECT t, 10 / d, length(t), (SELECT pg_backend_pid()) FROM
    (SELECT $1::text AS t, $2::int4 AS d, pg_advisory_xact_lock($3::int4)) x"""
FREE = 0


def make(dsn: str, **changes: Any) -> Pipeline:
    settings = {"application_name": "pipeline-test", "lock_timeout": "20000"}
    terms: dict[str, Any] = {"seconds": 10.0, "connect_seconds": 5.0, "patience": 0.05}
    return Pipeline(dsn, ECHO, [TEXT.oid, INT4, INT4], settings, **{**terms, **changes})


@pytest.fixture
async def pipeline(pg_admin_dsn: str) -> AsyncIterator[Pipeline]:
    made = make(pg_admin_dsn)
    yield made
    made.close()


@pytest.fixture
async def admin(pg_admin_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(pg_admin_dsn)
    yield connection
    await connection.close()


async def echo(pipeline: Pipeline, text: str, divisor: int = 1, lock: int = FREE) -> tuple[str, int, int, int]:
    """The text, the quotient, its length, and the process that answered."""
    ((said, quotient, length, process),) = await pipeline.run([text.encode(), int4(divisor), int4(lock)])
    assert said is not None and quotient is not None and length is not None and process is not None
    return said.decode(), int.from_bytes(quotient, signed=True), int.from_bytes(length), int.from_bytes(process)


async def waiting(admin: asyncpg.Connection, count: int) -> None:
    """Until so many statements wait for a lock."""
    async with asyncio.timeout(10):
        while count != await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pipeline-test' AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)


async def test_each_gets_its_own_answer_over_one_connection(pipeline: Pipeline) -> None:
    found = await asyncio.gather(*(echo(pipeline, f"nr {n}", n) for n in range(1, 200)))
    assert [(text, quotient) for text, quotient, _, _ in found] == [(f"nr {n}", 10 // n) for n in range(1, 200)]
    assert len({process for *_, process in found}) == 1


async def test_one_that_fails_touches_no_other(pipeline: Pipeline) -> None:
    await echo(pipeline, "first")
    found = await asyncio.gather(*(echo(pipeline, "x", divisor) for divisor in (1, 0, 5, 0, 2)), return_exceptions=True)
    assert [type(one) if isinstance(one, BaseException) else one[1] for one in found] == [
        10, psycopg.errors.DivisionByZero, 2, psycopg.errors.DivisionByZero, 5,
    ]  # fmt: skip
    assert (await echo(pipeline, "after"))[0] == "after"


async def test_more_than_the_socket_takes_at_once(pipeline: Pipeline) -> None:
    texts = [chr(ord("a") + n) * (5 << 20) for n in range(6)]
    found = await asyncio.gather(*(echo(pipeline, text) for text in texts))
    assert [(text, length) for text, _, length, _ in found] == [(text, len(text)) for text in texts]


async def test_a_lost_connection_fails_what_is_under_way_and_the_next_has_another(
    pipeline: Pipeline, admin: asyncpg.Connection
) -> None:
    *_, process = await echo(pipeline, "first")
    await admin.fetchval("SELECT pg_advisory_lock(7)")
    under_way = [asyncio.ensure_future(echo(pipeline, "held", lock=7)) for _ in range(3)]
    await waiting(admin, 1)
    await admin.fetchval("SELECT pg_terminate_backend($1)", process)
    found = await asyncio.gather(*under_way, return_exceptions=True)
    assert all(isinstance(one, psycopg.OperationalError) for one in found), found
    *_, other = await echo(pipeline, "again")
    assert other != process


async def test_an_idle_connection_that_ends_is_replaced(pipeline: Pipeline, admin: asyncpg.Connection) -> None:
    *_, process = await echo(pipeline, "first")
    line = pipeline._lines[0]
    assert line is not None
    await admin.fetchval("SELECT pg_terminate_backend($1)", process)
    async with asyncio.timeout(10):
        while not line.ended:
            await asyncio.sleep(0.01)
    assert (await echo(pipeline, "second"))[0] == "second"


async def test_a_connection_that_takes_nothing_more_is_replaced(pipeline: Pipeline) -> None:
    *_, process = await echo(pipeline, "first")
    line = pipeline._lines[0]
    assert line is not None
    line._pgconn.finish()
    with pytest.raises(psycopg.OperationalError):
        await echo(pipeline, "lost")
    *_, other = await echo(pipeline, "again")
    assert other != process


async def test_who_comes_behind_a_lock_goes_another_way(pipeline: Pipeline, admin: asyncpg.Connection) -> None:
    *_, process = await echo(pipeline, "first")
    await admin.fetchval("SELECT pg_advisory_lock(7)")
    stuck = asyncio.ensure_future(echo(pipeline, "stuck", lock=7))
    await waiting(admin, 1)
    await asyncio.sleep(0.06)  # its patience: a span of time is what is tested
    async with asyncio.timeout(5):
        *_, other = await echo(pipeline, "other")
    assert other != process and not stuck.done()
    await admin.fetchval("SELECT pg_advisory_unlock(7)")
    assert (await stuck)[3] == process
    *_, back = await echo(pipeline, "back")
    assert back == process


async def test_what_takes_too_long_fails(pg_admin_dsn: str, admin: asyncpg.Connection) -> None:
    pipeline = make(pg_admin_dsn, seconds=0.3)
    await echo(pipeline, "first")
    await admin.fetchval("SELECT pg_advisory_lock(7)")
    with pytest.raises(psycopg.OperationalError, match=r"0\.3 s"):
        await echo(pipeline, "stuck", lock=7)
    assert (await echo(pipeline, "next"))[0] == "next"
    pipeline.close()


async def test_who_no_longer_waits_holds_nobody_up(pipeline: Pipeline, admin: asyncpg.Connection) -> None:
    await echo(pipeline, "first")
    await admin.fetchval("SELECT pg_advisory_lock(7)")
    gone = asyncio.ensure_future(echo(pipeline, "gone", lock=7))
    behind = asyncio.ensure_future(echo(pipeline, "behind"))
    await waiting(admin, 1)
    gone.cancel()
    await admin.fetchval("SELECT pg_advisory_unlock(7)")
    assert (await behind)[0] == "behind"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_server_that_is_away_or_refuses(pg_admin_dsn: str) -> None:
    with pytest.raises(psycopg.OperationalError):
        await echo(make("postgresql://postgres@127.0.0.1:1/postgres"), "x")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        await echo(make(pg_admin_dsn.rsplit("/", 1)[0] + "/nowhere"), "x")
    wrong = Pipeline(pg_admin_dsn, "SELEC 1", [], {}, seconds=1, connect_seconds=5, patience=1)
    with pytest.raises(psycopg.errors.SyntaxError):
        await wrong.run([])


async def test_closing_fails_what_is_under_way(pipeline: Pipeline, admin: asyncpg.Connection) -> None:
    await echo(pipeline, "first")
    await admin.fetchval("SELECT pg_advisory_lock(7)")
    stuck = asyncio.ensure_future(echo(pipeline, "stuck", lock=7))
    await waiting(admin, 1)
    pipeline.close()
    with pytest.raises(psycopg.OperationalError):
        await stuck


async def test_settings_are_the_servers(pg_admin_dsn: str) -> None:
    statement = "SELECT current_setting('lock_timeout'), current_setting('work_mem')"
    dsn = pg_admin_dsn + "?options=-c%20work_mem%3D5MB"
    pipeline = Pipeline(dsn, statement, [], {"lock_timeout": "1234"}, seconds=5, connect_seconds=5, patience=1)
    assert await pipeline.run([]) == [(b"1234ms", b"5MB")]
    pipeline.close()


STAMPS = [
    dt.datetime(2026, 3, 29, 1, 30, 0, 123456, dt.UTC), dt.datetime(1969, 7, 20, tzinfo=dt.UTC),
    dt.datetime(2026, 10, 25, 3, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("element", "name", "values"),
    [
        (TEXT, "text", ["", "Zürich", None, "x" * 70_000, "{\"'\\,}"]),
        (INT8, "int8", [0, -1, 2**63 - 1, None, -(2**63)]),
        (UUID, "uuid", [uuid.UUID(int=0), None, uuid.uuid4()]),
        (TIMESTAMPTZ, "timestamptz", [*STAMPS, None]),
        (BOOL, "bool", [True, False, None]),
        (INT8, "int8", []),
        (TEXT, "text", [None, None]),
    ],
)
async def test_arrays_arrive_as_they_are(
    pg_admin_dsn: str, admin: asyncpg.Connection, element: Element, name: str, values: list[Any]
) -> None:
    """What PostgreSQL makes of our octets is what it makes of the same values through another library."""
    pipeline = Pipeline(
        pg_admin_dsn, f"SELECT x::text FROM unnest($1::{name}[]) x", [element.array], {"timezone": "UTC"},
        seconds=5, connect_seconds=5, patience=1,
    )  # fmt: skip
    await admin.execute("SET timezone = 'UTC'")
    expected = await admin.fetch(f"SELECT x::text FROM unnest($1::{name}[]) x", values)
    found = [None if text is None else text.decode() for (text,) in await pipeline.run([array(element, values)])]
    assert found == [row["x"] for row in expected] and len(found) == len(values)
    pipeline.close()


@pytest.mark.parametrize(("element", "value"), [(INT8, 2**63), (TEXT, 5), (UUID, "x"), (TEXT, "\ud800")])
def test_what_no_element_can_be_is_refused(element: Element, value: Any) -> None:
    with pytest.raises((OverflowError, AttributeError, UnicodeError)):
        array(element, [value])
