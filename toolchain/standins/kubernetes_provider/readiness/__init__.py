"""When an object counts as ready, kind by kind, and why one does not get there."""

from .deletion import await_gone
from .waiting import await_ready, is_awaited, timeout_of

__all__ = ["await_gone", "await_ready", "is_awaited", "timeout_of"]
