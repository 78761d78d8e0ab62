"""Messages to the engine, which shows them beside the resource."""

from __future__ import annotations

import contextlib

import grpc

from .protocol import CHANNEL_OPTIONS, engine_pb2, engine_pb2_grpc


class Engine:
    """The engine's log. A message that cannot be delivered is dropped: it is never worth an operation."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, CHANNEL_OPTIONS) if address else None
        self._stub = engine_pb2_grpc.EngineStub(self._channel) if self._channel else None

    def _log(self, severity: int, urn: str, message: str, ephemeral: bool) -> None:
        if self._stub is None:
            return
        request = engine_pb2.LogRequest(severity=severity, message=message, urn=urn, ephemeral=ephemeral)
        with contextlib.suppress(grpc.RpcError):
            self._stub.Log(request, timeout=5)

    def status(self, urn: str, message: str) -> None:
        """What an operation is at now; the next status replaces it."""
        self._log(engine_pb2.INFO, urn, message, ephemeral=True)

    def warning(self, urn: str, message: str) -> None:
        """Something to be told once, that does not stop the operation."""
        self._log(engine_pb2.WARNING, urn, message, ephemeral=False)
