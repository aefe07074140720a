"""Rows as the first half of prepare makes them, for tests of the second."""

import hashlib
import io
from pathlib import Path
from typing import Any

from PIL import Image

from riskva.data.conversation import Photo
from riskva.report import RiskLevel, RiskReport
from riskva.tables.records import BadRow, DefectRecord, PreparedRow, StoredPhoto

TEXTS = {"风险描述": "渗水", "纠正和预防建议": "修补", "缺陷描述": "墙面裂缝"}


def jpeg(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (seed % 256, 20, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def facts(number: int, **keys: Any) -> dict[str, Any]:
    level = RiskLevel(keys.pop("level", number % 3))
    report = RiskReport(level, {**TEXTS, **keys.pop("texts", {})})
    cells = {"image_id": f"r{number}", "房屋": "3栋"}
    return {
        "number": number,
        "table": "t.csv",
        "line": number + 2,
        "id": f"r{number}",
        "report": report,
        "cells": cells,
        **keys,
    }


def record(number: int, photo: Photo, **keys: Any) -> DefectRecord:
    return DefectRecord(photo=photo, **facts(number, **keys))


def prepared(number: int, source: Path | None = None, data: bytes | None = None, **keys: Any) -> PreparedRow:
    data = jpeg(number) if data is None else data
    photo = StoredPhoto(
        name=f"{number}.jpg",
        source=source,
        size=keys.pop("size", (8, 6)),
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        perceptual_hash=keys.pop("perceptual_hash", f"{number:016x}"),
        is_unchanged=source is not None,
    )
    return PreparedRow(photo=photo, **facts(number, **keys))


def bad(number: int, reason: str = "image_missing") -> BadRow:
    return BadRow(number, "t.csv", number + 2, f"r{number}", f"{number}.jpg", reason, "gone")
