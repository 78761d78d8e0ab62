"""A stand-in for `pulumi-language-python`, for machines that cannot download the official plug-in.

It starts the project's Python program for the engine: plain `pulumi up`, `preview` and `destroy` work with it.
"""
