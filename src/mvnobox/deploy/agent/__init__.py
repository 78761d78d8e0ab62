"""The embedded cluster's node agent: enforces NetworkPolicies with nftables and makes local volumes."""
