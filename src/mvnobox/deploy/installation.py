"""What is installed: read from the stacks' settings, the one place that both `mvno` and plain `pulumi` keep."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from mvnobox.deploy.cluster import ClusterChoice
from mvnobox.deploy.paths import cluster_note, cluster_notes, home_dir, project_root
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.spec import BrandSpec, InvalidSpec, load_brand

PROJECT = "mvno-in-a-box"


@dataclass(frozen=True)
class InstalledBrand:
    """A brand whose stack exists."""

    name: str
    file: Path
    core: str


class Installation:
    """The platform and the brands of one environment."""

    def __init__(self, env: str) -> None:
        self.env = env
        self._stacks = home_dir() / "stacks"

    def settings(self, stack: str) -> dict[str, Any]:
        """The plain settings of a stack; secrets are in it only encrypted."""
        try:
            data = yaml.safe_load((self._stacks / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            return {}
        prefix = f"{PROJECT}:"
        return {key.removeprefix(prefix): value for key, value in (data.get("config") or {}).items()}

    def document(self, stack: str, name: str) -> Any:
        """A setting that is a JSON document; None where it is not there. Raises BadInput."""
        value = self.settings(stack).get(name)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise BadInput(f"the setting {name} of {stack} is {value!r}", "a JSON object: docs/open5gs.md") from None

    def exists(self, stack: str) -> bool:
        return bool(self.settings(stack))

    def brands(self) -> list[InstalledBrand]:
        """All brands of this environment."""
        found = []
        for path in sorted(self._stacks.glob(f"Pulumi.*.{self.env}.yaml")):
            name = path.name.removeprefix("Pulumi.").removesuffix(f".{self.env}.yaml")
            settings = self.settings(f"{name}.{self.env}")
            if name != "platform" and "brandFile" in settings:
                file = Path(settings["brandFile"])
                found.append(
                    InstalledBrand(
                        name, file if file.is_absolute() else project_root() / file, settings.get("core", "simulated")
                    )
                )
        return found

    def brand(self, name: str) -> InstalledBrand:
        """An installed brand. Raises EnvironmentUnfit."""
        found = {brand.name: brand for brand in self.brands()}
        if name not in found:
            raise EnvironmentUnfit(
                f"brand {name!r} is not installed in {self.env!r}; installed: {', '.join(found) or 'none'}",
                f"./mvno up --brand {name}",
            )
        return found[name]

    def specs(self) -> list[tuple[InstalledBrand, BrandSpec]]:
        """The installed brands with their specs; one whose file is gone is left out."""
        found = []
        for brand in self.brands():
            try:
                found.append((brand, load_brand(brand.file)))
            except InvalidSpec:
                continue
        return found

    def other_brands(self, name: str) -> list[BrandSpec]:
        """The specs of the other brands that are installed."""
        return [spec for brand, spec in self.specs() if brand.name != name]

    # The cluster that it lives on ----------------------------------------------------------------------------------

    @property
    def _cluster_file(self) -> Path:
        return cluster_note(home_dir(), self.env)

    def remember_cluster(self, choice: ClusterChoice) -> None:
        """Note the cluster, for the commands that follow."""
        home_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cluster_file.write_text(json.dumps({**asdict(choice), "kubeconfig": str(choice.kubeconfig)}))

    def cluster(self) -> ClusterChoice:
        """The cluster of this environment. Raises EnvironmentUnfit."""
        try:
            data = json.loads(self._cluster_file.read_text())
        except (FileNotFoundError, ValueError):
            raise EnvironmentUnfit(f"nothing is installed in {self.env!r}", "./mvno up") from None
        return ClusterChoice(**{**data, "kubeconfig": Path(data["kubeconfig"])})

    def forget_cluster(self) -> None:
        """Nothing is installed there any more."""
        self._cluster_file.unlink(missing_ok=True)


def all_clusters() -> dict[str, ClusterChoice]:
    """The clusters of all environments of this home."""
    found = {}
    for name in cluster_notes(home_dir()):
        with contextlib.suppress(EnvironmentUnfit):
            found[name] = Installation(name).cluster()
    return found
