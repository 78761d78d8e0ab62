"""What the server knows of one client: who it is, and the authentication under way."""

from __future__ import annotations

import logging
from typing import Any

from mvnobox.core.directory.scram import MECHANISM, Conversation, Credential, Refused

log = logging.getLogger(__name__)


class AuthenticationFailed(Exception):
    """The client is told no more than that."""


class Session:
    """One connection's identity. Without users everybody who can connect may do everything."""

    def __init__(self, users: dict[str, Credential] | None = None) -> None:
        self._users = users or {}
        self._conversation: Conversation | None = None
        self._skip_empty = False
        self._proved = False
        self.user = ""
        self.greeted = False

    @property
    def allowed(self) -> bool:
        """Whether subscribers may be read and written."""
        return not self._users or bool(self.user)

    def _refuse(self, reason: str) -> AuthenticationFailed:
        log.warning("authentication refused: %s", reason)
        self._conversation = None
        self._proved = False
        return AuthenticationFailed()

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        """saslStart, or the same within hello. Raises AuthenticationFailed."""
        payload, options = body.get("payload"), body.get("options")
        if not self._users or body.get("mechanism") != MECHANISM or not isinstance(payload, bytes):
            raise self._refuse("another mechanism, or none is set up")
        self.user = ""
        self._proved = False
        self._skip_empty = isinstance(options, dict) and bool(options.get("skipEmptyExchange"))
        self._conversation = Conversation(self._users)
        try:
            answer = self._conversation.first(bytes(payload))
        except Refused as reason:
            raise self._refuse(str(reason)) from None
        return {"conversationId": 1, "done": False, "payload": answer, "ok": 1.0}

    def go_on(self, body: dict[str, Any]) -> dict[str, Any]:
        """saslContinue. Raises AuthenticationFailed."""
        payload, conversation = body.get("payload"), self._conversation
        if conversation is None or not isinstance(payload, bytes) or body.get("conversationId") != 1:
            raise self._refuse("no authentication is under way")
        if self._proved:
            self._accept(conversation)
            return {"conversationId": 1, "done": True, "payload": b"", "ok": 1.0}
        try:
            answer = conversation.final(bytes(payload))
        except Refused as reason:
            raise self._refuse(str(reason)) from None
        self._proved = True
        if self._skip_empty:
            self._accept(conversation)
        return {"conversationId": 1, "done": self._skip_empty, "payload": answer, "ok": 1.0}

    def _accept(self, conversation: Conversation) -> None:
        self.user = conversation.user
        self._conversation = None

    def end(self) -> None:
        """logout."""
        self.user = ""
        self._conversation = None
