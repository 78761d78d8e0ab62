"""How a service ends: at once, or after a while in which a successor starts."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mvnobox.service.web import run_until_signal


class Running:
    """A service of one part, in this process."""

    def __init__(self) -> None:
        self.leaving, self.started, self.ended = asyncio.Event(), asyncio.Event(), False
        self.task = asyncio.ensure_future(run_until_signal(self._part(), leaving=self.leaving))

    async def _part(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def signalled(number: int) -> Running:
    running = Running()
    async with asyncio.timeout(5):
        await running.started.wait()
    os.kill(os.getpid(), number)
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_alone_it_ends_at_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.delenv("LINGER_SECONDS", raising=False)
    running = await signalled(number)
    async with asyncio.timeout(5):
        await running.task
    assert running.ended and not running.leaving.is_set()


async def test_in_a_pod_it_serves_on_and_a_second_signal_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGER_SECONDS", "60")
    running = await signalled(signal.SIGTERM)
    async with asyncio.timeout(5):
        await running.leaving.wait()
    assert not running.ended
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await running.task
    assert running.ended


async def test_its_time_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGER_SECONDS", "0.1")
    running = await signalled(signal.SIGTERM)
    async with asyncio.timeout(5):
        await running.task
    assert running.ended and running.leaving.is_set()


async def test_an_interrupt_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGER_SECONDS", "60")
    running = await signalled(signal.SIGINT)
    async with asyncio.timeout(5):
        await running.task
    assert running.ended


async def test_a_part_that_fails_ends_it_while_it_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGER_SECONDS", "60")
    fail = asyncio.Event()

    async def part() -> None:
        await fail.wait()
        raise RuntimeError("no more")

    leaving = asyncio.Event()
    task = asyncio.ensure_future(run_until_signal(part(), leaving=leaving))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await leaving.wait()
        fail.set()
        with pytest.raises(RuntimeError, match="no more"):
            await task
