"""Everything that touches a machine or a cluster: tools, hosts, clusters, images, Pulumi stacks."""
