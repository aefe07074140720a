"""Where a text that a model wrote says its level."""

from __future__ import annotations

import re

from riskva.report import LEVEL_LABELS, ReportFormat

_BEGIN = r"(?:^[^\w\n]*\d{0,2}[^\w\n]*|\")"
"""A label begins a line, or is the key of a JSON object: in another field's text it says no level."""
_MARKS = r"[\s*＊_:：\"'`“”‘’「」【】]*"
"""All that may stand between a field's label and its level."""


def level_place(text: str, report_format: ReportFormat) -> int | None:
    """How many characters stand before 轻微, 中等 or 严重 in the level's field; None where none plainly stands."""
    pattern = rf"{_BEGIN}{re.escape(report_format.level_label)}{_MARKS}(?={'|'.join(LEVEL_LABELS)})"
    found = re.search(pattern, text, re.MULTILINE)
    return found.end() if found else None
