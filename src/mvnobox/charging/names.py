"""Host names of those who are notified, looked up so that a dead name server delays neither others nor the shutdown.

The event loop's own look-up shares four threads between all consumers, and waits for them when it closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading

AT_MOST = 64


class Names:
    """Look-ups in threads that nobody waits for; at most `AT_MOST` at a time."""

    def __init__(self) -> None:
        self._running = 0

    async def address(self, host: str) -> str:
        """An address of a host; an address is its own. Raises OSError; waits as long as the caller lets it."""
        try:
            return str(ipaddress.ip_address(host))
        except ValueError:
            pass
        if self._running >= AT_MOST:
            raise OSError("too many names are being looked up")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[str] = loop.create_future()

        def settle(answer: str | OSError) -> None:
            self._running -= 1
            if found.done():
                return
            if isinstance(answer, OSError):
                found.set_exception(answer)
            else:
                found.set_result(answer)

        def look_up() -> None:
            answer: str | OSError
            try:
                answer = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
            except (OSError, UnicodeError) as error:
                answer = OSError(type(error).__name__)
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(settle, answer)

        self._running += 1
        threading.Thread(target=look_up, daemon=True).start()
        return await found
