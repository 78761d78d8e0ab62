"""A stand-in for `pulumi-resource-kubernetes`, for machines that cannot download the official plug-in.

It speaks the engine's provider protocol with the stubs that ship in the `pulumi` wheel, and the apiserver's REST API.
What it writes to a state is what the official provider writes, so that either takes over from the other.
"""
