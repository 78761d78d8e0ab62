"""Pulumi stacks from Python: the same program, state and settings as plain `pulumi up` in the checkout."""

from pulumi.automation import ConfigValue

from mvnobox.deploy.pulumi.environment import environment, shell_lines, uses_standins
from mvnobox.deploy.pulumi.workspace import Changes, Workspace

__all__ = ["Changes", "ConfigValue", "Workspace", "environment", "shell_lines", "uses_standins"]
