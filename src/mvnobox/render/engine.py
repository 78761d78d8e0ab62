"""Jinja2 over `templates/`: an undefined name is an error, never an empty string."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).resolve().parents[3] / "templates"


@cache
def _environment() -> Environment:
    # What comes out is YAML, SQL and the like, not HTML: nothing to escape here.
    return Environment(  # nosec B701
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )


def render_template(name: str, /, **context: object) -> str:
    """The text of `templates/<name>` with a context. Raises jinja2.UndefinedError for a name that is not given."""
    return _environment().get_template(name).render(**context)
