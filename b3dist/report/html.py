"""What every page is made of: templates, JSON that is safe inside a script element, hashes for the page's policy."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from b3dist.report.words import NOTHING

_TEMPLATES = Path(__file__).parent / "templates"


def environment() -> jinja2.Environment:
    """Autoescaping templates in which an undefined name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["dash"] = _with_dash
    return environment


def read_template(name: str) -> str:
    """A file beside the templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def as_json(content: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it is put into, whatever strings it holds."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def csp_hash(script: str) -> str:
    """What the page's policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _with_dash(value: float | None, pattern: str = "{:,}") -> str:
    """The value in the pattern, or a dash where there is none."""
    return NOTHING if value is None else pattern.format(value)
