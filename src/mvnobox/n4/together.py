"""What waits at the same time shares a statement: one round trip and one flush to disk for many sessions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import asyncpg

Item = TypeVar("Item")
Result = TypeVar("Result")
# A batch is what has come while the ones before were under way; its answers wait for the whole.
LARGEST = 64
AT_ONCE = 2
# Trouble that one item of a batch may have brought on the others.
_ONES_OWN = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)


class Together(Generic[Item, Result]):
    """`run` takes items and gives their results in their order; to its callers each item is a call of its own."""

    def __init__(self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._run = run
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Result:
        """The item's result. Raises what `run` raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, answer))
        if len(self._workers) < AT_ONCE:
            task = loop.create_task(self._work())
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(LARGEST, len(self._waiting)))]
            try:
                await self._together(batch)
            except _ONES_OWN:
                for one in batch:
                    try:
                        await self._together([one])
                    except Exception as error:
                        _fail([one], error)
            except BaseException as error:
                _fail(batch, error if isinstance(error, Exception) else ConnectionError("stopped"))
                if not isinstance(error, Exception):
                    raise

    async def _together(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        for (_, answer), result in zip(batch, await self._run([item for item, _ in batch]), strict=True):
            if not answer.done():
                answer.set_result(result)


def _fail(batch: Sequence[tuple[Item, asyncio.Future[Result]]], error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
