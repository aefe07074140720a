"""Rows for tests of the audit, made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from riskva.audit.builder import Audit, AuditBuilder
from riskva.audit.facts import AuditSettings
from riskva.audit.findings import Finding
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport
from riskva.tables.records import BadRow, PreparedRow, StoredPhoto
from riskva.vocabulary import KINDS

MINOR, MODERATE, SEVERE = RiskLevel
Given = tuple[PreparedRow, str]


def settings(**changes: Any) -> AuditSettings:
    values: dict[str, Any] = {
        "report_format": DEFAULT_FORMAT,
        "splits": ("train", "val", "test"),
        "image_max_pixels": 1024 * 1024,
        "image_min_pixels": 56 * 56,
        "kinds": KINDS,
        "title": "defects",
        "tables": (("t.csv", "CSV, UTF-8"),),
    }
    return AuditSettings(**(values | changes))


def row(number: int, level: RiskLevel = MINOR, **changes: Any) -> PreparedRow:
    """A row that nothing is to be said against; `text` words all its fields.

    `size`, `content` and `is_unchanged` are its photo's; other `changes` are fields of the row.
    """
    text = changes.pop("text", f"客厅墙面存在裂缝，编号{number}")
    size, content = changes.pop("size", (640, 480)), changes.pop("content", str(number))
    is_unchanged = changes.pop("is_unchanged", True)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    values: dict[str, Any] = {
        "number": number,
        "table": "t.csv",
        "line": number + 2,
        "id": f"p{number}",
        "report": RiskReport(level, dict.fromkeys(DEFAULT_FORMAT.text_labels, text)),
        "cells": {},
        "photo": StoredPhoto(f"{number}.jpg", None, size, 1000, sha256, "", is_unchanged),
    }
    return PreparedRow(**(values | changes))


def bad_row(number: int, reason: str = "image_missing") -> BadRow:
    return BadRow(number, "t.csv", number + 2, f"p{number}", f"{number}.jpg", reason, "no such file")


def healthy(num_rows: int = 900, first: int = 0) -> list[Given]:
    """Rows of all levels alike in every split, of which nothing is found; a third is for each split."""
    return [(row(first + n, RiskLevel(n // 3 % 3)), ("train", "val", "test")[n % 3]) for n in range(num_rows)]


def thumbnail(number: int) -> bytes:
    return f"jpeg {number}".encode()


def audit_of(
    rows: Sequence[Given], bad: Iterable[BadRow] = (), look_alikes: Sequence[Sequence[int]] = (), **changes: Any
) -> Audit:
    builder = AuditBuilder(settings(**changes))
    for one, split in rows:
        builder.add(one, split)
    for one_bad in bad:
        builder.add_bad(one_bad)
    return builder.finish(look_alikes, thumbnail)


def finding(audit: Audit, code: str) -> Finding:
    """The one finding with this code."""
    (found,) = [one for one in audit.findings if one.code == code]
    return found


def codes(audit: Audit) -> list[str]:
    return [one.code for one in audit.findings]
