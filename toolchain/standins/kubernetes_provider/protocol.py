"""The gRPC stubs of the `pulumi` wheel without the SDK around them.

Importing `pulumi` costs a third of a second and a plug-in is started for every command, so the stubs are
imported through bare packages when the SDK itself has not been imported already.
"""

from __future__ import annotations

import importlib.util
import sys
import types


def _bare_packages() -> None:
    if "pulumi" in sys.modules:
        return
    found = importlib.util.find_spec("pulumi")
    if found is None or not found.submodule_search_locations:
        raise ImportError("the Python package 'pulumi' is not installed in the project's virtual environment")
    root = next(iter(found.submodule_search_locations))
    for name in ("pulumi", "pulumi.runtime", "pulumi.runtime.proto"):
        module = types.ModuleType(name)
        module.__path__ = [root + "/" + "/".join(name.split(".")[1:])]
        sys.modules[name] = module


_bare_packages()

from pulumi.runtime.proto import (  # noqa: E402
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
    status_pb2,
)

# Deployments of hundreds of objects exceed gRPC's default of 4 MiB; the engine allows 400.
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 400 * 2**20),
    ("grpc.max_send_message_length", 400 * 2**20),
]

__all__ = [
    "CHANNEL_OPTIONS",
    "engine_pb2",
    "engine_pb2_grpc",
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "resource_pb2",
    "resource_pb2_grpc",
    "status_pb2",
]
