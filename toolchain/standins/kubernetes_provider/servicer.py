"""The provider behind the engine's protocol: messages to values and back, errors to words and details."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import grpc
from google.protobuf import empty_pb2

from .diffing import Change, path_text
from .engine import Engine
from .errors import ProviderError
from .protocol import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2
from .provider import InitialisationFailed, Provider
from .settings import replaced_settings, settings_of
from .values import decode, encode

_FALLBACK_VERSION = "4.34.2"
_KINDS = {
    (Change.ADD, False): provider_pb2.PropertyDiff.ADD,
    (Change.ADD, True): provider_pb2.PropertyDiff.ADD_REPLACE,
    (Change.DELETE, False): provider_pb2.PropertyDiff.DELETE,
    (Change.DELETE, True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    (Change.UPDATE, False): provider_pb2.PropertyDiff.UPDATE,
    (Change.UPDATE, True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


def plugin_version() -> str:
    """The version of the SDK that is installed, whose provider this stands in for."""
    try:
        said = distribution("pulumi-kubernetes").read_text("../pulumi_kubernetes/pulumi-plugin.json")
        return str(json.loads(said)["version"]) if said else _FALLBACK_VERSION
    except (PackageNotFoundError, KeyError, ValueError):
        return _FALLBACK_VERSION


@contextlib.contextmanager
def _in_words(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except InitialisationFailed as error:
        detail = provider_pb2.ErrorResourceInitFailed(
            id=error.identity,
            properties=encode(error.outputs),
            reasons=error.reasons,
            inputs=encode(error.inputs) if error.inputs is not None else None,
        )
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNKNOWN, str(error))
    except (ProviderError, ValueError) as error:
        context.abort(grpc.StatusCode.UNKNOWN, str(error))
    except Exception as error:
        if not context.is_active() or type(error) is Exception:  # abort() itself raises a bare Exception
            raise
        context.abort(grpc.StatusCode.INTERNAL, f"stand-in provider: {traceback.format_exc()}")


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """pulumirpc.ResourceProvider."""

    def __init__(self, engine_address: str) -> None:
        self._engine = Engine(engine_address)
        self._address = engine_address
        self.provider = Provider(self._engine)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=plugin_version())

    def Attach(self, request: Any, context: Any) -> Any:
        self.__init__(request.address)  # type: ignore[misc]
        return empty_pb2.Empty()

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        changed, replaces = replaced_settings(decode(request.olds), decode(request.news))
        kinds = provider_pb2.DiffResponse
        return kinds(changes=kinds.DIFF_SOME if changed else kinds.DIFF_NONE, diffs=changed, replaces=replaces)

    def Configure(self, request: Any, context: Any) -> Any:
        self.provider.settings = settings_of(request.variables)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def Check(self, request: Any, context: Any) -> Any:
        with _in_words(context):
            autonaming = request.autonaming if request.HasField("autonaming") else None
            inputs = self.provider.check(
                request.urn, decode(request.olds), decode(request.news), request.randomSeed, autonaming
            )
            return provider_pb2.CheckResponse(inputs=encode(inputs))

    def Diff(self, request: Any, context: Any) -> Any:
        with _in_words(context):
            found, first = self.provider.diff(
                request.urn, decode(request.olds), decode(request.news), list(request.ignoreChanges)
            )
            answer = provider_pb2.DiffResponse(
                changes=provider_pb2.DiffResponse.DIFF_SOME if found.changes else provider_pb2.DiffResponse.DIFF_NONE,
                replaces=[path_text(path) for path in sorted(found.replacing, key=str)],
                deleteBeforeReplace=first,
                hasDetailedDiff=True,
                diffs=sorted({str(path[0]) for path in found.changes}),
            )
            for path, change in found.changes.items():
                entry = answer.detailedDiff[path_text(path)]
                entry.kind = _KINDS[change, path in found.replacing]
                entry.inputDiff = change is Change.DELETE
            return answer

    def Create(self, request: Any, context: Any) -> Any:
        with _in_words(context):
            identity, outputs = self.provider.create(
                request.urn, decode(request.properties), request.timeout, request.preview
            )
            return provider_pb2.CreateResponse(id=identity, properties=encode(outputs))

    def Update(self, request: Any, context: Any) -> Any:
        with _in_words(context):
            outputs = self.provider.update(
                request.urn, decode(request.olds), decode(request.news), request.timeout, request.preview
            )
            return provider_pb2.UpdateResponse(properties=encode(outputs))

    def Read(self, request: Any, context: Any) -> Any:
        with _in_words(context):
            found = self.provider.read(request.urn, request.id, decode(request.properties), decode(request.inputs))
            if found is None:
                return provider_pb2.ReadResponse()
            identity, outputs, inputs = found
            return provider_pb2.ReadResponse(id=identity, properties=encode(outputs), inputs=encode(inputs))

    def Delete(self, request: Any, context: Any) -> Any:
        with _in_words(context):
            self.provider.delete(request.urn, request.id, decode(request.properties), request.timeout)
            return empty_pb2.Empty()

    def Construct(self, request: Any, context: Any) -> Any:
        from .component import construct

        with _in_words(context):
            return construct(request, self.provider, plugin_version())

    def Invoke(self, request: Any, context: Any) -> Any:
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            f"the stand-in provider has no function {request.tok}: it needs the official pulumi-resource-kubernetes",
        )

    def Cancel(self, request: Any, context: Any) -> Any:
        self.provider.cancelled.set()
        return empty_pb2.Empty()
