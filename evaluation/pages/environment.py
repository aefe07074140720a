"""The pages' templates, with their style and script put in, so that a page is one file that opens anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from riskva.report import LEVEL_LABELS

FOLDER = Path(__file__).parent

_UNSEEN = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "\u2421"}
"""Control characters as the pictures of them: ␀ for NUL."""

_NO_CHARACTERS = dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "\ufffd")
"""Halves of surrogate pairs, which no file can hold, and codes that mean nothing on a page."""

_LEGIBLE = {**_UNSEEN, **_NO_CHARACTERS}

_SCRIPT_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def render(template: str, data: Mapping[str, Any], **context: Any) -> str:
    """The page of `template` as HTML; its script finds `data` in the page. Every text is escaped."""
    script = (FOLDER / "gallery.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            data=Markup(script_json(data)),
            level_labels=LEVEL_LABELS,
        )
    )


def script_json(value: Any) -> str:
    """`value` as JSON that may stand in a script element, whatever its texts hold."""
    return json.dumps(_all_legible(value), ensure_ascii=False, separators=(",", ":")).translate(_SCRIPT_ESCAPES)


def legible(text: str) -> str:
    """`text` with something to see in the place of every character that cannot be shown or written."""
    # a file that a person edited may have its line ends in the manner of Windows
    return text.replace("\r\n", "\n").translate(_LEGIBLE)


def _all_legible(value: Any) -> Any:
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, Mapping):
        return {legible(key): _all_legible(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_all_legible(one) for one in value]
    return value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: legible(value) if type(value) is str else value,
    )
    environment.filters |= _FILTERS
    return environment


def _thousands(number: int) -> str:
    return f"{number:,}"


def _level_class(label: str) -> str:
    return f"level{LEVEL_LABELS.index(label)}"


_FILTERS: Mapping[str, Callable[..., object]] = {"thousands": _thousands, "level_class": _level_class}
