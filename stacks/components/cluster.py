"""The one Kubernetes provider of a stack."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes


def cluster_provider(config: pulumi.Config, context: pulumi.Input[str] | None = None) -> kubernetes.Provider:
    """A provider bound to one context of the user's kubeconfig; `context` where it is not known yet.

    An explicit context and cluster identifier: without them an edit of the kubeconfig looks like another
    cluster and replaces every resource. ConfigMaps and Secrets change in place; charts roll their pods by checksum.
    """
    return kubernetes.Provider(
        "cluster",
        context=config.require("context") if context is None else context,
        cluster_identifier=config.require("clusterIdentifier"),
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
    )
