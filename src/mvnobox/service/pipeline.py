"""One statement, run again and again over a PostgreSQL connection in pipeline mode (libpq's): the next one is on its way
before the last one's answer is back, so that the server goes from one to the next without waiting for anybody.

Each is a transaction of its own. One that fails does not touch those around it; a connection that ends fails all that are
under way, and the next one opens another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

_NAME = b"statement"
Row = tuple[bytes | None, ...]


@dataclass(eq=False, slots=True)
class _Run:
    """A statement that is under way, and when it was sent."""

    done: asyncio.Future[list[Row]]
    sent: float
    timer: asyncio.TimerHandle
    rows: list[Row] | None = None
    error: psycopg.Error | None = None


class _Line:
    """A connection. Results come in the order of the statements."""

    def __init__(self, connection: psycopg.AsyncConnection, seconds: float) -> None:
        self._pgconn, self._seconds = connection.pgconn, seconds
        self._connection = connection  # whose end would be that of pgconn
        self._socket = connection.pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[_Run] = deque()
        self.ended = False
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._read)

    async def prepare(self, statement: str, types: Sequence[int]) -> None:
        """Raises psycopg.Error."""
        await self._send(lambda: self._pgconn.send_prepare(_NAME, statement.encode(), types))

    def run(self, values: Sequence[bytes | None]) -> asyncio.Future[list[Row]]:
        """Send the statement with values in binary format. The future may be cancelled. Raises psycopg.Error."""
        formats = [pq.Format.BINARY] * len(values)
        return self._send(
            lambda: self._pgconn.send_query_prepared(_NAME, values, formats, result_format=pq.Format.BINARY)
        )

    def waits(self, now: float) -> float:
        """Since when the oldest statement has been under way, in seconds; 0 without any."""
        return now - self._under_way[0].sent if self._under_way else 0.0

    def end(self, error: psycopg.Error) -> None:
        """Close the connection; what is under way fails."""
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._pgconn.finish()
        while self._under_way:
            run = self._under_way.popleft()
            run.error = error
            _settle(run)

    def _send(self, say: Callable[[], None]) -> asyncio.Future[list[Row]]:
        try:
            say()
            self._pgconn.pipeline_sync()
        except psycopg.Error as error:
            # Half said, answers would no longer be those of their statements.
            self.end(error)
            raise
        now = self._loop.time()
        timer = self._loop.call_at(now + self._seconds, self._late)
        run = _Run(self._loop.create_future(), now, timer)
        self._under_way.append(run)
        self._write()
        return run.done

    def _late(self) -> None:
        # Results come in order: nobody can give up one without all that are behind it.
        self.end(psycopg.OperationalError(f"PostgreSQL has not answered within {self._seconds} s"))

    def _write(self) -> None:
        try:
            left = self._pgconn.flush()
        except psycopg.Error as error:
            self.end(error)
            return
        if left:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            while self._under_way and not self._pgconn.is_busy():
                self._take(self._pgconn.get_result())
        except psycopg.Error as error:
            self.end(error)
            return
        if self._pgconn.status == pq.ConnStatus.BAD:
            self.end(psycopg.OperationalError("the connection to PostgreSQL was lost"))

    def _take(self, result: pq.abc.PGresult | None) -> None:
        if result is None:  # a statement's end; its synchronisation point comes
            return
        run = self._under_way[0]
        match result.status:
            case pq.ExecStatus.PIPELINE_SYNC:
                self._under_way.popleft()
                _settle(run)
            case pq.ExecStatus.TUPLES_OK:
                columns = range(result.nfields)
                run.rows = [tuple([result.get_value(row, n) for n in columns]) for row in range(result.ntuples)]
            case pq.ExecStatus.COMMAND_OK:
                run.rows = []
            case _:
                run.error = run.error or psycopg.errors.error_from_result(result)


def _settle(run: _Run) -> None:
    run.timer.cancel()
    if run.done.done():  # nobody waits for it any more
        return
    if run.error is not None:
        run.done.set_exception(run.error)
    else:
        run.done.set_result(run.rows or [])


class Pipeline:
    """A statement with its connections: one, and another for as long as that one waits, for a lock for example."""

    def __init__(
        self, dsn: str, statement: str, types: Sequence[int], settings: Mapping[str, str], *,
        seconds: float, connect_seconds: float, patience: float,
    ) -> None:  # fmt: skip
        """`settings` are the server's for these connections. A statement may take `seconds`, a connection `connect_seconds`
        to be made; statements behind one that has taken `patience` seconds go another way."""
        self._dsn, self._statement, self._types = dsn, statement, types
        self._options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._seconds, self._connect_seconds, self._patience = seconds, connect_seconds, patience
        self._lines: list[_Line | None] = [None, None]
        self._opening = asyncio.Lock()

    def run(self, values: Sequence[bytes | None]) -> asyncio.Future[list[Row]]:
        """The statement's rows in binary format; it is on its way now if there is a connection. Raises psycopg.Error and
        TimeoutError, here or by the future; whether it took place is then unknown."""
        place = self._place()
        line = self._living(place)
        if line is not None:
            return line.run(values)
        return asyncio.get_running_loop().create_task(self._run_over_another(place, values))

    async def _run_over_another(self, place: int, values: Sequence[bytes | None]) -> list[Row]:
        line = await self._open(place)
        return await line.run(values)

    def close(self) -> None:
        """What is under way fails."""
        for line in self._lines:
            if line is not None:
                line.end(psycopg.OperationalError("closed"))

    def _living(self, place: int) -> _Line | None:
        line = self._lines[place]
        return None if line is None or line.ended else line

    def _place(self) -> int:
        now = asyncio.get_running_loop().time()
        waits = [line.waits(now) if (line := self._living(place)) else 0.0 for place in range(len(self._lines))]
        return 0 if waits[0] <= self._patience else waits.index(min(waits))

    async def _open(self, place: int) -> _Line:
        async with self._opening:
            if line := self._living(place):
                return line
            async with asyncio.timeout(self._connect_seconds):
                given = conninfo_to_dict(self._dsn).get("options")
                connection = await psycopg.AsyncConnection.connect(
                    self._dsn, autocommit=True, options=f"{given or ''} {self._options}".strip()
                )
                line = _Line(connection, self._seconds)
                try:
                    await line.prepare(self._statement, self._types)
                except BaseException:
                    line.end(psycopg.OperationalError("the statement could not be prepared"))
                    raise
            self._lines[place] = line
            return line
