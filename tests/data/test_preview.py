import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from riskva.data.preview import preview
from riskva.errors import DataError, MissingDataError


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "JPEG")
    return buffer.getvalue()


def row(number: int) -> dict[str, object]:
    messages = [
        {"role": "system", "content": "检查员"},
        {"role": "user", "content": "<image>问\n第二行"},
        {"role": "assistant", "content": "**风险等级**: 轻微"},
    ]
    return {"id": str(number), "messages": messages, "images": ["a.jpg"], "楼层": "三层"}


def written(folder: Path, rows: list[dict[str, object]]) -> Path:
    (folder / "a.jpg").write_bytes(jpeg())
    path = folder / "train.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in rows), encoding="utf-8")
    return path


def test_rows_read_as_a_person_would_read_them(tmp_path: Path) -> None:
    path = written(tmp_path, [row(1), row(2), row(3)])
    assert preview(path, 1).splitlines() == [
        f"{path}: 3 rows, the first 1:",
        "",
        "── row 1, id 1 ──",
        "[system] 检查员",
        "[user] <image>问",
        "    第二行",
        "[assistant] **风险等级**: 轻微",
        f"[image] a.jpg, 30 x 20 px, {len(jpeg()) / 1000:.1f} kB",
        "[楼层] 三层",
    ]


def test_more_rows_than_there_are_show_all(tmp_path: Path) -> None:
    assert preview(written(tmp_path, [row(1), row(2)]), 9).count("── row") == 2


def test_base64_photos_are_shown_too(tmp_path: Path) -> None:
    plain = {key: value for key, value in row(1).items() if key != "images"}
    path = written(tmp_path, [plain | {"image_base64": [base64.b64encode(jpeg()).decode()]}])
    assert "30 x 20 px" in preview(path, 1)


def test_what_cannot_be_shown_says_why(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such file"):
        preview(tmp_path / "gone.jsonl", 1)
    (tmp_path / "table.csv").touch()
    with pytest.raises(DataError, match=r"reads the \.jsonl and \.parquet files"):
        preview(tmp_path / "table.csv", 1)
