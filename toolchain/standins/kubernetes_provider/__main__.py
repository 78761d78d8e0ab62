"""`python -m kubernetes_provider ENGINE_ADDRESS`: what the engine starts."""

from __future__ import annotations

import sys

from .protocol import provider_pb2_grpc
from .server import serve
from .servicer import Servicer


def main() -> None:
    """Serve the provider; the engine's address is the first argument."""
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    servicer = Servicer(addresses[0] if addresses else "")
    serve(lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server))


main()
