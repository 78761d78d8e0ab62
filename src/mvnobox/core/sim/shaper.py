"""A maximum bit rate of one direction: a token bucket with a queue before it."""

from __future__ import annotations

import time
from collections import deque

# What may go at once, in seconds of the rate and at least in octets; what waits at most.
BURST_SECONDS, LEAST_BURST = 0.005, 16_384
QUEUE_SECONDS, LEAST_QUEUE = 0.1, 65_536


class Shaper:
    """`rate` is octets a second, 0 for none. Packets are octets that the owner knows how to send."""

    __slots__ = ("_queue", "_queued", "_stamp", "_tokens", "rate", "scheduled")

    def __init__(self) -> None:
        self.rate = 0
        # Whether somebody will call `ready` later.
        self.scheduled = False
        self._tokens = float(LEAST_BURST)
        self._stamp = time.monotonic()
        self._queue: deque[bytes] = deque()
        self._queued = 0

    def _refill(self) -> None:
        now = time.monotonic()
        most = max(self.rate * BURST_SECONDS, LEAST_BURST)
        self._tokens = min(most, self._tokens + (now - self._stamp) * self.rate)
        self._stamp = now

    def passes(self, octets: int) -> bool:
        """Whether a packet may go now; if so, it is taken into account."""
        if not self.rate:
            return True
        if self._queue:
            return False
        self._refill()
        if self._tokens <= 0:
            return False
        self._tokens -= octets
        return True

    def wait(self, packet: bytes) -> bool:
        """Put a packet at the queue's end; False where the queue is full."""
        if self._queued + len(packet) > max(self.rate * QUEUE_SECONDS, LEAST_QUEUE):
            return False
        self._queue.append(packet)
        self._queued += len(packet)
        return True

    def ready(self) -> list[bytes]:
        """Waiting packets that may go now, in order."""
        self._refill()
        going = []
        while self._queue and (self._tokens > 0 or not self.rate):
            packet = self._queue.popleft()
            self._queued -= len(packet)
            self._tokens -= len(packet)
            going.append(packet)
        return going

    def delay(self) -> float | None:
        """Seconds until a waiting packet may go; None where none waits."""
        if not self._queue:
            return None
        return max(0.001, (1 - self._tokens) / self.rate) if self.rate else 0.0
