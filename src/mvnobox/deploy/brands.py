"""Brands by name or file, and those that are installed."""

from __future__ import annotations

from pathlib import Path

from mvnobox.deploy.paths import project_root
from mvnobox.errors import BadInput
from mvnobox.spec import BrandSpec, load_brand


def find_brand(name_or_file: str) -> tuple[Path, BrandSpec]:
    """(file, spec) of `--brand`: a file, or a name that stands for brands/NAME.yaml. Raises BadInput."""
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml", ".json"):
        path = project_root() / "brands" / f"{name_or_file}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in (project_root() / "brands").glob("*.yaml")))
            raise BadInput(f"there is no brand {name_or_file!r}", f"one of {known}, or the path of a BrandSpec file")
    spec = load_brand(path)
    return path.resolve(), spec


def stack_path(file: Path) -> str:
    """A brand's file as stack settings name it: relative to the project where it is inside of it."""
    root = project_root().resolve()
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
