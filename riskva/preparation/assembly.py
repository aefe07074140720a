"""The second half of prepare: rows whose photos are ready become splits, files, an audit, and a data set in its place.

It reads pieces and nothing of the tables, so it is the same whether one process prepared all rows or many a part each.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from riskva.audit.builder import Audit, AuditBuilder
from riskva.audit.facts import AuditSettings
from riskva.audit.page import render_audit
from riskva.columns import GROUP_COLUMN
from riskva.console import progress
from riskva.data.conversation import Conversation, Photo
from riskva.data.formats import BASE64_COLUMN
from riskva.data.images import thumbnail
from riskva.data.manifest import Manifest, SourceTable, WrittenFile
from riskva.data.parallel import num_cores, ordered_map
from riskva.data.registry import prepared_entry
from riskva.errors import AuditError
from riskva.files import write_json, write_whole
from riskva.preparation.conversations import to_conversation
from riskva.preparation.finished_parts import FinishedPart, find_row, rows_in_order
from riskva.preparation.index import Index, index_rows, split_rows
from riskva.preparation.pieces import PieceRow
from riskva.preparation.quarantine import judge, list_bad_rows
from riskva.preparation.recipe_readings import prompt_of, recorded, report_format_of, split_names
from riskva.preparation.staging import AUDIT_NAME, AUDIT_PAGE_NAME, QUARANTINE_NAME, Staging
from riskva.preparation.writers import (
    ParquetForm,
    PhotoFolder,
    PhotoNames,
    described,
    plan_shards,
    write_jsonl,
    write_parquet,
)
from riskva.recipe import PrepareRecipe, num_bytes
from riskva.tables.records import PreparedRow
from riskva.version import __version__
from riskva.vocabulary import KINDS

_THUMBNAIL_PIXELS = 240


@dataclass(frozen=True)
class Assembled:
    """What stands in the output folder: files by split, photos beside them, the audit, and the index of the rows."""

    files: Mapping[str, Sequence[WrittenFile]]
    photos: Sequence[WrittenFile]
    audit: Audit
    index: Index
    splits: Sequence[str]


def assemble(parts: Sequence[FinishedPart], recipe: PrepareRecipe, staging: Staging) -> Assembled:
    """Make the data set of all parts and put it in its place; then the parts, which the caller has locked, go.

    Raises `TooManyBadRowsError` above `max_bad_share`, and `AuditError` when the audit finds errors and is strict; both
    leave a list or a page that says what is wrong, and a data set that stood there as it was.
    """
    with staging.locked("set"):
        index = index_rows(rows_in_order(parts))
        judge(index.bad, index.num_rows, recipe.max_bad_share, staging.failure_path(QUARANTINE_NAME))
        splits = split_rows(index, recipe)
        audit = _audit(parts, index, splits, recipe)
        page = render_audit(audit)
        if recipe.audit == "strict" and audit.errors:
            _fail(audit, page, staging)
        staging.begin(_key(index, recipe))
        files, photos = _Build(parts, index, splits, recipe, staging.folder).write()
        list_bad_rows(index.bad, staging.folder / QUARANTINE_NAME)
        write_json(staging.folder / AUDIT_NAME, audit.to_json())
        with write_whole(staging.folder / AUDIT_PAGE_NAME) as stream:
            stream.write(page)
        staging.publish(_manifest(parts[0], index, files, photos, recipe), _registry(files, recipe))
        staging.clear(part.part for part in parts)
    return Assembled(files, photos, audit, index, splits)


def _key(index: Index, recipe: PrepareRecipe) -> str:
    made = {"version": __version__, "rows": index.digest, "recipe": recorded(recipe), "groups": GROUP_COLUMN}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def _audit(parts: Sequence[FinishedPart], index: Index, splits: Sequence[str], recipe: PrepareRecipe) -> Audit:
    settings = AuditSettings(
        report_format=report_format_of(recipe),
        splits=tuple(split_names(recipe)),
        image_max_pixels=recipe.image_max_pixels,
        image_min_pixels=recipe.image_min_pixels,
        kinds=KINDS if recipe.kinds is None else recipe.kinds,
        title=recipe.dataset_name,
        tables=tuple((one.name, one.label) for one in parts[0].tables),
    )
    builder, in_order, names = AuditBuilder(settings), iter(splits), _GroupNames(recipe)
    for one in rows_in_order(parts):
        if isinstance(one.row, PreparedRow):
            builder.add(replace(one.row, group=names.shown(one.row.group)), next(in_order))
        else:
            builder.add_bad(one.row)
    clusters = [[index.numbers[position] for position in cluster] for cluster in index.look_alikes]
    return builder.finish(clusters, lambda number: thumbnail(find_row(parts, number).read_photo(), _THUMBNAIL_PIXELS))


class _GroupNames:
    """What the audit calls groups: by their names, or by numbers where those come from text that may be cut off."""

    def __init__(self, recipe: PrepareRecipe) -> None:
        self._are_private = recipe.group_pattern is not None or recipe.group_by in recipe.strip_patterns
        self._numbers: dict[str, int] = {}

    def shown(self, group: str | None) -> str | None:
        if group is None or not self._are_private:
            return group
        return f"#{self._numbers.setdefault(group, len(self._numbers) + 1)}"


def _fail(audit: Audit, page: str, staging: Staging) -> None:
    path = staging.failure_path(AUDIT_PAGE_NAME)
    write_json(staging.failure_path(AUDIT_NAME), audit.to_json())
    with write_whole(path) as stream:
        stream.write(page)
    found = "\n".join(f"  {one.code}: {one.title} ({one.count}); {one.remedy}" for one in audit.errors)
    raise AuditError(f"audit: strict, and the audit found errors, shown in {path}\n{found}")


class _Build:
    """The data set's files, built in the staging folder, split by split."""

    def __init__(
        self, parts: Sequence[FinishedPart], index: Index, splits: Sequence[str], recipe: PrepareRecipe, folder: Path
    ) -> None:
        self._parts = parts
        self._index = index
        self._splits = splits
        self._recipe = recipe
        self._folder = folder
        self._prompt, self._format = prompt_of(recipe), report_format_of(recipe)
        self._names = PhotoNames()
        self._photos = PhotoFolder(folder, recipe.image_storage)

    def write(self) -> tuple[dict[str, list[WrittenFile]], list[WrittenFile]]:
        """Files by split, and the photos beside them. Parquet files that a killed run finished are kept."""
        used = [name for name in split_names(self._recipe) if name in set(self._splits)]
        rows = progress(self._rows(used), len(self._splits), "write", "row")
        write = self._jsonl if self._recipe.output_format == "jsonl" else self._parquet
        files = {split: write(split, rows) for split in used}
        for _ in rows:  # none is left: this ends the progress bar
            raise AssertionError("a row was not written")
        return files, list(self._photos.files.values())

    def _rows(self, splits: Sequence[str]) -> Iterator[PieceRow]:
        """The good rows of each split in turn, in the order of the tables."""
        for split in splits:
            good = (one for one in rows_in_order(self._parts) if isinstance(one.row, PreparedRow))
            yield from (one for one, its in zip(good, self._splits, strict=True) if its == split)

    @property
    def _columns(self) -> tuple[str, ...]:
        """The tables' columns, and that of the groups where rows have any."""
        return (*self._parts[0].columns, *([GROUP_COLUMN] if self._recipe.group_by is not None else []))

    def _jsonl(self, split: str, rows: Iterator[PieceRow]) -> list[WrittenFile]:
        path = self._folder / f"{split}.jsonl"
        conversations = self._conversations(islice(rows, self._splits.count(split)))
        return [write_jsonl(path, conversations, self._recipe.image_encoding)]

    def _parquet(self, split: str, rows: Iterator[PieceRow]) -> list[WrittenFile]:
        form = ParquetForm(self._recipe.image_encoding, self._recipe.parquet_compression, self._columns)
        sizes = [size for size, its in zip(self._index.num_bytes, self._splits, strict=True) if its == split]
        shards = plan_shards(sizes, num_bytes(self._recipe.max_shard_size))
        written = []
        for number, shard in enumerate(shards):
            path = self._folder / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            of_shard = islice(rows, len(shard))
            if path.exists():
                for one in of_shard:
                    self._name(one)  # as if it were written: a later photo may want the same name
                written.append(described(path, len(shard)))
            else:
                written.append(write_parquet(path, self._conversations(of_shard), form))
        return written

    def _conversations(self, rows: Iterator[PieceRow]) -> Iterator[Conversation]:
        num_workers = self._recipe.preprocessing_num_workers or num_cores()
        for one, data in ordered_map(lambda one: (one, one.read_photo()), rows, num_workers):
            assert isinstance(one.row, PreparedRow)
            name = self._name(one)
            if self._recipe.output_format == "jsonl" and self._recipe.image_encoding == "bytes":
                self._photos.store(one.row.photo, data, name)
            group = None if one.row.group is None else self._index.group_names[one.row.group]
            yield to_conversation(one.row, Photo(data=data, name=name), self._prompt, self._format, group)

    def _name(self, one: PieceRow) -> str:
        assert isinstance(one.row, PreparedRow)
        return self._names.name(one.row.photo, one.row.number)


def _manifest(
    part: FinishedPart,
    index: Index,
    files: Mapping[str, Sequence[WrittenFile]],
    photos: Sequence[WrittenFile],
    recipe: PrepareRecipe,
) -> Manifest:
    bad = Counter(one.table for one in index.bad)
    prompt = prompt_of(recipe)
    return Manifest(
        riskva_version=__version__,
        tables=tuple(
            SourceTable(one.path, one.sha256, one.label, rows=index.rows_by_table[one.name], bad_rows=bad[one.name])
            for one in part.tables
        ),
        recipe=recorded(recipe),
        report_format=report_format_of(recipe),
        system_prompt=prompt.system,
        question=prompt.question,
        files=tuple(one for written in files.values() for one in written),
        photos=tuple(photos),
    )


def _registry(files: Mapping[str, Sequence[WrittenFile]], recipe: PrepareRecipe) -> dict[str, Any]:
    images = BASE64_COLUMN if recipe.image_encoding == "base64" else "images"
    return {
        f"{recipe.dataset_name}_{split}": prepared_entry(
            written[0].name
            if len(written) == 1
            else f"{split}-[0-9][0-9][0-9][0-9][0-9]-of-{len(written):05d}.parquet",
            images,
        )
        for split, written in files.items()
    }
