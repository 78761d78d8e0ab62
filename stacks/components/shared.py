"""What a brand's stack needs of the platform's, asked before anything of the brand is made."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pulumi

from components.settings import slices_from
from mvnobox.errors import KitError
from mvnobox.render import BrandPlan, CoreSlice, check_directory, check_platform
from mvnobox.render.sbi_tls import check_agreement


def served(shared: pulumi.StackReference, plan: BrandPlan, setting: pulumi.Input[str]) -> pulumi.Output[str]:
    """A setting that is known only where the platform serves the brand; else the program ends with the remedy."""

    def judge(found: list[Any]) -> str:
        core, slices, sbi_tls, value = found
        try:
            check_platform(plan, core, None if slices is None else slices_from(json.loads(slices)))
            check_directory(plan, sbi_tls)
            if plan.core == "open5gs":
                check_agreement(plan.sbi_tls, sbi_tls)
        except KitError as error:
            raise pulumi.RunError(str(error)) from None
        return str(value)

    outputs = (shared.get_output(name) for name in ("core", "slices", "sbiTls"))
    return pulumi.Output.all(*outputs, setting).apply(judge)


def told(slices: tuple[CoreSlice, ...]) -> str:
    """The platform's slices as its output has them: a JSON text, which no engine rewrites."""
    return json.dumps([asdict(one) for one in slices], sort_keys=True)
