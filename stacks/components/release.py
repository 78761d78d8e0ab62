"""Namespaces, Secrets and chart releases out of the render room's data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from mvnobox.render import Namespace, Release

CHARTS = Path(__file__).resolve().parents[2] / "charts"


def namespace(spec: Namespace, opts: pulumi.ResourceOptions) -> kubernetes.core.v1.Namespace:
    """A namespace of the name that the render room chose."""
    return kubernetes.core.v1.Namespace(spec.name, metadata={"name": spec.name, "labels": spec.all_labels}, opts=opts)


def secret(
    name: str,
    where: pulumi.Input[str],
    values: Mapping[str, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
) -> kubernetes.core.v1.Secret:
    """A Secret; its values are secret in Pulumi's state too. One with a `tls.key` is of the type that Kubernetes has."""
    return kubernetes.core.v1.Secret(
        name,
        metadata={"name": name, "namespace": where},
        type="kubernetes.io/tls" if "tls.key" in values else "Opaque",
        string_data={key: pulumi.Output.secret(value) for key, value in values.items()},
        opts=opts,
    )


def checksum(values: Mapping[str, pulumi.Input[str]]) -> pulumi.Output[str]:
    """A digest that changes when a secret does, so that pods are rolled; says nothing of the secret itself."""

    def digest(plain: Mapping[str, str]) -> str:
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]

    return pulumi.Output.unsecret(pulumi.Output.all(**values).apply(digest))


def release(
    spec: Release,
    secrets: Mapping[str, Mapping[str, pulumi.Input[str]]],
    depends_on: Sequence[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> kubernetes.helm.v4.Chart:
    """A first-party chart, rendered by the provider; its resources are children in the state."""
    values: dict[str, Any] = dict(spec.values)
    if spec.secrets:
        values["secretChecksum"] = checksum({f"{n}/{k}": v for n in spec.secrets for k, v in secrets[n].items()})
    return kubernetes.helm.v4.Chart(
        f"{spec.namespace}-{spec.name}",
        name=spec.name,
        chart=str(CHARTS / spec.chart),
        namespace=spec.namespace,
        values=values,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(depends_on))),
    )
