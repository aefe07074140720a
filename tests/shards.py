"""Parquet data sets of several files for tests, written without `stage: prepare`."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from user_rows import drawn_conversations

from riskva.data.conversation import Conversation
from riskva.data.manifest import Manifest, WrittenFile
from riskva.files import sha256_of, write_json
from riskva.report import DEFAULT_FORMAT, default_question

ENTRY = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}


def write_shards(folder: Path, num_rows: int, num_files: int, rows_per_group: int, with_photos: bool = True) -> Path:
    """A data set called `rows` of `num_files` Parquet files in `folder`; row i has the id str(i)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(one) for one in drawn_conversations(num_rows, with_photos)]
    for number in range(num_files):
        part = rows[number * num_rows // num_files : (number + 1) * num_rows // num_files]
        path = folder / f"rows-{number:05d}-of-{num_files:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=rows_per_group)
    write_json(folder / "dataset_info.json", {"rows": {"file_name": f"rows-*-of-{num_files:05d}.parquet", **ENTRY}})
    return folder


def _row(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "messages": [{"role": one.role, "content": one.content} for one in conversation.messages],
        "images": [{"bytes": one.data, "path": one.name} for one in conversation.photos],
    }


def write_manifest(folder: Path, photos: tuple[str, ...] = ()) -> None:
    """A manifest of the .parquet and .jsonl files in `folder` as they are, and of these photos."""
    files = tuple(_written(path, folder) for path in sorted(folder.iterdir()) if path.suffix in (".parquet", ".jsonl"))
    manifest = Manifest(
        riskva_version="0",
        tables=(),
        recipe={},
        report_format=DEFAULT_FORMAT,
        system_prompt="",
        question="<image>" + default_question(DEFAULT_FORMAT),
        files=files,
        photos=tuple(_written(folder / name, folder) for name in photos),
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()), encoding="utf-8")


def _written(path: Path, folder: Path) -> WrittenFile:
    return WrittenFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path))
