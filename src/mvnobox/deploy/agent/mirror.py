"""A local mirror of a kind of object: list, then watch; lists again when the watch is lost."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kubernetes import client

log = logging.getLogger(__name__)
Objects = dict[str, dict[str, Any]]


class Mirror(threading.Thread):
    """Keeps `objects` (by namespace/name) true to the API server and calls `changed` after each change."""

    def __init__(self, api: client.ApiClient, path: str, changed: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(daemon=True, name=path)
        self._api, self._path, self._changed = api, path, changed
        self.objects: Objects = {}
        self.synced = threading.Event()

    def run(self) -> None:
        delay = 0.2
        while True:
            try:
                version = self._list()
                delay = 0.2
                self._watch(version)
            except Exception as error:  # the API server is away or ended the watch: list again
                log.warning("%s: %s", self._path, str(error).splitlines()[0] if str(error) else type(error).__name__)
                time.sleep(delay)
                delay = min(delay * 2, 5)

    def _get(self, query: dict[str, str], timeout: float) -> Any:
        url = self._api.configuration.host + self._path
        response = self._api.rest_client.pool_manager.request(
            "GET", url, fields=query, preload_content=False, timeout=timeout, retries=False
        )
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {response.read()[:200]!r}")
        return response

    def _list(self) -> str:
        body = json.loads(self._get({}, 30).read())
        self.objects = {self._key(item): item for item in body["items"]}
        self.synced.set()
        for item in body["items"]:
            self._changed("ADDED", item)
        self._changed("SYNCED", {})
        return str(body["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> None:
        response = self._get(
            {"watch": "1", "resourceVersion": version, "timeoutSeconds": "240", "allowWatchBookmarks": "true"}, 300
        )
        buffer = b""
        for chunk in response.stream(65536, decode_content=False):
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise RuntimeError(event["object"].get("message", "the watch ended"))
                if event["type"] == "BOOKMARK":
                    continue
                key = self._key(event["object"])
                if event["type"] == "DELETED":
                    self.objects.pop(key, None)
                else:
                    self.objects[key] = event["object"]
                self._changed(event["type"], event["object"])

    @staticmethod
    def _key(item: dict[str, Any]) -> str:
        return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"
