"""Components that the provider builds itself: `helm.sh/v4:Chart`, whose objects become its children."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

from . import chart, manifests, objects
from .errors import NoSuchKind, ProviderError, Unreachable
from .protocol import CHANNEL_OPTIONS, provider_pb2, resource_pb2, resource_pb2_grpc
from .provider import Provider
from .values import Reference, as_secret, decode, encode, has_unknowns, plain

CHART = "kubernetes:helm.sh/v4:Chart"


class Failure(ProviderError):
    """Children that failed; the engine has already shown why."""


def construct(request: Any, provider: Provider, version: str) -> Any:
    """Answer a ConstructRequest: register the component, then its objects as children."""
    if request.type != CHART:
        raise ProviderError(
            f"the stand-in provider cannot build a {request.type}: it needs the official pulumi-resource-kubernetes"
        )
    with grpc.insecure_channel(request.monitorEndpoint, CHANNEL_OPTIONS) as channel:
        monitor = resource_pb2_grpc.ResourceMonitorStub(channel)
        try:
            component = monitor.RegisterResource(_component(request))
            children = _children(request, provider, version, monitor, component.urn)
        except grpc.RpcError as error:
            raise ProviderError(f"{request.type} {request.name}: {error.details()}") from error
    references = [Reference(child.urn, child.id) for child in children]
    return provider_pb2.ConstructResponse(
        urn=component.urn,
        state=encode({"resources": references}),
        stateDependencies={
            "resources": provider_pb2.ConstructResponse.PropertyDependencies(urns=[one.urn for one in references])
        },
    )


def _component(request: Any) -> Any:
    wanted = resource_pb2.RegisterResourceRequest(
        type=request.type,
        name=request.name,
        parent=request.parent,
        custom=False,
        object=encode({}),
        dependencies=request.dependencies,
        acceptSecrets=True,
        acceptResources=True,
        supportsPartialValues=True,
        supportsResultReporting=True,
        aliasSpecs=True,
        aliases=request.aliases,
        ignoreChanges=request.ignoreChanges,
        replaceOnChanges=request.replaceOnChanges,
        deletedWith=request.deletedWith,
    )
    if request.HasField("protect"):
        wanted.protect = request.protect
    if request.HasField("retainOnDelete"):
        wanted.retainOnDelete = request.retainOnDelete
    return wanted


def _children(request: Any, provider: Provider, version: str, monitor: Any, parent: str) -> list[Any]:
    inputs = decode(request.inputs)
    if has_unknowns(inputs):
        provider.engine.warning(parent, "the chart's inputs are not known yet: its objects are missing in this preview")
        return []
    try:
        default = provider.default_namespace
        kube_version, served = provider.cluster.version(), provider.cluster.api_versions()
    except Unreachable:
        if not request.dryRun:
            raise
        default, kube_version, served = "default", None, []
    args = chart.chart_args(plain(inputs), request.name, default)
    found = chart.render(args, kube_version, served)
    for obj in found:
        _complete(obj, found, args, provider)
    needs = manifests.dependencies(found)
    reference = request.providers.get("kubernetes", "")
    futures: dict[int, Future[Any]] = {}
    with ThreadPoolExecutor(max_workers=max(len(found), 1)) as pool:

        def register(index: int) -> Any:
            before = [futures[one].result().urn for one in needs[index]]
            return monitor.RegisterResource(_child(found[index], args, parent, reference, version, before))

        # In an order in which every dependency has its future before somebody waits for it.
        for index in sorted(needs, key=lambda one: _depth(one, needs)):
            futures[index] = pool.submit(register, index)
    answers = [futures[index].result() for index in range(len(found))]
    failed = [found[index] for index, answer in enumerate(answers) if answer.result == resource_pb2.FAIL]
    if failed:
        names = ", ".join(f"{obj['kind']} {objects.identity(obj)}" for obj in failed)
        raise Failure(f"chart {request.name}: not every object was made: {names}")
    return answers


def _depth(index: int, needs: dict[int, list[int]]) -> int:
    return 1 + max((_depth(one, needs) for one in needs[index]), default=0)


def _complete(obj: objects.Object, found: list[objects.Object], args: chart.ChartArgs, provider: Provider) -> None:
    metadata = obj["metadata"]
    if not metadata.get("namespace") and _is_namespaced(obj, found, provider):
        metadata["namespace"] = args.namespace
    if args.skip_await:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), objects.SKIP_AWAIT: "true"}


def _is_namespaced(obj: objects.Object, found: list[objects.Object], provider: Provider) -> bool:
    group = str(obj["apiVersion"]).rpartition("/")[0]
    for one in found:
        if (
            one["kind"] == "CustomResourceDefinition"
            and objects.get(one, "spec", "group") == group
            and objects.get(one, "spec", "names", "kind") == obj["kind"]
        ):
            return bool(objects.get(one, "spec", "scope") == "Namespaced")
    try:
        return provider.cluster.is_namespaced(str(obj["apiVersion"]), str(obj["kind"]))
    except (NoSuchKind, Unreachable):
        return False


def type_token(obj: objects.Object) -> str:
    """The resource type of an object: `kubernetes:apps/v1:Deployment`, `kubernetes:core/v1:Service`."""
    api_version = str(obj["apiVersion"])
    return f"kubernetes:{api_version if '/' in api_version else f'core/{api_version}'}:{obj['kind']}"


def _child(
    obj: objects.Object, args: chart.ChartArgs, parent: str, reference: str, version: str, before: list[str]
) -> Any:
    name = objects.identity(obj)
    values: dict[str, Any] = dict(obj)
    secret = objects.kind_of(obj) == "v1/Secret"
    if secret:
        for key in ("data", "stringData"):
            if key in values:
                values[key] = as_secret(values[key])
    wanted = resource_pb2.RegisterResourceRequest(
        type=type_token(obj),
        name=f"{args.prefix}:{name}" if args.prefix else name,
        parent=parent,
        custom=True,
        object=encode(values),
        dependencies=before,
        provider=reference,
        version=version,
        acceptSecrets=True,
        acceptResources=True,
        supportsPartialValues=True,
        supportsResultReporting=True,
        aliasSpecs=True,
        additionalSecretOutputs=["data", "stringData"] if secret else [],
    )
    if objects.annotation(obj, "helm.sh/resource-policy") == "keep":
        wanted.retainOnDelete = True
    return wanted
