"""Local volumes: a folder of the node for each claim of the default StorageClass."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from kubernetes import client

PROVISIONER = "mvno.box/local"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
log = logging.getLogger(__name__)


class Volumes:
    """Makes a PersistentVolume for a claim once a pod was scheduled for it, and deletes it with its data after."""

    def __init__(self, api: client.CoreV1Api, folder: Path, storage_class: str, node: str) -> None:
        self._api, self._folder, self._class, self._node = api, folder, storage_class, node

    def claim_seen(self, claim: dict[str, Any]) -> None:
        """React to a PersistentVolumeClaim."""
        meta, spec = claim["metadata"], claim["spec"]
        wanted = spec.get("storageClassName") == self._class and not spec.get("volumeName")
        if not wanted or (meta.get("annotations") or {}).get(SELECTED_NODE) != self._node:
            return
        name = f"pvc-{meta['uid']}"
        path = self._folder / f"{meta['namespace']}-{meta['name']}-{meta['uid'][:8]}"
        path.mkdir(mode=0o755, exist_ok=True)
        volume = {
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": self._class,
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
                "local": {"path": str(path)},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [self._node]}
                                ]
                            }
                        ]
                    }
                },
            },
        }
        try:
            self._api.create_persistent_volume(volume)  # type: ignore[arg-type]
            log.info("volume %s for %s/%s", name, meta["namespace"], meta["name"])
        except client.ApiException as error:
            if error.status != 409:
                raise

    def volume_seen(self, volume: dict[str, Any]) -> None:
        """React to a PersistentVolume."""
        meta = volume["metadata"]
        ours = (meta.get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER
        if not ours or volume.get("status", {}).get("phase") != "Released":
            return
        path = Path(volume["spec"]["local"]["path"])
        # Never outside the folder, whatever a resource says.
        if path.parent == self._folder:
            shutil.rmtree(path, ignore_errors=True)
        try:
            self._api.delete_persistent_volume(meta["name"])
            log.info("volume %s removed", meta["name"])
        except client.ApiException as error:
            if error.status != 404:
                raise
