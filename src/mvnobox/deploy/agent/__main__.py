"""`python -m mvnobox.deploy.agent CONFIG`: mirrors what policies and volumes need and acts on each change."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

from mvnobox.deploy.agent.edges import Edge, edges, forgotten, translations
from mvnobox.deploy.agent.mirror import Mirror
from mvnobox.deploy.agent.policies import Pod, compile_rules
from mvnobox.deploy.agent.volumes import Volumes

log = logging.getLogger("mvnobox.agent")
# A burst of changes (a rollout) is compiled once.
SETTLE_SECONDS = 0.05
RESYNC_SECONDS = 30.0
# Policies do not wait longer for the list of Services.
SERVICES_SECONDS = 10.0


def _pod(item: dict[str, Any]) -> Pod | None:
    status, spec = item.get("status", {}), item["spec"]
    address = status.get("podIP")
    if not address or spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    ports = tuple(
        (port["name"], port.get("protocol", "TCP"), port["containerPort"])
        for container in spec["containers"]
        for port in container.get("ports") or []
        if port.get("name")
    )
    meta = item["metadata"]
    return Pod(meta["namespace"], meta["name"], address, meta.get("labels") or {}, ports)


def _forget(address: str) -> None:
    """Drop the UDP connections that left by an address: their answers would go to a pod that is there no more."""
    try:
        # It ends with 1 where there was none.
        subprocess.run(["conntrack", "-D", "-p", "udp", "--reply-dst", address], capture_output=True, check=False)
    except OSError as error:
        log.error("conntrack: %s", error)


def main(path: str) -> None:
    """Run until killed; the table of rules stays in force while the agent is away."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    api = config.new_client_from_config(settings["kubeconfig"])  # type: ignore[no-untyped-call]
    core = client.CoreV1Api(api)
    volumes = Volumes(core, Path(settings["volumes"]), settings["storageClass"], settings["nodeName"])
    dirty = threading.Event()

    def policy_input(kind: str, item: dict[str, Any]) -> None:
        dirty.set()

    pods = Mirror(api, "/api/v1/pods", policy_input)
    namespaces = Mirror(api, "/api/v1/namespaces", policy_input)
    policies = Mirror(api, "/apis/networking.k8s.io/v1/networkpolicies", policy_input)
    services = Mirror(api, "/api/v1/services", policy_input)
    claims = Mirror(
        api,
        "/api/v1/persistentvolumeclaims",
        lambda kind, item: volumes.claim_seen(item) if kind in ("ADDED", "MODIFIED") else None,
    )
    released = Mirror(
        api,
        "/api/v1/persistentvolumes",
        lambda kind, item: volumes.volume_seen(item) if kind in ("ADDED", "MODIFIED") else None,
    )
    mirrors = (pods, namespaces, policies, services, claims, released)
    for mirror in mirrors:
        mirror.start()
    for mirror in (pods, namespaces, policies):
        mirror.synced.wait()
    services.synced.wait(SERVICES_SECONDS)
    last = ""
    outside: tuple[Edge, ...] | None = None
    inside = f"{{ {settings['podCidr']}, {settings['serviceCidr']} }}"
    while True:
        dirty.wait(RESYNC_SECONDS)
        threading.Event().wait(SETTLE_SECONDS)
        resync = not dirty.is_set()
        dirty.clear()
        there = [pod for pod in map(_pod, list(pods.objects.values())) if pod]
        found = edges(list(services.objects.values()), there)
        text = compile_rules(
            there,
            {i["metadata"]["name"]: i["metadata"].get("labels") or {} for i in list(namespaces.objects.values())},
            list(policies.objects.values()),
            settings["podCidr"],
            settings["serviceCidr"],
            translations(found, inside),
        )
        if text == last and not resync:
            continue
        done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            log.error("nft refused the rules: %s", done.stderr.strip()[:500])
            continue
        if text != last:
            log.info("rules applied: %d policies, %d pods", len(policies.objects), len(pods.objects))
        for address in forgotten(outside, found):
            _forget(address)
        last, outside = text, found


if __name__ == "__main__":
    main(sys.argv[1])
