"""`python -m python_host ENGINE_ADDRESS`: what the engine starts for `runtime: python`."""

from __future__ import annotations

import sys

from kubernetes_provider.protocol import language_pb2_grpc
from kubernetes_provider.server import serve

from .servicer import Servicer


def main() -> None:
    """Serve the language host; the engine's address is the one argument that is no flag."""
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    servicer = Servicer(addresses[0] if addresses else "")
    serve(
        lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(servicer, server),
        on_exit=servicer.interrupt,
    )


main()
