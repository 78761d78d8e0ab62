"""Where the kit deploys to: a cluster of the user's, or one that it brings itself."""

from mvnobox.deploy.cluster.choice import ClusterChoice, choose
from mvnobox.deploy.cluster.embedded import EmbeddedCluster

__all__ = ["ClusterChoice", "EmbeddedCluster", "choose"]
