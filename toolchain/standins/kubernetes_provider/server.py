"""A plug-in process: a gRPC server whose port is the first line on standard output."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from .protocol import CHANNEL_OPTIONS


def serve(register: Callable[[Any], None], on_exit: Callable[[], None] = lambda: None) -> None:
    """Serve until the engine interrupts this process or is gone itself.

    The engine ends plug-ins with SIGINT and kills them five seconds later: leaving at once is what makes commands
    quick. Plug-ins have a process group of their own, so a person's Ctrl-C does not reach them; the engine then
    calls Cancel.
    """

    def leave(*_: object) -> None:
        on_exit()
        os._exit(0)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    # Awaiting objects hold a thread each; the engine's own parallelism is what limits them.
    server = grpc.server(ThreadPoolExecutor(max_workers=512), options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)])
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    engine = os.getppid()

    def watch() -> None:
        while os.getppid() == engine:
            time.sleep(1)
        leave()

    threading.Thread(target=watch, daemon=True).start()
    server.wait_for_termination()
