"""Images by the hash of their inputs: what has not changed is not built, and no builder is even looked for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mvnobox.deploy.images.base import ensure_base
from mvnobox.deploy.images.builders import Builder, find_builder
from mvnobox.deploy.images.host import write_secrets
from mvnobox.deploy.images.inputs import IMAGES, archive_path, image, image_reference, stage
from mvnobox.deploy.images.process import full_disk, is_full, run_logged
from mvnobox.deploy.paths import cache_dir
from mvnobox.deploy.report import Reporter
from mvnobox.errors import BadInput, EnvironmentUnfit

MINIMUM_DISK = 3 * 2**30
# Archives of earlier contents that are kept, so that going back to a commit builds nothing.
KEPT_ARCHIVES = 3


def ensure_images(names: Iterable[str], report: Reporter) -> dict[str, str]:
    """Name to reference of images whose archives are in the cache afterwards, built now if they are not there.

    Raises BadInput for an unknown name, EnvironmentUnfit (no builder, no base, full disk) or Failed with the end of
    the build's log.
    """
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in IMAGES]
    if unknown:
        raise BadInput(f"there is no image {', '.join(unknown)}", f"the images are {', '.join(IMAGES)}")
    references = {name: image_reference(name) for name in wanted}
    missing = [name for name in wanted if not archive_path(references[name]).exists()]
    if missing:
        try:
            with _only_one():
                for name in missing:
                    if not archive_path(references[name]).exists():
                        _make(name, report)
        except OSError as error:
            if is_full(error):
                raise full_disk("Building the container images", cache_dir()) from None
            raise
    return references


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < MINIMUM_DISK:
        raise EnvironmentUnfit(
            f"{folder} has {free / 2**30:.1f} GiB free; building the images takes {MINIMUM_DISK / 2**30:.0f} GiB",
            "make room, or set MVNO_CACHE to a folder on a larger disk",
        )
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(name: str, report: Reporter) -> None:
    builder = find_builder()
    reference = image_reference(name)
    archive = archive_path(reference)
    log = cache_dir() / "logs" / f"image-{name}.log"
    log.unlink(missing_ok=True)
    pull = ensure_base(builder, report, log)
    parent = image(name).parent
    if parent not in (None, "base") and not builder.has(image_reference(parent)):
        _build(builder, parent, pull, report, log)
        pull = False
    _build(builder, name, pull, report, log)
    with report.task(f"Packing image {name}") as task:
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        try:
            run_logged(f"Packing image {name}", builder.save(reference, partial), log, task)
            partial.rename(archive)
        finally:
            partial.unlink(missing_ok=True)
    _forget_old(builder, name, archive)


def _build(builder: Builder, name: str, pull: bool, report: Reporter, log: Path) -> None:
    wanted = image(name)
    arguments = {wanted.argument: image_reference(wanted.parent)} if wanted.parent and wanted.argument else {}
    with (
        report.task(f"Building image {name} with {builder.name}") as task,
        tempfile.TemporaryDirectory(prefix=f"mvno-image-{name}-") as scratch,
    ):
        context, secrets = Path(scratch) / "context", Path(scratch) / "secrets"
        context.mkdir()
        secrets.mkdir(mode=0o700)
        stage(wanted, context)
        command = builder.build(
            image_reference(name),
            context / "images" / name / "Containerfile",
            context,
            arguments,
            write_secrets(secrets),
        )
        if not pull:
            command[-1:-1] = builder.never_pull()
        run_logged(f"Building image {name}", command, log, task, cwd=context)


def _forget_old(builder: Builder, name: str, newest: Path) -> None:
    """Keep the cache from growing with every edit."""
    archives = sorted(newest.parent.glob(f"{name}-????????????.tar"), key=os.path.getmtime, reverse=True)
    for old in [path for path in archives if path != newest][KEPT_ARCHIVES - 1 :]:
        old.unlink(missing_ok=True)
        tag = old.stem.removeprefix(f"{name}-")
        builder.remove(f"{image_reference(name).rpartition(':')[0]}:{tag}")
